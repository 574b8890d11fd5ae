"""Run a VPN server from its first report to an orderly end."""

import contextlib
from collections.abc import Callable

from tunnel_rs.cli.running import (
    LinkSource,
    log_failure,
    reach_options,
    serve_links,
)
from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.accepting import close_in_time
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Notice, Reporter, VpnServerStarting
from tunnel_rs.values import EndpointId
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.settings import ServerSettings

MAX_LINKS = 16_384


async def run_vpn_server(
    endpoint: LinkSource,
    server: VpnServer,
    reach: EndpointSettings,
    report: Reporter,
    reread: Callable[[], ServerSettings],
) -> ExitStatus:
    """Announce the server, serve every link until a signal, and close all. `ServerReady` is
    reported once the ways to us are known. Returns the exit status."""
    report(starting(endpoint.endpoint_id, server, reach))
    with StopSignals(reload=lambda: _reload(server, report, reread)) as signals:
        async with TaskScope("links", on_failure=log_failure, limit=MAX_LINKS) as links:
            accepting = links.spawn(serve_links(endpoint, server, links, report), "accept")
            try:
                running = server.run_until_lost()
                return await run_until_signal(running, server.close, signals, report)
            finally:
                accepting.cancel()
                await close_in_time(endpoint)


def starting(
    endpoint_id: EndpointId, server: VpnServer, reach: EndpointSettings
) -> VpnServerStarting:
    """What a VPN server says first."""
    words = (
        f"tunnel-rs-vpn client --server-node-id {endpoint_id}",
        *reach_options(reach),
        "--auth-token TOKEN",
    )
    tokens = len(server.tokens)
    return VpnServerStarting(endpoint_id, tokens, server.device, server.addresses, " ".join(words))


def _reload(server: VpnServer, report: Reporter, reread: Callable[[], ServerSettings]) -> None:
    with contextlib.suppress(TunnelError):  # it is told
        reload_vpn_server(server, report, reread)


def reload_vpn_server(
    server: VpnServer, report: Reporter, reread: Callable[[], ServerSettings]
) -> str:
    """Let a server use the tokens as they are now; how many, in a line. What `reread` raises is
    told, leaves those in use in place, and is raised again."""
    try:
        settings = reread()
    except TunnelError as error:
        report(Notice("warning", f"{error}; the settings in use stay as they are"))
        raise
    server.apply(settings)
    text = f"{len(settings.access.tokens)} token(s)"
    report(Notice("info", f"tokens read again: {text}"))
    return text
