"""Our engine with two sockets on loopback, which are two ways, joined with a real iroh endpoint."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import iroh
from tests.support import iroh_driver as driver
from tests.support.engine_driver import EngineDriver
from tests.support.engines import SERVER_IDENTITY
from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.values import EndpointId, SocketAddr

A, B = "A", "B"


@dataclass
class Met:
    """Our engine, joined with iroh's connection on way A."""

    ours: EngineDriver
    theirs: iroh.Connection
    far: SocketAddr
    """Where iroh is."""
    ways: list[SocketAddr]
    stream: int = 0

    async def open_second(self) -> int:
        """Open a path on our second socket, as soon as iroh has given us an id for it."""
        address = (self.far.ip, self.far.port, B)
        opened: list[int | None] = []

        def may_open() -> bool:
            opened.append(self.ours.running.open_path(address, self.ours.now))
            return opened[-1] is not None

        await self.ours.until(may_open)
        self.ours.pump()
        assert opened[-1] is not None
        return opened[-1]

    def write(self, data: bytes, fin: bool = False) -> None:
        self.ours.running.write(self.stream, data, fin)
        self.ours.pump()

    def got(self) -> bytes:
        return bytes(self.ours.received.get(self.stream, b""))

    async def echo(self, size: int = 50_000, seconds: float = 40.0) -> None:
        """Send bytes and await them back."""
        before = len(self.got())
        data = os.urandom(size)
        self.write(data)
        await self.ours.until(lambda: len(self.got()) >= before + size, seconds)
        assert self.got()[before:] == data

    async def second_way(self, seconds: float = 30) -> None:
        """Until there is a valid path on the second socket, whoever has opened it."""
        await self.ours.until(lambda: valid(self.ours, B), seconds)

    async def tell_of_second_way(self) -> None:
        """Until iroh, the client, has opened a path to our second socket.

        It begins a second round when it hears of our candidate, and in one run of fifty has sent
        its only probe in the first, whose answer is void by then. As it has a direct path, it looks
        again a minute later; here it is told again. On a busy machine that has failed, too, and its
        own look is waited for.
        """
        for patience in (3, 3, 3, 75):
            self.ours.running.set_candidates([self.ways[1]], self.ours.now)
            self.ours.pump()
            try:
                await self.second_way(patience)
                return
            except TimeoutError:
                if patience > 3:
                    raise
                self.ours.running.set_candidates([], self.ours.now)
                self.ours.pump()


def valid(ours: EngineDriver, way: str) -> bool:
    path = ours.path(way)
    return path is not None and path.is_validated


async def _echo(connection: iroh.Connection, dialling: bool) -> None:
    """iroh's side: everything that comes in a stream goes back in it."""
    stream = driver.Stream.of(await (connection.accept_bi() if dialling else connection.open_bi()))
    if not dialling:
        await stream.write(b"!")
    async for data in stream.chunks():
        await stream.write(data)


@asynccontextmanager
async def met(
    *,
    dialling: bool,
    make: type[MultipathEngine] = FastEngine,
    nat: bool = False,
    slow: float = 0.0,
) -> AsyncIterator[Met]:
    """`slow`: seconds that way A takes each way."""
    ours = EngineDriver(make=make, nat=nat)
    ways = await ours.bind(A, B)
    ours.delays[A] = slow
    endpoint = await driver.bind(alpns=(driver.ALPN,))
    ip, _, port = driver.socket_address(endpoint).rpartition(":")
    far = SocketAddr(ip, int(port))
    echoing: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(15):
            if dialling:
                ours.dial(EndpointId(bytes(endpoint.id().to_bytes())), (far.ip, far.port, A))
                theirs = await _accepted(endpoint)
            else:
                theirs = await _dialled(endpoint, ways[0])
            echoing = asyncio.create_task(_echo(theirs, dialling))
            await ours.until(lambda: ours.running._handshake_confirmed)
            ours.running.open_window()
            pair = Met(ours, theirs, far, ways)
            if dialling:
                stream = ours.running.open_stream()
                assert stream is not None
                pair.stream = stream
            else:
                await ours.until(lambda: bool(ours.received))
                pair.stream = next(iter(ours.received))
        yield pair
    finally:
        ours.close()
        if echoing is not None:
            echoing.cancel()
            await asyncio.gather(echoing, return_exceptions=True)
        await endpoint.close()


async def _accepted(endpoint: iroh.Endpoint) -> iroh.Connection:
    incoming = await endpoint.accept_next()
    assert incoming is not None
    return await (await incoming.accept()).connect()


async def _dialled(endpoint: iroh.Endpoint, at: SocketAddr) -> iroh.Connection:
    peer = iroh.EndpointId.from_string(str(SERVER_IDENTITY.endpoint_id))
    return await endpoint.connect(iroh.EndpointAddr(peer, None, [str(at)]), driver.ALPN)


async def two_ways(pair: Met, dialling: bool) -> None:
    """A second path, opened by who may: us, or iroh after we have told it of our other socket."""
    if dialling:
        await pair.open_second()
        await pair.second_way()
    else:
        await pair.tell_of_second_way()
