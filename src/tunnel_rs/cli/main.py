"""The program `tunnel-rs`: its commands, loaded when they are asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, NoReturn

import click

from tunnel_rs import __version__
from tunnel_rs.cli import exits
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.values import quoted

PROGRAM = "tunnel-rs"

COMMANDS: Mapping[str, str] = {
    "demo": "tunnel_rs.cli.demo:demo",
    "server": "tunnel_rs.cli.server:server",
    "client": "tunnel_rs.cli.client:client",
    "generate-token": "tunnel_rs.cli.keys:generate_token",
    "generate-server-key": "tunnel_rs.cli.keys:generate_server_key",
    "show-server-id": "tunnel_rs.cli.keys:show_server_id",
    "relay": "tunnel_rs.cli.relay:relay",
    "dns-server": "tunnel_rs.cli.dns_server:dns_server",
    "status": "tunnel_rs.cli.control:status",
    "top": "tunnel_rs.cli.top:top",
    "ls": "tunnel_rs.cli.control:ls",
    "kill": "tunnel_rs.cli.control:kill",
    "reload": "tunnel_rs.cli.control:reload",
    "ping": "tunnel_rs.cli.control:ping",
    "add": "tunnel_rs.cli.control:add",
    "rm": "tunnel_rs.cli.control:rm",
    "netcheck": "tunnel_rs.cli.netcheck:netcheck",
    "check-config": "tunnel_rs.cli.check_config:check_config",
    "service": "tunnel_rs.cli.service:service",
    "completion": "tunnel_rs.cli.completion:completion",
}
"""Where each command is found. To add one, add a row."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is needed."""

    table: ClassVar[Mapping[str, str]] = COMMANDS
    """Module and name of each command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module, _, attribute = self.table[name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        command.name = name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.table and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command {quoted(name)}{did_you_mean(name, self.table)}")
        return super().resolve_command(ctx, args)


@click.group(PROGRAM, cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Reach a TCP or UDP service on another machine, found by its public key, through any NAT.

    \b
    Example:
      tunnel-rs server --default-config
      tunnel-rs client --default-config
    """


def main() -> NoReturn:
    """Entry point of the program: run it, and exit with the status of `ExitStatus`."""
    exits.leave(cli, PROGRAM)
