"""`tunnel-rs client`."""

import os
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets, warn_of_open_key_file
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.cli.running import run_client
from tunnel_rs.config.build import ClientConfig, build_client
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.errors import ExitStatus, UsageError
from tunnel_rs.reports import Reporter


@click.command()
@source_options(Role.CLIENT)
@output_options(json=True)
def client(console: Console, **given: Any) -> ExitStatus:
    """Reach ports through a server.

    Listens on each target and forwards what comes to its source, as seen from the server.

    \b
    Examples:
      tunnel-rs client -n ENDPOINT_ID --auth-token-file token.txt \\
          -s tcp://127.0.0.1:22 -t 127.0.0.1:2222
      ssh -o ProxyCommand='tunnel-rs client -c client.toml --stdio' user@server
    """
    values = load(Role.CLIENT, given, os.environ)
    config = build_client(values)
    if config.forward.stdio and console.writes_data:
        raise UsageError("--json cannot be given beside --stdio: stdout carries the stream")
    warn_of_exposed_secrets(values, console.report)
    warn_of_open_key_file(values, console.report)
    return event_loop.run(_forward(config, operation_settings(values), console.report))


async def _forward(
    config: ClientConfig, settings: OperationSettings, report: Reporter
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.api import Client
    from tunnel_rs.cli.control_commands import client_commands
    from tunnel_rs.cli.operations import Operations

    async with Operations(settings, Role.CLIENT, report, os.environ) as operations:
        report = operations.report
        client = await Client.bind(config, report)
        forward = client.forward
        operations.observe(client.endpoint.endpoint_id, forward, client_commands(forward))
        return await run_client(client.endpoint, forward, report)
