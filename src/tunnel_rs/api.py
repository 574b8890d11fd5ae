"""The library: serve and reach ports from a program of one's own. `docs/API.md` shows it.

    async with tunnel_rs.serve(server_config(...)) as server: ...
    async with tunnel_rs.connect(client_config(...)) as client:
        reader, writer = await client.open("tcp://127.0.0.1:22")

The programs are made of the same two, `Server` and `Client`.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from tunnel_rs.config.build import (
    ClientConfig,
    ServerConfig,
    build_client,
    build_server,
)
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.errors import TargetError, TunnelError, UnreachableError
from tunnel_rs.forward.client import ForwardClient
from tunnel_rs.forward.server import ForwardServer
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.net.accepting import MAX_LINKS, accept_links, close_in_time
from tunnel_rs.net.link import Link
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Report, Reporter, TunnelUp, silent
from tunnel_rs.values import EndpointId, Protocol, SocketAddr, SourceUrl


def server_config(
    *,
    secret_file: str | None = None,
    secret: str | None = None,
    allowed_tcp: Sequence[str] = (),
    allowed_udp: Sequence[str] = (),
    auth_tokens: Sequence[str] = (),
    auth_tokens_file: str | None = None,
    allowed_clients: Sequence[str] = (),
    allowed_clients_file: str | None = None,
    max_sessions: int | None = None,
    bind: str | None = None,
    relay_urls: Sequence[str] = (),
    relay_only: bool = False,
    dns_server: str | None = None,
) -> ServerConfig:
    """The configuration of a server. The parameters are the options of `tunnel-rs server`, of the
    same names, in the same forms and with the same defaults (`docs/CONFIGURATION.md`).

    Raises UsageError, or ConfigError for a file.
    """
    given = {
        "secret_file": secret_file,
        "secret": secret,
        "allowed_tcp": allowed_tcp,
        "allowed_udp": allowed_udp,
        "auth_tokens": auth_tokens,
        "auth_tokens_file": auth_tokens_file,
        "allowed_clients": allowed_clients,
        "allowed_clients_file": allowed_clients_file,
        "max_sessions": max_sessions,
        "bind": bind,
        "relay_urls": relay_urls,
        "relay_only": relay_only or None,
        "dns_server": dns_server,
    }
    return build_server(_values(Role.SERVER, given))


def client_config(
    server_node_id: str,
    *,
    auth_token: str | None = None,
    auth_token_file: str | None = None,
    client_secret_file: str | None = None,
    tunnels: Mapping[str, str] | None = None,
    socks5: str | None = None,
    peer_addrs: Sequence[str] = (),
    bind: str | None = None,
    relay_urls: Sequence[str] = (),
    relay_only: bool = False,
    dns_server: str | None = None,
    reconnect: bool = True,
    connect_timeout: float | None = None,
) -> ClientConfig:
    """The configuration of a client, likewise. `tunnels` maps where to listen (`127.0.0.1:2222`) to
    what is reached there (`tcp://127.0.0.1:22`); without any, `Client.open` is the way through.

    Raises UsageError, or ConfigError for a file.
    """
    given = {
        "server_node_id": server_node_id,
        "auth_token": auth_token,
        "auth_token_file": auth_token_file,
        "client_secret_file": client_secret_file,
        "source": list(tunnels.values()) if tunnels else (),
        "target": list(tunnels) if tunnels else (),
        "socks5": socks5,
        "peer_addrs": peer_addrs,
        "bind": bind,
        "relay_urls": relay_urls,
        "relay_only": relay_only or None,
        "dns_server": dns_server,
        "reconnect": None if reconnect else False,
        "connect_timeout": connect_timeout,
    }
    return build_client(_values(Role.CLIENT, given), needs_tunnels=False)


def _values(role: Role, given: Mapping[str, object]) -> Values:
    return collect(role, {name: _texts(value) for name, value in given.items()}, {}, None)


def _texts(value: object) -> list[str]:
    """A value as it would be written on the command line: every occurrence."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(item) for item in value]
    return [str(value)]


class Server:
    """A bound server: clients can reach it while its links are served."""

    def __init__(self, endpoint: Endpoint, forward: ForwardServer) -> None:
        self.endpoint = endpoint
        self.forward = forward

    @classmethod
    async def bind(cls, config: ServerConfig, report: Reporter = silent) -> Self:
        """Take the sockets. Raises LocalError, ConfigError."""
        endpoint = await Endpoint.bind(config.endpoint, accept=True, report=report)
        return cls(endpoint, ForwardServer(config.forward, report=report))

    @property
    def endpoint_id(self) -> EndpointId:
        """What clients know us by."""
        return self.endpoint.endpoint_id

    @property
    def addresses(self) -> tuple[SocketAddr, ...]:
        """Where we can be reached directly, loopback last."""
        return self.endpoint.addresses

    async def close(self) -> None:
        """Let sessions end for a few seconds, then close all. Idempotent."""
        await self.forward.close()
        await close_in_time(self.endpoint)


class Client:
    """A bound client: it connects, listens and forwards while `run` runs."""

    def __init__(self, endpoint: Endpoint, forward: ForwardClient) -> None:
        self.endpoint = endpoint
        self.forward = forward

    @classmethod
    async def bind(cls, config: ClientConfig, report: Reporter = silent) -> Self:
        """Take the sockets. Raises LocalError, ConfigError."""
        endpoint = await Endpoint.bind(config.endpoint, accept=False, report=report)

        timeout = config.forward.connect_timeout

        async def connect() -> Link:
            return await endpoint.connect(config.server, timeout=timeout)

        async def settle() -> None:
            await endpoint.settle(timeout=timeout)

        client = cls(endpoint, ForwardClient(config.forward, connect, report, settle=settle))
        endpoint.on_change = client.forward.retry_now
        return client

    @property
    def listening(self) -> tuple[SocketAddr, ...]:
        """Where local programs can connect, in the order of the tunnels."""
        return tuple(address for tunnel in self.forward.tunnels for address in tunnel.addresses)

    async def run(self) -> None:
        """Forward until `close`. Raises what makes going on impossible: a port in use, a refused
        token, another key than asked for; without `reconnect` any loss of the connection."""
        await self.forward.run()

    async def open(self, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to `source` (`tcp://host:port`, as seen from the server). Its ends, each
        direction's by itself, and pressure pass through. Raises TargetError for what is no such
        source or is declined by the server, UnreachableError when there is no tunnel."""
        try:
            wanted = SourceUrl.parse(source)
        except ValueError as error:
            raise TargetError(f"{source}: {error}") from None
        if wanted.protocol is not Protocol.TCP:
            raise TargetError(f"{source}: a stream carries tcp:// only")
        ours, theirs = socket.socketpair()
        try:
            await self.forward.join(theirs, wanted)
        except BaseException:
            ours.close()
            raise
        return await asyncio.open_connection(sock=ours)

    async def close(self) -> None:
        """Let sessions end for a few seconds, then close all. Idempotent."""
        await self.forward.close()
        await close_in_time(self.endpoint)


@asynccontextmanager
async def serve(config: ServerConfig, report: Reporter = silent) -> AsyncIterator[Server]:
    """Serve while entered. Raises LocalError, ConfigError; UnreachableError when clients could
    reach us only over relays and none can be used."""
    server = await Server.bind(config, report)
    async with TaskScope("links", limit=MAX_LINKS) as links:
        links.spawn(accept_links(server.endpoint, server.forward, links), "accept")
        try:
            await server.endpoint.online()
            yield server
        finally:
            await server.close()


@asynccontextmanager
async def connect(config: ClientConfig, report: Reporter = silent) -> AsyncIterator[Client]:
    """Forward while entered; entered when the tunnel is up for the first time. Raises LocalError,
    ConfigError, AuthRefusedError, WrongPeerError, and UnreachableError or PeerNotFoundError when
    `reconnect` is off. With it, it tries until it is cancelled: put `asyncio.timeout` around it."""
    up = asyncio.Event()

    def noted(told: Report) -> None:
        if isinstance(told, TunnelUp):
            up.set()
        report(told)

    client = await Client.bind(config, noted)
    async with TaskScope("client", on_failure=_raised_below) as scope:
        running = scope.spawn(client.run(), "run")
        waiting = scope.spawn(up.wait(), "up")
        try:
            await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                raise UnreachableError("the client was closed before it connected")
            yield client
        finally:
            await client.close()


def _raised_below(name: str, error: Exception) -> None:
    """The failure of `run` is raised where the client is entered; later it shows in `open`."""


__all__ = [
    "Client",
    "ClientConfig",
    "Server",
    "ServerConfig",
    "TunnelError",
    "client_config",
    "connect",
    "serve",
    "server_config",
]
