"""`tunnel-rs relay`."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.serving import serve
from tunnel_rs.config.relay_file import load_relay
from tunnel_rs.errors import ExitStatus
from tunnel_rs.reports import RelayReady, Reporter
from tunnel_rs.selfhost.relay_settings import RelayServerSettings


@click.command()
@click.option("--dev", is_flag=True, help="Plain HTTP on port 3340, whatever [tls] says.")
@click.option(
    "-c",
    "--config-path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML file with the keys of iroh-relay; see relay.toml.example.",
)
@output_options(json=True)
def relay(console: Console, dev: bool, config_path: Path | None) -> ExitStatus:
    """Run a relay server that iroh endpoints can use too.

    Reads IROH_RELAY_ACCESS_TOKEN and IROH_RELAY_HTTP_BEARER_TOKEN; SIGHUP reads the file, the
    certificate and the allow-list again.

    \b
    Examples:
      tunnel-rs relay --dev
      tunnel-rs relay -c relay.toml
    """
    path = config_path.expanduser() if config_path else None

    def settings() -> RelayServerSettings:
        return load_relay(path, os.environ, dev=dev)

    return event_loop.run(_serve(settings(), console.report, settings))


async def _serve(
    settings: RelayServerSettings, report: Reporter, reread: Callable[[], RelayServerSettings]
) -> ExitStatus:
    # Imported late: mistakes in the file are told before the server has been loaded.
    from tunnel_rs.selfhost.relay import RelayServer

    server = RelayServer(settings, report)

    def ready() -> RelayReady:
        addresses = server.addresses
        return RelayReady(
            server.urls,
            settings.access_in_words,
            addresses.http,
            addresses.https,
            addresses.quic,
            addresses.metrics,
        )

    async def reload() -> tuple[str, ...]:
        return await server.apply(reread())

    return await serve(server, report, ready, reload)
