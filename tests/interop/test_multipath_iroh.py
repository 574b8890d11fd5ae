"""Paths and NAT traversal with real iroh, both ways round: slow and dead first paths, key updates,
datagrams, silence. Everything is on loopback; our side has two sockets, which are two ways."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support import iroh_driver as driver
from tests.support.engine_driver import EngineDriver
from tests.support.engines import SERVER_IDENTITY

import iroh
from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.path_state import PathAbandoned, PathValidated
from tunnel_rs.values import EndpointId, SocketAddr

pytestmark = pytest.mark.interop

A, B = "A", "B"
EITHER_ENGINE = pytest.mark.parametrize(
    "make", [FastEngine, MultipathEngine], ids=["fast", "plain"]
)
EITHER_ROLE = pytest.mark.parametrize("dialling", [True, False], ids=["we dial", "iroh dials"])


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

    async def echo(self, size: int = 50_000, seconds: float = 15.0) -> None:
        """Send bytes and await them back."""
        before = len(self.got())
        data = os.urandom(size)
        self.write(data)
        await self.ours.until(lambda: len(self.got()) >= before + size, seconds)
        assert self.got()[before:] == data

    async def second_way(self) -> None:
        """Until there is a valid path on the second socket, whoever has opened it."""
        await self.ours.until(lambda: valid(self.ours, B))


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
    prepare: Callable[[EngineDriver], Awaitable[None]] | None = None,
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
    else:
        pair.ours.running.set_candidates([pair.ways[1]], pair.ours.now)
        pair.ours.pump()
    await pair.second_way()


@EITHER_ENGINE
async def test_data_moves_to_a_path_that_we_open(make: type[MultipathEngine]) -> None:
    async with met(dialling=True, make=make) as pair:
        await pair.echo()
        second = await pair.open_second()
        await pair.second_way()
        pair.ours.running.select_path(second)
        pair.ours.pump()
        assert pair.ours.data_way() == B
        before = pair.ours.sent[A]
        await pair.echo(300_000)
        assert pair.ours.sent[A] - before < 30_000
        assert len(pair.theirs.paths()) == 2
        pair.ours.running.abandon_path(0, pair.ours.now)
        pair.ours.pump()
        pair.ours.dead.add(A)
        await pair.echo(100_000)
        assert [path.id for path in pair.ours.paths()] == [second]


@EITHER_ENGINE
async def test_iroh_moves_to_the_faster_path_and_closes_the_other(
    make: type[MultipathEngine],
) -> None:
    async with met(dialling=False, make=make, nat=True, slow=0.020) as pair:
        await two_ways(pair, dialling=False)
        await pair.ours.until(lambda: bool(pair.ours.event(PathAbandoned)))
        await pair.echo(100_000)
        assert pair.ours.data_way() == B
        [abandoned] = pair.ours.event(PathAbandoned)
        assert abandoned.path_id == 0 and abandoned.by_peer


@EITHER_ROLE
async def test_the_slow_first_path_is_told_from_the_fast_one(dialling: bool) -> None:
    async with met(dialling=dialling, nat=not dialling, slow=0.040) as pair:
        await two_ways(pair, dialling)
        await pair.ours.until(lambda: len(pair.ours.event(PathValidated)) >= 1)
        path = pair.ours.path(B)
        assert path is not None and path.rtt is not None and path.rtt < 0.040
        if dialling:
            first = pair.ours.path(A)
            await pair.ours.until(lambda: rtt_of(pair.ours, A) is not None)
            first = pair.ours.path(A)
            assert first is not None and first.rtt is not None and first.rtt > 0.075
        await pair.echo()


def rtt_of(ours: EngineDriver, way: str) -> float | None:
    path = ours.path(way)
    return path.rtt if path is not None else None


@EITHER_ENGINE
async def test_a_dead_first_path_stops_nothing(make: type[MultipathEngine]) -> None:
    async with met(dialling=True, make=make) as pair:
        await pair.echo()
        await two_ways(pair, dialling=True)
        await pair.echo()
        pair.ours.dead.add(A)
        started = pair.ours.now
        await pair.echo(50_000, 8)
        assert pair.ours.now - started < 4
        assert pair.ours.data_way() == B


@EITHER_ENGINE
async def test_a_first_path_may_die_once_iroh_has_left_it(make: type[MultipathEngine]) -> None:
    """A dialling iroh keeps one direct path, so that there is no other to fall back to."""
    async with met(dialling=False, make=make, nat=True, slow=0.020) as pair:
        await two_ways(pair, dialling=False)
        await pair.ours.until(lambda: bool(pair.ours.event(PathAbandoned)))
        pair.ours.dead.add(A)
        await pair.echo(200_000, 8)


@EITHER_ROLE
async def test_keys_are_updated_with_two_paths(dialling: bool) -> None:
    """iroh does so once by itself, after at most 1000 packets."""
    async with met(dialling=dialling, nat=not dialling) as pair:
        await two_ways(pair, dialling)
        phases = set()
        for turn in range(4):
            if dialling and pair.ours.path(A) is not None:
                pair.ours.running.select_path(pair.ours.paths()[turn % 2].id)
            if turn % 2:
                pair.ours.running.request_key_update()
            await pair.echo(300_000, 30)
            phases.add(pair.ours.running._keys.key_phase)
        assert phases == {0, 1}


@EITHER_ROLE
async def test_datagrams_pass_on_the_second_path(dialling: bool) -> None:
    async with met(dialling=dialling, nat=not dialling) as pair:
        await pair.echo()
        await two_ways(pair, dialling)
        path = pair.ours.path(B)
        assert path is not None
        pair.ours.running.select_path(path.id)
        await pair.echo()
        if pair.ours.path(A) is not None:
            assert pair.ours.data_way() == B
        engine = pair.ours.running
        payloads = [bytes([number]) * 200 for number in range(20)]
        engine.send_datagrams(pair.stream, payloads)
        pair.ours.pump()
        async with asyncio.timeout(5):
            got = [bytes(await pair.theirs.read_datagram()) for _ in payloads]
        flow = bytes([pair.stream // 4])
        assert sorted(got) == sorted(flow + payload for payload in payloads)
        for payload in payloads:
            pair.theirs.send_datagram(flow + payload)
        arrived: list[bytes] = []

        def complete() -> bool:
            arrived.extend(engine.take_datagrams().get(pair.stream, []))
            return len(arrived) == len(payloads)

        await pair.ours.until(complete, 5)
        assert sorted(arrived) == payloads


@EITHER_ROLE
async def test_iroh_and_we_find_each_others_sockets(dialling: bool) -> None:
    """A round of NAT traversal: our candidates, its candidates, probes, and a path."""
    async with met(dialling=dialling, nat=True) as pair:
        engine = pair.ours.running
        assert engine.has_nat_traversal
        engine.set_candidates([pair.ways[1]], pair.ours.now)
        pair.ours.pump()
        await pair.second_way()
        await pair.echo(100_000)


@pytest.mark.slow
@EITHER_ROLE
async def test_two_paths_outlive_40_seconds_of_silence(dialling: bool) -> None:
    async with met(dialling=dialling, nat=not dialling, slow=0.002) as pair:
        await pair.echo()
        await two_ways(pair, dialling)
        await pair.echo()
        open_before = {path.id for path in pair.ours.paths()}
        await asyncio.sleep(40)
        assert {path.id for path in pair.ours.paths()} == open_before
        await pair.echo()


async def test_iroh_sees_our_status_and_our_paths() -> None:
    async with met(dialling=True) as pair:
        await pair.open_second()
        await pair.second_way()
        await pair.echo()
        remotes: list[Any] = [path.remote_addr for path in pair.theirs.paths()]
        assert len(remotes) == 2
