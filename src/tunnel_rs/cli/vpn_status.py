"""`tunnel-rs-vpn status`."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.control import show
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.programs import VPN_CLIENT, VPN_SERVER, Choice
from tunnel_rs.cli.status_lines import errors_line, penalties_line
from tunnel_rs.errors import ExitStatus


@click.command()
@output_options(json=True)
def status(console: Console) -> ExitStatus:
    """Show what the VPN servers and clients of this user are doing.

    Fails when none runs.

    \b
    Example:
      tunnel-rs-vpn status --json
    """
    return show(console, Choice(), lines, [VPN_SERVER, VPN_CLIENT])


def lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """One program's answer, for people."""
    addresses = ", ".join(answer.get("addresses", ())) or "no address"
    if answer.get("role") == "vpnserver":
        clients = answer.get("clients", [])
        yield f"server on {answer.get('device')}: {addresses}; {len(clients)} client(s)"
        for client in clients:
            addresses = ", ".join(client.get("addresses", ()))
            name = f" ({client['name']})" if client.get("name") else ""
            yield f"  {addresses}{name}: {_way(client)}"
            yield f"    {_traffic(client)}"
        if answer.get("dropped"):
            yield f"  dropped: {_drops(answer['dropped'])}"
        yield from _wrong(answer)
        return
    way = _way(answer) if answer.get("connected") else "not connected"
    yield f"client on {answer.get('device')}: {addresses}; {way}"
    yield f"  {_traffic(answer)}"
    yield from _wrong(answer)


def _wrong(answer: Mapping[str, Any]) -> Iterator[str]:
    for line in (errors_line(answer), penalties_line(answer)):
        if line:
            yield f"  {line}"


def _way(values: Mapping[str, Any]) -> str:
    rtt = values.get("rtt_ms")
    trip = "" if rtt is None else f", round trip {rtt} ms"
    return f"peer {str(values.get('peer'))[:10]} at {values.get('path')}{trip}"


def _traffic(values: Mapping[str, Any]) -> str:
    text = (
        f"sent {values.get('sent_packets')} packets ({values.get('sent_bytes')} B), "
        f"received {values.get('received_packets')} ({values.get('received_bytes')} B)"
    )
    dropped = values.get("dropped")
    return f"{text}; dropped: {_drops(dropped)}" if dropped else text


def _drops(dropped: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
