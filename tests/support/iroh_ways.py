"""Our endpoint and a real iroh one on loopback, with a relay of ours beside: two ways between them,
directly and over the relay, each of which can be slow or dead."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import iroh
from tests.support import iroh_driver as driver
from tests.support.relay_network import relay_server, url_of
from tests.support.tape import Tape
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.proto.engine import Address, Train
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.path_choice import is_relayed
from tunnel_rs.proto.path_state import PathState
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.reports import silent
from tunnel_rs.values import EndpointId, Secret, SocketAddr

SEED = Secret(bytes([42]) * 32)
RELAY, DIRECT = "relay", "direct"


@dataclass
class Way:
    """What befalls datagrams there, in both directions. `delay`: seconds, each way."""

    dead: bool = False
    delay: float = 0.0


class Ways:
    """Stands between a `QuicEndpoint` and its sockets and relays. There are `RELAY` and `DIRECT`;
    an IP address may have a way of its own."""

    def __init__(self, quic: QuicEndpoint) -> None:
        self._loop = asyncio.get_running_loop()
        self._ways = {RELAY: Way(), DIRECT: Way()}
        self._quic, self._receive, self._send = quic, quic.receive_train, quic.send_trains
        quic.receive_train = self._arrived  # type: ignore[method-assign]
        quic.send_trains = self._leaving  # type: ignore[method-assign]

    def __getitem__(self, name: str) -> Way:
        return self._ways[name]

    def __setitem__(self, ip: str, way: Way) -> None:
        self._ways[ip] = way

    def _way(self, address: Any) -> Way:
        return self._ways.get(address[0]) or self._ways[name_of(address)]

    def _arrived(self, train: memoryview, segment_size: int, address: Address) -> None:
        way = self._way(address)
        if way.delay and not way.dead:
            self._loop.call_later(way.delay, self._deliver, bytes(train), segment_size, address)
        elif not way.dead:
            self._receive(train, segment_size, address)

    def _deliver(self, train: bytes, segment_size: int, address: Address) -> None:
        self._receive(memoryview(train), segment_size, address)
        self._quic.end_batch()

    def _leaving(self, trains: Sequence[Train]) -> None:
        for train, segment_size, address in trains:
            way = self._way(address)
            if way.delay and not way.dead:
                later = [(bytes(train), segment_size, address)]
                self._loop.call_later(way.delay, self._send, later)
            elif not way.dead:
                self._send([(train, segment_size, address)])


class Receiver(Tape):
    """Keeps the datagrams beside the stream too."""

    def __init__(self, stream: QuicStream) -> None:
        self.datagrams: list[bytes] = []
        super().__init__(stream)

    def datagrams_received(self, payloads: list[bytes]) -> None:
        self.datagrams += payloads
        self.changed.set()


def name_of(address: Address) -> str:
    return RELAY if is_relayed(address) else DIRECT


@dataclass
class Met:
    """Our connection and iroh's, joined, and one stream that iroh echoes."""

    ours: QuicConnection
    theirs: iroh.Connection
    ways: Ways
    stream: QuicStream
    tape: Receiver
    relay: RelayAddr
    """iroh, behind the relay."""
    probe: Callable[[Address], bool]
    """See `QuicEndpoint.probe`."""

    @property
    def engine(self) -> MultipathEngine:
        assert isinstance(self.ours.engine, MultipathEngine)
        return self.ours.engine

    def path(self, way: str) -> PathState | None:
        """Our valid path there."""
        paths = self.engine.paths(asyncio.get_running_loop().time())
        good = [path for path in paths if path.is_validated and name_of(path.address) == way]
        return good[0] if good else None

    @property
    def way(self) -> str:
        """Where we send data."""
        return name_of(self.engine.address)

    @property
    def their_way(self) -> str:
        """Where iroh sends data."""
        used = [path for path in self.theirs.paths() if path.is_selected]
        return RELAY if used and used[0].is_relay else DIRECT

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Let time pass until `condition` holds; iroh runs in threads of its own."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def has_both_ways(self) -> None:
        """Who dials opens the relay too: iroh at once, we a second later, or when asked."""
        if self.engine.is_client and self.path(RELAY) is None:
            assert self.probe(self.relay)
        await self.until(lambda: self.path(RELAY) and self.path(DIRECT))

    async def goes(self, way: str, seconds: float = 20.0) -> None:
        """Until both send data there."""
        await self.until(lambda: self.way == self.their_way == way, seconds)

    async def echo(self, size: int = 50_000, seconds: float = 20.0) -> float:
        """Send bytes and have them back; the seconds it took."""
        data, before = os.urandom(size), len(self.tape.data)
        began = asyncio.get_running_loop().time()
        self.stream.write(data)
        async with asyncio.timeout(seconds):
            await self.tape.read(before + size)
        assert self.tape.data[before:] == data
        return asyncio.get_running_loop().time() - began


@dataclass
class _Scene:
    relay: RelayUrl
    first: str
    slow: float
    ours: Endpoint
    theirs: iroh.Endpoint
    ways: Ways = field(init=False)

    def __post_init__(self) -> None:
        self.ways = Ways(self.ours._quic)
        self.ways[self.first].delay = self.slow

    async def dial(self) -> tuple[QuicConnection, iroh.Connection]:
        link, theirs = await asyncio.gather(
            self.ours.connect(id_of(self.theirs), timeout=10), accepted(self.theirs)
        )
        return link, theirs

    async def be_dialled(self) -> tuple[QuicConnection, iroh.Connection]:
        peer = iroh.EndpointId.from_string(str(self.ours.endpoint_id))
        known = [] if self.first == RELAY else [str(self.ours._bound()[0])]
        where = iroh.EndpointAddr(peer, self.relay.text, known)
        theirs, link = await asyncio.gather(
            self.theirs.connect(where, driver.ALPN), self.ours.accept()
        )
        link.open_window()
        return link, theirs


def port_of(endpoint: iroh.Endpoint) -> int:
    [port] = {text.rpartition(":")[2] for text in endpoint.bound_sockets() if "[" not in text}
    return int(port)


def id_of(endpoint: iroh.Endpoint) -> EndpointId:
    return EndpointId(bytes(endpoint.id().to_bytes()))


async def accepted(endpoint: iroh.Endpoint) -> iroh.Connection:
    incoming = await endpoint.accept_next()
    assert incoming is not None
    return await (await incoming.accept()).connect()


async def _echo(stream: driver.Stream) -> None:
    try:
        async for data in stream.chunks():
            await stream.write(data)
    except iroh.IrohError:
        pass  # the connection has ended, and the test with it


async def _first_stream(
    link: QuicConnection, theirs: iroh.Connection, dialling: bool
) -> tuple[QuicStream, driver.Stream]:
    if dialling:
        stream = await link.open_stream()
        stream.write(b"!")
        far = driver.Stream.of(await theirs.accept_bi())
        await far.recv.read_exact(1)
        return stream, far
    far = driver.Stream.of(await theirs.open_bi())
    await far.write(b"!")
    return await link.accept_stream(), far


@asynccontextmanager
async def met(*, dialling: bool, first: str, slow: float = 0.0) -> AsyncIterator[Met]:
    """`first`: the way on which the connection begins, `RELAY` or `DIRECT`; `slow`: its delay.
    Nobody is told of the other, but both may find it. iroh is at all loopback addresses."""
    async with relay_server() as server, _endpoints(url_of(server), dialling, first) as ends:
        scene = _Scene(url_of(server), first, slow, *ends)
        other = scene.ways[DIRECT if first == RELAY else RELAY]
        other.dead = True
        async with asyncio.timeout(15):
            link, theirs = await (scene.dial() if dialling else scene.be_dialled())
            stream, far = await _first_stream(link, theirs, dialling)
        echoing = asyncio.create_task(_echo(far))
        tape = Receiver(stream)
        if not dialling:
            await tape.read(1)
        other.dead = False
        relay = RelayAddr(scene.relay.text, id_of(scene.theirs))
        probe = scene.ours._quic.probe
        try:
            yield Met(link, theirs, scene.ways, stream, tape, relay, lambda to: probe(link, to))
        finally:
            link.close(0, "done")
            await asyncio.gather(echoing, return_exceptions=True)


@asynccontextmanager
async def _endpoints(
    relay: RelayUrl, dialling: bool, first: str
) -> AsyncIterator[tuple[Endpoint, iroh.Endpoint]]:
    theirs = await driver.bind(alpns=(driver.ALPN,), relay=relay.text, ip="0.0.0.0")
    try:
        await asyncio.wait_for(theirs.online(), 10)
        port = port_of(theirs)
        settings = EndpointSettings(
            secret_key=SEED,
            bind=SocketAddr("127.0.0.1", 0),
            lan_discovery=False,
            relays=(relay,),
            peer_addrs=(SocketAddr("127.0.0.1", port),) if dialling and first == DIRECT else (),
        )
        ours = await Endpoint.bind(settings, accept=not dialling, report=silent)
        try:
            if not dialling:
                await ours.online()
            yield ours, theirs
        finally:
            await ours.close()
    finally:
        await theirs.close()
