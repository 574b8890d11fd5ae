"""Our QUIC transport against real iroh endpoints, both ways round, without the tunnel protocol."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support import iroh_driver as driver
from tests.support.endpoints import End, open_end
from tests.support.tape import Tape

import iroh
from tunnel_rs.errors import LinkClosedError, WrongPeerError
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.net.udp import SockAddr
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import EndpointId

pytestmark = pytest.mark.interop

TEN_MEGABYTES = 10_000_000
EITHER_ENGINE = pytest.mark.parametrize("fast", [True, False], ids=["fast path", "aioquic"])
EITHER_ROLE = pytest.mark.parametrize("dialling", [True, False], ids=["we dial", "iroh dials"])


@dataclass
class Met:
    """Our link and iroh's connection, joined."""

    ours: QuicConnection
    theirs: iroh.Connection
    our_end: End
    their_end: iroh.Endpoint

    async def stream_of_ours(self) -> tuple[QuicStream, Tape, driver.Stream]:
        """A stream that we have opened; it has carried one byte."""
        stream = await self.ours.open_stream()
        stream.write(b"!")
        far = driver.Stream.of(await self.theirs.accept_bi())
        assert bytes(await far.recv.read_exact(1)) == b"!"
        return stream, Tape(stream), far

    async def stream(self) -> tuple[QuicStream, Tape, driver.Stream]:
        """A stream opened by who dialled: a client lets its server open none."""
        if self.ours.engine.is_client:
            return await self.stream_of_ours()
        return await self.stream_of_theirs()

    async def stream_of_theirs(self) -> tuple[QuicStream, Tape, driver.Stream]:
        """A stream that iroh has opened; it has carried one byte."""
        far = driver.Stream.of(await self.theirs.open_bi())
        await far.write(b"!")
        stream = await self.ours.accept_stream()
        tape = Tape(stream)
        await tape.read(1)
        tape.calls.clear()
        return stream, tape, far


def where(endpoint: iroh.Endpoint) -> SockAddr:
    ip, _, port = driver.socket_address(endpoint).rpartition(":")
    return ip, int(port)


def id_of(endpoint: iroh.Endpoint) -> EndpointId:
    return EndpointId(bytes(endpoint.id().to_bytes()))


async def accepted(endpoint: iroh.Endpoint) -> iroh.Connection:
    incoming = await endpoint.accept_next()
    assert incoming is not None
    return await (await incoming.accept()).connect()


async def dial_iroh(end: End, endpoint: iroh.Endpoint, settings: TransportSettings) -> Any:
    link = end.quic.dial(id_of(endpoint), [where(endpoint)], settings)
    theirs, _ = await asyncio.gather(accepted(endpoint), link.handshaken)
    return link, theirs


async def dialled_by_iroh(end: End, endpoint: iroh.Endpoint) -> Any:
    peer = iroh.EndpointId.from_string(str(end.id))
    address = iroh.EndpointAddr(peer, None, [str(end.socket.address)])
    theirs, link = await asyncio.gather(endpoint.connect(address, driver.ALPN), end.quic.accept())
    link.open_window()
    return link, theirs


@asynccontextmanager
async def met(
    *, dialling: bool, fast: bool = True, settings: TransportSettings | None = None
) -> AsyncIterator[Met]:
    settings = settings or TransportSettings(fast_path=fast)
    end = open_end(1, accept=not dialling, settings=settings)
    endpoint = await driver.bind(alpns=(driver.ALPN,))
    try:
        async with asyncio.timeout(10):
            if dialling:
                link, theirs = await dial_iroh(end, endpoint, settings)
            else:
                link, theirs = await dialled_by_iroh(end, endpoint)
        yield Met(link, theirs, end, endpoint)
    finally:
        end.quic.close(0, "done")
        await endpoint.close()


@EITHER_ENGINE
@EITHER_ROLE
async def test_both_sides_prove_their_keys(dialling: bool, fast: bool) -> None:
    async with met(dialling=dialling, fast=fast) as pair:
        assert pair.ours.peer == id_of(pair.their_end)
        assert bytes(pair.theirs.remote_id().to_bytes()) == pair.our_end.id.key
        assert pair.theirs.alpn() == driver.ALPN


async def test_an_iroh_endpoint_with_another_key_is_refused() -> None:
    end = open_end(1)
    endpoint = await driver.bind(alpns=(driver.ALPN,))
    accepting = asyncio.create_task(accepted(endpoint))
    link = end.quic.dial(end.id, [where(endpoint)], TransportSettings())
    with pytest.raises(WrongPeerError, match=str(id_of(endpoint))):
        await link.handshaken
    with pytest.raises(iroh.IrohError):
        await accepting
    end.quic.close(0, "")
    await endpoint.close()


@pytest.mark.timeout(120)
@EITHER_ENGINE
@EITHER_ROLE
async def test_ten_megabytes_pass_both_ways_at_once(dialling: bool, fast: bool) -> None:
    # iroh's binding copies what it sends byte by byte, in Python: slow on a busy machine.
    up, down = os.urandom(TEN_MEGABYTES), os.urandom(TEN_MEGABYTES if fast else 2_000_000)
    async with met(dialling=dialling, fast=fast) as pair:
        stream, tape, far = await pair.stream()
        digest = hashlib.sha256()

        async def read() -> None:
            async for data in far.chunks():
                digest.update(data)

        async def write() -> None:
            await far.write(down)
            await far.send.finish()

        stream.write(up)
        stream.write_eof()
        await asyncio.gather(read(), write(), tape.heard("lost", 100.0))
        assert digest.digest() == hashlib.sha256(up).digest()
        assert hashlib.sha256(tape.data).digest() == hashlib.sha256(down).digest()
        assert tape.names[-2:] == ["eof", "lost"]
        assert tape.lost == [None]


@EITHER_ENGINE
@EITHER_ROLE
async def test_a_reader_that_stops_consuming_is_waited_for_and_nothing_is_lost(
    dialling: bool, fast: bool
) -> None:
    settings = TransportSettings(fast_path=fast, receive_window=200_000)
    payload = os.urandom(2_000_000)
    async with met(dialling=dialling, settings=settings) as pair:
        stream, tape, far = await pair.stream()
        tape.consume = False
        writing = asyncio.create_task(far.write(payload))
        await tape.read(100_000)
        held = len(tape.data)
        assert held <= 200_000
        stream.consumed(held)
        tape.consume = True
        await writing
        await far.send.finish()
        await tape.heard("eof")
        assert tape.data == payload


@EITHER_ENGINE
@EITHER_ROLE
async def test_each_direction_ends_by_itself(dialling: bool, fast: bool) -> None:
    async with met(dialling=dialling, fast=fast) as pair:
        stream, tape, far = await pair.stream()
        stream.write(b"question")
        stream.write_eof()
        assert await far.read_all() == b"question"
        await far.write(b"answer")
        await tape.read(6)
        assert tape.names == []
        await far.send.finish()
        await tape.heard("lost")
        assert (tape.data, tape.names) == (b"answer", ["eof", "lost"])
        stream, tape, far = await pair.stream()
        await far.send.finish()
        await tape.heard("eof")
        stream.write(b"after your end")
        stream.write_eof()
        assert await far.read_all() == b"after your end"


@EITHER_ENGINE
@EITHER_ROLE
async def test_resets_and_stops_carry_their_codes(dialling: bool, fast: bool) -> None:
    async with met(dialling=dialling, fast=fast) as pair:
        stream, tape, far = await pair.stream_of_ours()
        await far.send.reset(0x1234)
        await tape.heard("reset")
        await far.recv.stop(0x5678)
        await tape.heard("lost")
        assert sorted(tape.calls[:2]) == [("reset", 0x1234), ("stop", 0x5678)]
        assert tape.lost == [None]

        stream, tape, far = await pair.stream()
        stream.reset(77)
        assert await far.recv.received_reset() == 77
        stream.stop(78)
        assert await far.send.stopped() == 78
        assert tape.lost == [None]


@EITHER_ENGINE
@EITHER_ROLE
async def test_our_close_reaches_iroh_with_code_and_reason(dialling: bool, fast: bool) -> None:
    async with met(dialling=dialling, fast=fast) as pair:
        await pair.stream()
        pair.ours.close(42, "enough of this")
        reason = await pair.theirs.closed()
        assert "42" in reason
        assert "enough of this" in reason


@EITHER_ENGINE
@EITHER_ROLE
async def test_iroh_s_close_reaches_us_with_code_and_reason(dialling: bool, fast: bool) -> None:
    async with met(dialling=dialling, fast=fast) as pair:
        _, tape, _ = await pair.stream()
        pair.theirs.close(43, b"no more")
        error = await pair.ours.wait_closed()
        assert isinstance(error, LinkClosedError)
        assert (error.code, error.reason) == (43, "no more")
        assert error.by_peer
        assert error.by_application
        await tape.heard("lost")
        assert tape.lost == [error]


async def test_two_hundred_short_streams_do_not_mix() -> None:
    async with met(dialling=True) as pair:

        async def echo() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(200):
                    group.create_task(answer(driver.Stream.of(await pair.theirs.accept_bi())))

        async def answer(far: driver.Stream) -> None:
            await far.write(await far.read_all())
            await far.send.finish()

        async def ask(number: int) -> None:
            stream = await pair.ours.open_stream()
            tape = Tape(stream)
            payload = number.to_bytes(2, "big") * (10 * number + 1)
            stream.write(payload)
            stream.write_eof()
            await tape.heard("lost")
            assert tape.data == payload

        async with asyncio.timeout(30):
            await asyncio.gather(echo(), *(ask(number) for number in range(200)))
        assert pair.ours._streams == {}


@pytest.mark.slow
@EITHER_ENGINE
@EITHER_ROLE
async def test_an_idle_link_lives_on(dialling: bool, fast: bool) -> None:
    settings = TransportSettings(fast_path=fast, keep_alive=4, silence_timeout=3)
    async with met(dialling=dialling, settings=settings) as pair:
        stream, tape, far = await pair.stream()
        await asyncio.sleep(20)
        stream.write(b"still here")
        assert bytes(await far.recv.read_exact(10)) == b"still here"
        await far.write(b"so am I")
        assert await tape.read(7) == b"so am I"
        assert not pair.ours._end.done()
