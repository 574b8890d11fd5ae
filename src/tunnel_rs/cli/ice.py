"""The program `tunnel-rs-ice`: its commands, loaded when they are asked for."""

from collections.abc import Mapping
from typing import ClassVar, NoReturn

import click

from tunnel_rs import __version__
from tunnel_rs.cli import exits
from tunnel_rs.cli.main import LazyGroup

PROGRAM = "tunnel-rs-ice"

COMMANDS: Mapping[str, str] = {
    "server": "tunnel_rs.cli.ice_server:server",
    "client": "tunnel_rs.cli.ice_client:client",
    "generate-nostr-key": "tunnel_rs.cli.nostr_keys:generate_nostr_key",
    "show-npub": "tunnel_rs.cli.nostr_keys:show_npub",
    "check-config": "tunnel_rs.cli.check_config:check_config",
    "completion": "tunnel_rs.cli.completion:completion",
}
"""Where each command is found. To add one, add a row."""


class IceGroup(LazyGroup):
    """The commands of this program."""

    table: ClassVar[Mapping[str, str]] = COMMANDS


@click.group(PROGRAM, cls=IceGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Reach a TCP or UDP service on another machine through NATs with ICE, introduced by copy and
    paste (manual) or over Nostr relays (nostr).

    \b
    Example:
      tunnel-rs-ice server manual --allowed-tcp 127.0.0.0/8
      tunnel-rs-ice client manual -s tcp://127.0.0.1:22 -t 127.0.0.1:2222
    """


def main() -> NoReturn:
    """Entry point of the program: run it, and exit with the status of `ExitStatus`."""
    exits.leave(cli, PROGRAM)
