"""Run a VPN server from its first report to an orderly end."""

from collections.abc import Callable

from tunnel_rs.cli.running import Closable, LinkSource, accept_links, close_in_time, log_failure
from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Notice, Reporter, ServerReady, VpnServerStarting
from tunnel_rs.values import EndpointId
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.settings import ServerSettings

MAX_LINKS = 16_384

__all__ = ["Closable", "run_vpn_server", "starting"]


async def run_vpn_server(
    endpoint: LinkSource,
    server: VpnServer,
    device: str,
    tokens: int,
    report: Reporter,
    reread: Callable[[], ServerSettings],
) -> ExitStatus:
    """Announce the server, serve every link until a signal, and close all. Returns the exit
    status."""
    report(starting(endpoint.endpoint_id, tokens, device, server.addresses))
    with StopSignals(reload=lambda: _reload(server, report, reread)) as signals:
        addresses = endpoint.addresses
        report(ServerReady(endpoint.endpoint_id, addresses, (*endpoint.ways, *map(str, addresses))))
        async with TaskScope("links", on_failure=log_failure, limit=MAX_LINKS) as links:
            try:
                accepting = links.spawn(accept_links(endpoint, server, links), "accept")
                running = server.run_until_lost()
                return await run_until_signal(running, server.close, signals, report)
            finally:
                accepting.cancel()
                await close_in_time(endpoint)


def starting(
    endpoint_id: EndpointId, tokens: int, device: str, addresses: tuple[str, ...]
) -> VpnServerStarting:
    """What a VPN server says first."""
    command = f"tunnel-rs-vpn client --server-node-id {endpoint_id} --auth-token TOKEN"
    return VpnServerStarting(endpoint_id, tokens, device, addresses, command)


def _reload(server: VpnServer, report: Reporter, reread: Callable[[], ServerSettings]) -> None:
    try:
        settings = reread()
    except TunnelError as error:
        report(Notice("warning", f"{error}; the settings in use stay as they are"))
        return
    server.apply(settings)
    report(Notice("info", f"tokens read again: {len(settings.tokens())}"))
