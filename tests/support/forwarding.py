"""A forwarding server on memory links, and a client that is played by the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

from tests.support.memory_link import MemoryLink, MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import until
from tunnel_rs.forward.client import ForwardClient
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.forward.server import ForwardServer
from tunnel_rs.forward.settings import ClientSettings, ServerSettings, Tunnel
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.proto.backoff import Backoff
from tunnel_rs.proto.messages import (
    AuthRequest,
    AuthResponse,
    SourceRequest,
    SourceResponse,
    decode_auth_response,
    decode_source_response,
)
from tunnel_rs.reports import Listening, Report, TunnelUp
from tunnel_rs.values import HostPort, Secret, SourceUrl

TOKEN = Secret("iAAAAAAAAAAAAAAAAA")
OTHER_TOKEN = Secret("iabcdefghijklmnopg")
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def server_settings(**changes: Any) -> ServerSettings:
    """Everything on loopback is allowed, with `TOKEN`."""
    fields: dict[str, Any] = {
        "allowed_tcp": LOOPBACK,
        "allowed_udp": LOOPBACK,
        "access": of_tokens(TOKEN),
    }
    return ServerSettings(**{**fields, **changes})


class Resolver:
    """A scripted resolver: each look-up of a name takes its next answer."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host in self.answers:
            return self.answers[host].pop(0)
        return [host]


class Peer:
    """The client's end of one link to the server."""

    def __init__(self, link: MemoryLink, serving: "asyncio.Task[None]") -> None:
        self.link = link
        self.serving = serving

    async def ask_to_come_in(self, token: Secret[str] = TOKEN) -> AuthResponse:
        dialogue = Dialogue(await self.link.open_stream())
        dialogue.send(AuthRequest(token))
        dialogue.stream.write_eof()
        return decode_auth_response(await dialogue.receive())

    async def ask(self, source: str, *, datagrams: bool = False) -> tuple[SourceResponse, Dialogue]:
        dialogue = Dialogue(await self.link.open_stream())
        dialogue.send(SourceRequest(source, datagrams))
        return decode_source_response(await dialogue.receive()), dialogue

    async def open(self, source: str, *, datagrams: bool = False) -> Recorder:
        """An accepted source stream; with `datagrams` they are agreed on."""
        response, dialogue = await self.ask(source, datagrams=datagrams)
        assert response == SourceResponse(True, datagrams=datagrams)
        stream = dialogue.stream
        assert isinstance(stream, MemoryStream)
        recorder = Recorder(stream, attach=False)
        dialogue.hand_over(recorder)
        return recorder


class ServerBench:
    """One server; `connect` brings in clients."""

    def __init__(self, settings: ServerSettings, **options: Any) -> None:
        self.reports: list[Report] = []
        self.server = ForwardServer(settings, self.reports.append, **options)
        self._tasks: list[asyncio.Task[None]] = []

    def connect(self, *, address: str = "192.0.2.9:4242", sizes: Sizes | None = None) -> Peer:
        client, server = link_pair(sizes, address=address)
        serving = asyncio.create_task(self.server.serve(server))
        self._tasks.append(serving)
        return Peer(client, serving)

    async def client(self) -> Peer:
        """An authenticated client."""
        peer = self.connect()
        assert await peer.ask_to_come_in() == AuthResponse(True)
        return peer

    def reported(self, kind: type[Report]) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    async def shut_down(self) -> None:
        await self.server.close(timeout=0)
        await asyncio.gather(*self._tasks)
        await until(lambda: len(self.server.sessions) == 0)


@asynccontextmanager
async def server_bench(
    *,
    penalties: FailurePenalties | None = None,
    resolve: Resolve | None = None,
    wall: Callable[[], float] = lambda: 0.0,
    **changes: Any,
) -> AsyncIterator[ServerBench]:
    settings = server_settings(**changes)
    bench = ServerBench(settings, penalties=penalties, resolve=resolve, wall=wall)
    try:
        yield bench
    finally:
        await bench.shut_down()


class ClientBench:
    """A `ForwardClient` with real local listeners, whose server is `server`."""

    def __init__(
        self,
        server: ServerBench,
        *,
        stdio: tuple[int, int] = (-1, -1),
        stdio_source: SourceUrl | None = None,
        sizes: Sizes | None = None,
        **changes: Any,
    ) -> None:
        self.server = server
        self.sizes = sizes
        self.reports: list[Report] = []
        self.links: list[MemoryLink] = []
        self.reachable = asyncio.Event()
        self.reachable.set()
        settings = ClientSettings(**{"auth_token": TOKEN, "stdio": stdio_source, **changes})
        self.client = ForwardClient(
            settings, self._connect, self.reports.append, random=lambda: 0.0, stdio=stdio
        )
        self.client._uplink._retries._eager = Backoff(first=0.01, random=lambda: 0.0)
        self.running = asyncio.create_task(self.client.run())

    async def _connect(self) -> MemoryLink:
        await self.reachable.wait()
        self.links.append(self.server.connect(sizes=self.sizes).link)
        return self.links[-1]

    async def address(self, index: int = 0) -> tuple[str, int]:
        """Where the listener with this number is, once it is open."""
        await until(lambda: len(self.reported(Listening)) > index or self.running.done())
        if self.running.done():
            self.running.result()
        address = self.reported(Listening)[index].address
        return address.ip, address.port

    async def up(self) -> None:
        await until(lambda: bool(self.links) and bool(self.reported(TunnelUp)))

    def reported(self, kind: type[Report]) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    async def shut_down(self) -> None:
        await self.client.close(timeout=0)
        await asyncio.gather(self.running, return_exceptions=True)


@asynccontextmanager
async def client_bench(
    *, server: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[ClientBench]:
    """A client and its server. `server` changes the server's settings, the rest the client's."""
    async with server_bench(**(server or {})) as serving:
        bench = ClientBench(serving, **changes)
        try:
            yield bench
        finally:
            await bench.shut_down()


def tunnel(source: str, target: str = "127.0.0.1:0") -> Tunnel:
    return Tunnel(SourceUrl.parse(source), HostPort.parse(target, allow_port_zero=True))
