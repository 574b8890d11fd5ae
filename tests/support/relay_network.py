"""A relay server of ours on loopback, clients of ours, and a raw WebSocket for everything else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.relay_peers import identity
from tunnel_rs.net.relay import RelayClient, RelayDown, RelayState, RelayUp
from tunnel_rs.net.relay_websocket import RelayClientSettings, relay_session
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_frames import ServerChallenge, decode_handshake
from tunnel_rs.proto.relay_handshake import ClientHandshake, RelayIdentity
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.selfhost.relay_settings import RelayServerSettings
from tunnel_rs.values import SocketAddr

LOOPBACK = SocketAddr("127.0.0.1", 0)
SETTINGS = RelayServerSettings(http_bind_addr=LOOPBACK, metrics_bind_addr=LOOPBACK)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds; for state that has no event of its own."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@asynccontextmanager
async def relay_server(**changes: Any) -> AsyncIterator[RelayServer]:
    server = RelayServer(replace(SETTINGS, **changes))
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def url_of(server: RelayServer) -> RelayUrl:
    return RelayUrl.parse(f"http://{server.addresses.http}")


def is_down(state: RelayState) -> bool:
    return isinstance(state, RelayDown)


class Inbox:
    """A sink that keeps what arrives, and lets a test wait for it."""

    def __init__(self) -> None:
        self.trains: asyncio.Queue[tuple[bytes, int, RelayAddr]] = asyncio.Queue()
        self.batches = 0

    def receive_train(self, buffer: memoryview, segment_size: int, addr: RelayAddr) -> None:
        self.trains.put_nowait((bytes(buffer), segment_size, addr))

    def end_batch(self) -> None:
        self.batches += 1

    async def next(self) -> tuple[bytes, int, RelayAddr]:
        return await self.trains.get()


class States:
    """Collects state changes, and lets a test wait for one of a kind."""

    def __init__(self) -> None:
        self.seen: list[RelayState] = []
        self._changed = asyncio.Event()

    def __call__(self, state: RelayState) -> None:
        self.seen.append(state)
        self._changed.set()

    async def wait_for(self, matches: Callable[[RelayState], bool]) -> RelayState:
        """The first state not yet returned that `matches`; those before it are dropped."""
        while True:
            while self.seen:
                state = self.seen.pop(0)
                if matches(state):
                    return state
            self._changed.clear()
            await self._changed.wait()

    async def up(self) -> None:
        await self.wait_for(lambda state: isinstance(state, RelayUp))


@asynccontextmanager
async def relay_client(
    relay: RelayUrl,
    who: int | RelayIdentity,
    settings: RelayClientSettings | None = None,
    states: States | None = None,
) -> AsyncIterator[tuple[RelayClient, Inbox]]:
    """A started client; not necessarily connected yet."""
    settings, inbox = settings or RelayClientSettings(), Inbox()
    me = identity(who) if isinstance(who, int) else who
    async with relay_session(settings) as session:
        client = RelayClient(
            relay, me, session, inbox, settings=settings, on_state=states or States()
        )
        client.start()
        try:
            yield client, inbox
        finally:
            await client.close()


@asynccontextmanager
async def raw_socket(
    server: RelayServer,
    *,
    versions: Sequence[str] = ("iroh-relay-v2",),
    query: str = "",
    **options: Any,
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An upgraded WebSocket that has said nothing yet."""
    url = url_of(server).endpoint + query
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, protocols=versions, **options) as websocket:
            yield websocket


async def log_in(websocket: aiohttp.ClientWebSocketResponse, who: int) -> bytes:
    """Answer the challenge; returns what the server says to it."""
    handshake = ClientHandshake(identity(who))
    challenge = await websocket.receive_bytes()
    assert isinstance(decode_handshake(challenge), ServerChallenge)
    answer = handshake.receive(challenge)
    assert answer is not None
    await websocket.send_bytes(answer)
    return await websocket.receive_bytes()


@asynccontextmanager
async def http_server(
    serve: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[RelayUrl]:
    """Any HTTP server on loopback; its URL as that of a relay."""
    runner = web.ServerRunner(web.Server(serve, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield RelayUrl.parse(f"http://127.0.0.1:{site.port}/ignored")
    finally:
        await runner.cleanup()
