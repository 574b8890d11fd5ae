"""Run a server or a client from its first report to an orderly end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Protocol

from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.forward.settings import Network, ServerSettings
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.accepting import (
    MAX_LINKS,
    Acceptor,
    Closable,
    Servant,
    accept_links,
    close_in_time,
)
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Notice, Reporter, ServerReady, ServerStarting
from tunnel_rs.values import EndpointId, HostPort, SocketAddr, SourceUrl
from tunnel_rs.values import Protocol as Carried

_log = logging.getLogger("tunnel_rs")


class LinkSource(Acceptor, Closable, Protocol):
    """Where the links of clients come from."""

    @property
    def endpoint_id(self) -> EndpointId: ...

    @property
    def addresses(self) -> tuple[SocketAddr, ...]: ...

    @property
    def ways(self) -> tuple[str, ...]: ...

    async def online(self) -> None:
        """Raises TunnelError when nobody can reach us."""


class LinkServer(Servant, Protocol):
    """What serves them; `close` lets sessions finish and refuses new ones."""

    def apply(self, settings: ServerSettings) -> None: ...

    async def close(self) -> None: ...


class Runnable(Protocol):
    """A client: `close` lets sessions finish."""

    async def run(self) -> None: ...

    async def close(self) -> None: ...


async def run_server(
    settings: ServerSettings,
    reach: EndpointSettings,
    endpoint: LinkSource,
    server: LinkServer,
    report: Reporter,
    reread: Callable[[], ServerSettings],
) -> ExitStatus:
    """Announce the server, serve every link until a signal, and close all.

    Links are served from the start; `ServerReady` is reported once the ways to us are known.
    `reread` reads the settings again, for SIGHUP; what it raises leaves those in use in place.
    Returns the exit status.
    """
    report(starting(endpoint.endpoint_id, settings, reach))
    with StopSignals(reload=lambda: _reload(server, report, reread)) as signals:
        async with TaskScope("links", on_failure=log_failure, limit=MAX_LINKS) as links:
            try:
                serving = serve_links(endpoint, server, links, report)
                return await run_until_signal(serving, server.close, signals, report)
            finally:
                await close_in_time(endpoint)


async def run_client(endpoint: Closable, client: Runnable, report: Reporter) -> ExitStatus:
    """Run a client until it ends or a signal comes, and close all. Returns the exit status."""
    with StopSignals() as signals:
        try:
            return await run_until_signal(client.run(), client.close, signals, report)
        finally:
            await close_in_time(endpoint)


def _reload(server: LinkServer, report: Reporter, reread: Callable[[], ServerSettings]) -> None:
    with contextlib.suppress(TunnelError):  # it is told
        reload_server(server, report, reread)


def reload_server(
    server: LinkServer, report: Reporter, reread: Callable[[], ServerSettings]
) -> str:
    """Let a server use the settings as they are now; what they are, in a line. What `reread` raises
    is told, leaves those in use in place, and is raised again."""
    try:
        settings = reread()
    except TunnelError as error:
        report(Notice("warning", f"{error}; the settings in use stay as they are"))
        raise
    server.apply(settings)
    tcp, udp = _networks(settings.allowed_tcp), _networks(settings.allowed_udp)
    text = f"{_who(settings)}, TCP {tcp}, UDP {udp}"
    report(Notice("info", f"settings read again: {text}"))
    return text


def _who(settings: ServerSettings) -> str:
    clients = len(settings.access.clients)
    keys = f", {clients} client key(s)" if clients else ""
    return f"{len(settings.access.tokens)} token(s){keys}"


def _networks(networks: tuple[Network, ...]) -> str:
    return ", ".join(map(str, networks)) or "nothing"


async def serve_links(
    endpoint: LinkSource, server: Servant, links: TaskScope, report: Reporter
) -> None:
    """Accept from now on, and tell when all who should can reach us. Raises what `online` does."""
    async with TaskScope("serving", on_failure=_raised_below) as scope:
        accepting = scope.spawn(accept_links(endpoint, server, links), "accept")
        getting_online = scope.spawn(_get_online(endpoint, report), "online")
        await asyncio.wait({accepting, getting_online}, return_when=asyncio.FIRST_COMPLETED)
        if getting_online.done():
            getting_online.result()
        await accepting


def _raised_below(name: str, error: Exception) -> None:
    """Both tasks are awaited, and so their failures raised, by `serve_links`."""


async def _get_online(endpoint: LinkSource, report: Reporter) -> None:
    await endpoint.online()
    addresses = endpoint.addresses
    ways = (*endpoint.ways, *map(str, addresses))
    report(ServerReady(endpoint.endpoint_id, addresses, ways))


def log_failure(name: str, error: Exception) -> None:
    """A `FailureCallback`: a fault of ours."""
    _log.error("internal error in %s", name, exc_info=error)


def starting(
    endpoint_id: EndpointId, settings: ServerSettings, reach: EndpointSettings
) -> ServerStarting:
    """What a server says first."""
    return ServerStarting(
        endpoint_id,
        len(settings.access.tokens),
        tuple(map(str, settings.allowed_tcp)),
        tuple(map(str, settings.allowed_udp)),
        client_command(endpoint_id, settings, reach),
    )


def client_command(
    endpoint_id: EndpointId, settings: ServerSettings, reach: EndpointSettings
) -> str:
    """A client's command for a source that this server allows."""
    words = (
        f"tunnel-rs client --server-node-id {endpoint_id}",
        *reach_options(reach),
        f"{sample_tunnel(settings)} --auth-token TOKEN",
    )
    return " ".join(words)


def sample_tunnel(settings: ServerSettings) -> str:
    """A client's options for a source that this server allows."""
    if settings.allowed_tcp:
        source = SourceUrl(Carried.TCP, HostPort(_sample(settings.allowed_tcp[0]), 22))
        target = HostPort("127.0.0.1", 2222)
    else:
        source = SourceUrl(Carried.UDP, HostPort(_sample(settings.allowed_udp[0]), 53))
        target = HostPort("127.0.0.1", 5353)
    return f"--source {source} --target {target}"


def reach_options(reach: EndpointSettings) -> Iterator[str]:
    """What a client has to be told to look where we are. Access tokens are not shown."""
    if not reach.public_relays:
        for relay in reach.relays:
            yield f"--relay-url {relay.text}"
        if not reach.relays:
            yield "--relay-url none"
    if reach.relay_only:
        yield "--relay-only"
    elif reach.discovery.resolve_url is not None:
        yield f"--dns-server {reach.discovery.resolve_url}"
    elif reach.discovery.dns_origin is None:
        yield "--dns-server none"


def _sample(network: Network) -> str:
    """An address in `network` that is likely to be somebody's: loopback, or the first host."""
    for loopback in map(ip_address, ("127.0.0.1", "::1")):
        if loopback in network:
            return str(loopback)
    return str(next(iter(network.hosts()), network.network_address))
