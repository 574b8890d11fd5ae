"""`tunnel-rs server`."""

import os
from collections.abc import Callable
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets, warn_of_open_key_file
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.cli.running import run_server
from tunnel_rs.config.build import ServerConfig, build_server, server_settings
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

    return event_loop.run(_serve(config, console.report, reread))


async def _serve(
    config: ServerConfig, report: Reporter, reread: Callable[[], ServerSettings]
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.forward.server import ForwardServer
    from tunnel_rs.iroh.endpoint import Endpoint

    endpoint = await Endpoint.bind(config.endpoint, accept=True, report=report)
    server = ForwardServer(config.forward, report=report)
    return await run_server(config.forward, config.endpoint, endpoint, server, report, reread)
