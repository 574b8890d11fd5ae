"""The program `tunnel-rs-vpn`: its commands, loaded when they are asked for."""

from typing import NoReturn

import click

from tunnel_rs import __version__
from tunnel_rs.cli import exits
from tunnel_rs.cli.main import LazyGroup

PROGRAM = "tunnel-rs-vpn"


class VpnGroup(LazyGroup):
    """The commands of this program."""

    table = {
        "server": "tunnel_rs.cli.vpn_server:server",
        "client": "tunnel_rs.cli.vpn_client:client",
        "exec": "tunnel_rs.cli.vpn_exec:execute",
        "status": "tunnel_rs.cli.vpn_status:status",
        "ls": "tunnel_rs.cli.vpn_control:ls",
        "kill": "tunnel_rs.cli.vpn_control:kill",
        "reload": "tunnel_rs.cli.vpn_control:reload",
        "ping": "tunnel_rs.cli.vpn_control:ping",
        "cleanup": "tunnel_rs.cli.vpn_client:cleanup",
        "generate-token": "tunnel_rs.cli.keys:generate_token",
        "generate-server-key": "tunnel_rs.cli.keys:generate_server_key",
        "show-server-id": "tunnel_rs.cli.keys:show_server_id",
        "check-config": "tunnel_rs.cli.check_config:check_config",
        "completion": "tunnel_rs.cli.completion:completion",
    }


@click.group(PROGRAM, cls=VpnGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """A private network through any NAT: IP packets to a server that is found by its public key.

    \b
    Example:
      tunnel-rs-vpn server --default-config
      tunnel-rs-vpn client --default-config
    """


def main() -> NoReturn:
    """Entry point of the program: run it, and exit with the status of `ExitStatus`."""
    exits.leave(cli, PROGRAM)
