"""`tunnel-rs dns-server`."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.serving import serve
from tunnel_rs.config.dns_server_file import load_dns_server
from tunnel_rs.errors import ExitStatus
from tunnel_rs.reports import DiscoveryReady, Reporter
from tunnel_rs.selfhost.dns_settings import DnsServerSettings


@click.command("dns-server")
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML file with the keys of iroh-dns-server; see dns_server.toml.example.",
)
@output_options(json=True)
def dns_server(console: Console, config: Path | None) -> ExitStatus:
    """Run a discovery server that iroh endpoints can use too.

    Servers publish where they are over HTTP; clients look it up over HTTP or DNS. SIGHUP reads the
    TLS files again.

    \b
    Examples:
      tunnel-rs dns-server
      tunnel-rs dns-server -c dns_server.toml
    """
    path = config.expanduser() if config else None

    def settings() -> DnsServerSettings:
        return load_dns_server(path, os.environ)

    return event_loop.run(_serve(settings(), console.report, settings))


async def _serve(
    settings: DnsServerSettings, report: Reporter, reread: Callable[[], DnsServerSettings]
) -> ExitStatus:
    # Imported late: mistakes in the file are told before the server has been loaded.
    from tunnel_rs.selfhost.dns_server import DnsServer

    server = DnsServer(settings, report=report)

    def ready() -> DiscoveryReady:
        return DiscoveryReady(
            server.pkarr_urls,
            settings.dns.origins if settings.dns else (),
            server.http_address,
            server.https_address,
            server.dns_address,
            server.metrics_address,
            str(settings.data_dir) if settings.data_dir else None,
        )

    async def reload() -> tuple[str, ...]:
        new = reread()
        server.reload_certificate()
        return ("all that has changed",) if new != settings else ()

    return await serve(server, report, ready, reload)
