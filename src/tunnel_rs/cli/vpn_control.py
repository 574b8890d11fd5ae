"""`tunnel-rs-vpn ls`, `kill`, `reload` and `ping`: see and steer what runs."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.control import chosen, done, show, show_round_trips
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.programs import VPN_CLIENT, VPN_SERVER, Choice
from tunnel_rs.cli.status_lines import moved, span
from tunnel_rs.errors import ExitStatus


@click.command()
@chosen
@output_options(json=True)
def ls(console: Console, choice: Choice) -> ExitStatus:
    """List the clients of the VPN servers of this user.

    Each with its addresses and the id to end its connection by.

    \b
    Example:
      tunnel-rs-vpn ls
    """
    return show(console, choice, _listed, [VPN_SERVER])


@click.command()
@click.argument("client", metavar="CLIENT")
@chosen
@output_options(json=True)
def kill(console: Console, client: str, choice: Choice) -> None:
    """End the connection of a client of the VPN.

    It is named by its id, of which ten characters are enough, or by an address it has in the VPN.
    It may come again: to keep it out take its token away, and `tunnel-rs-vpn reload`.

    \b
    Examples:
      tunnel-rs-vpn kill d75a980182
      tunnel-rs-vpn kill 10.0.0.2
    """
    program = choice.find_one(os.environ, [VPN_SERVER])
    answer = program.put({"command": "kill", "peer": client})
    done(console, answer, f"{answer.get('clients')} connection(s) of {client} were ended")


@click.command()
@chosen
@output_options(json=True)
def reload(console: Console, choice: Choice) -> None:
    """Make a VPN server read its tokens again.

    As SIGHUP does. When anything is wrong with them it is told, and nothing changes.

    \b
    Example:
      tunnel-rs-vpn reload
    """
    answer = choice.find_one(os.environ, [VPN_SERVER]).put({"command": "reload"})
    done(console, answer, f"tokens read again: {answer.get('settings')}")


@click.command()
@chosen
@output_options(json=True)
def ping(console: Console, choice: Choice) -> None:
    """Measure the round trip to the peers, outside of the VPN.

    To its server from a client, to all its clients from a server.

    \b
    Example:
      tunnel-rs-vpn ping
    """
    show_round_trips(console, choice.find_one(os.environ, [VPN_SERVER, VPN_CLIENT]))


def _listed(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"VPN server {answer.get('pid')} on {answer.get('device')}"
    for peer in answer.get("peers", ()):
        name = f" ({peer['name']})" if peer.get("name") else ""
        who = f"{str(peer.get('peer'))[:10]}{name}"
        addresses = ", ".join(peer.get("addresses", ()))
        yield f"  {addresses}: {who}, {span(peer.get('seconds'))}, {moved(peer)}"
