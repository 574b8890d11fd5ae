"""Both sides of `tunnel-rs-ice` in one process, over loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Any

from tests.support.sockets import until
from tunnel_rs.forward.client import ForwardClient
from tunnel_rs.forward.server import ForwardServer
from tunnel_rs.forward.settings import ClientSettings, ServerSettings, Tunnel
from tunnel_rs.ice.manual import ManualClient, serve_manual
from tunnel_rs.ice.nostr_client import NostrClient, wall_clock
from tunnel_rs.ice.nostr_server import NostrServer
from tunnel_rs.ice.settings import ClientRequest, NostrSettings, Service, SessionSettings
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.proto.access import AccessList
from tunnel_rs.proto.manual_text import BlockKind
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.reports import Listening, Notice, Report, Reporter
from tunnel_rs.values import HostPort, Secret, SourceUrl

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SESSION = SessionSettings(hosts=("127.0.0.1",), connect_timeout=8.0)
SERVER_KEY = NostrSecretKey(Secret(bytes([1]) * 32))
CLIENT_KEY = NostrSecretKey(Secret(bytes([2]) * 32))


class Carrier:
    """Carries blocks from one side to the other; a test may look into them or change them."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.blocks = {kind: loop.create_future() for kind in BlockKind}

    def show(self, kind: BlockKind, body: bytes) -> None:
        self.blocks[kind].set_result(body)

    async def read(self, kind: BlockKind) -> bytes:
        body = await self.blocks[kind]
        assert isinstance(body, bytes)
        return body


class Reports(list[Report]):
    """A `Reporter` that keeps everything."""

    def __call__(self, report: Report) -> None:
        self.append(report)

    def of(self, kind: type[Report]) -> list[Any]:
        return [report for report in self if isinstance(report, kind)]

    def texts(self, level: str | None = None) -> str:
        notices = self.of(Notice)
        return "\n".join(n.text for n in notices if level is None or n.level == level)


def forward_server(report: Reporter, **changes: Any) -> ForwardServer:
    """Everything on loopback is allowed, no token is asked for."""
    fields: dict[str, Any] = {
        "allowed_tcp": LOOPBACK,
        "allowed_udp": LOOPBACK,
        "access": AccessList(),
    }
    return ForwardServer(ServerSettings(**{**fields, **changes}), report)


def service(server: ForwardServer) -> Service:
    return Service(server.check, partial(server.serve, authenticated=True))


def client_settings(*sources: str, **changes: Any) -> ClientSettings:
    tunnels = tuple(Tunnel(SourceUrl.parse(s), HostPort("127.0.0.1", 0)) for s in sources)
    fields: dict[str, Any] = {
        "auth_token": None,
        "tunnels": tunnels,
        "connect_timeout": 20.0,
        "reconnect": False,
    }
    return ClientSettings(**{**fields, **changes})


class Running:
    """A client whose listeners are open."""

    def __init__(self, client: ForwardClient, reports: Reports, task: "asyncio.Task[None]") -> None:
        self.client = client
        self.reports = reports
        self.task = task

    def port(self, number: int = 0) -> int:
        port = self.reports.of(Listening)[number].address.port
        assert isinstance(port, int)
        return port


@asynccontextmanager
async def run_client(settings: ClientSettings, connect: Any) -> AsyncIterator[Running]:
    reports = Reports()
    client = ForwardClient(settings, connect, reports)
    task = asyncio.create_task(client.run())
    wanted = len(settings.tunnels) + (settings.socks5 is not None)
    await until(lambda: len(reports.of(Listening)) >= wanted or task.done())
    try:
        yield Running(client, reports, task)
    finally:
        await client.close(timeout=1.0)
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def manual_tunnel(*sources: str, **changes: Any) -> AsyncIterator[tuple[Running, Reports]]:
    """A manual session with ourselves: the running client, the server's reports."""
    server_reports = Reports()
    carrier, resolve = Carrier(), SystemResolver()
    server = forward_server(server_reports)
    serving = asyncio.create_task(
        serve_manual(SESSION, service(server), carrier, server_reports, resolve)
    )
    settings = client_settings(*sources, **changes)
    request = ClientRequest(
        settings.tunnels[0].source if settings.tunnels else None,
        needs_requests=len(settings.tunnels) > 1 or settings.socks5 is not None,
    )
    introducer = ManualClient(SESSION, request, carrier, server_reports, resolve)
    try:
        async with run_client(settings, introducer.connect) as running:
            yield running, server_reports
    finally:
        await introducer.close()
        await server.close(timeout=1.0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def nostr_settings(key: NostrSecretKey, *relays: str, **changes: Any) -> NostrSettings:
    peer = CLIENT_KEY if key is SERVER_KEY else SERVER_KEY
    fields: dict[str, Any] = {"republish_interval": 0.5, "max_wait": 8.0}
    return NostrSettings(key=key, peer=peer.public_key, relays=relays, **{**fields, **changes})


@asynccontextmanager
async def nostr_server(*relays: str, **changes: Any) -> AsyncIterator[Reports]:
    """A server that listens on `relays`, once it does; its reports."""
    reports = Reports()
    forwarding = forward_server(reports)
    settings = nostr_settings(SERVER_KEY, *relays, **changes)
    server = NostrServer(SESSION, settings, service(forwarding), reports, SystemResolver())
    task = asyncio.create_task(server.run())
    await until(lambda: "connected" in reports.texts("info") or task.done())
    try:
        yield reports
    finally:
        await forwarding.close(timeout=1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def nostr_client(
    settings: ClientSettings, *relays: str, **changes: Any
) -> AsyncIterator[tuple[Running, NostrClient, Reports]]:
    """A client that asks on `relays`: it, what introduces it, and what that reports."""
    reports = Reports()
    request = ClientRequest(
        settings.tunnels[0].source if settings.tunnels else None,
        needs_requests=len(settings.tunnels) > 1 or settings.socks5 is not None,
    )
    wall = changes.pop("wall", wall_clock)
    nostr = nostr_settings(CLIENT_KEY, *relays, **changes)
    introducer = NostrClient(SESSION, nostr, request, reports, SystemResolver(), wall=wall)
    try:
        async with run_client(settings, introducer.connect) as running:
            yield running, introducer, reports
    finally:
        await introducer.close()
