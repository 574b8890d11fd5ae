"""`tunnel-rs server`."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets, warn_of_open_key_file
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.cli.running import reload_server, run_server
from tunnel_rs.config.build import ServerConfig, build_server, server_settings
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.errors import ExitStatus
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.reports import Reporter


@click.command()
@source_options(Role.SERVER)
@output_options(json=True)
def server(console: Console, **given: Any) -> ExitStatus:
    """Let clients reach ports from here.

    A client needs the EndpointId that is printed, and one of the tokens.

    \b
    Example:
      tunnel-rs generate-server-key -o server.key
      tunnel-rs generate-token >token.txt
      tunnel-rs server --secret-file server.key --auth-tokens-file token.txt \\
          --allowed-tcp 127.0.0.0/8
    """
    values = load(Role.SERVER, given, os.environ)
    config = build_server(values)
    warn_of_exposed_secrets(values, console.report)
    warn_of_open_key_file(values, console.report)

    def reread() -> ServerSettings:
        return server_settings(load(Role.SERVER, given, os.environ), running=True)

    operations = operation_settings(values)
    return event_loop.run(_serve(config, operations, console.report, reread))


async def _serve(
    config: ServerConfig,
    settings: OperationSettings,
    report: Reporter,
    reread: Callable[[], ServerSettings],
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.api import Server
    from tunnel_rs.cli.control_commands import server_commands
    from tunnel_rs.cli.operations import Operations

    async with Operations(settings, Role.SERVER, report, os.environ) as operations:
        report = operations.report
        server = await Server.bind(config, report)
        forward = server.forward

        def read_again() -> ServerSettings:
            operations.reopen()
            return reread()

        commands = server_commands(forward, partial(reload_server, forward, report, read_again))
        operations.observe(server.endpoint_id, forward, commands)
        return await run_server(
            config.forward, config.endpoint, server.endpoint, forward, report, read_again
        )
