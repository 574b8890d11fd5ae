"""Tests of `tunnel_rs.net.splice`: real TCP sockets on one side, a memory link on the other."""

import asyncio
import gc
import hashlib
import os
import socket
import weakref
from collections.abc import AsyncIterator

import pytest
from tests.support.memory_link import MemoryLink, MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import abort, read_exactly, read_to_eof, send, tcp_pair, until

from tunnel_rs.net import splice as splice_module
from tunnel_rs.net.splice import Splice, SpliceEnd, TcpSide, join_tcp


class Bench:
    """app <-TCP-> splice <-stream-> far."""

    def __init__(self, app: socket.socket, link: MemoryLink, near: MemoryStream) -> None:
        self.app = app
        self.link = link
        self.near = near
        self.ends: list[SpliceEnd] = []
        self.splice: Splice
        self.far_stream: MemoryStream

    async def far(self, *, consume: bool = True) -> Recorder:
        self.far_stream = await self.link.other.accept_stream()
        return Recorder(self.far_stream, consume=consume)

    async def end(self) -> SpliceEnd:
        await until(lambda: bool(self.ends))
        (end,) = self.ends
        return end


async def make(sizes: Sizes | None = None) -> Bench:
    link, other = link_pair(sizes)
    other.open_window()
    app, inner = tcp_pair()
    stream = await link.open_stream()
    bench = Bench(app, link, stream)
    bench.splice = await join_tcp(inner, stream, stream.set_receiver, bench.ends.append)
    stream.write(b"!")  # shows the stream to the other end
    return bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = await make()
    yield made
    made.app.close()
    made.splice.abort("test over")
    await until(lambda: bool(made.ends))


async def test_bytes_pass_both_ways_and_are_counted(bench: Bench) -> None:
    far = await bench.far()
    await send(bench.app, b"question")
    await until(lambda: far.data == b"!question")
    far.stream.write(b"an answer")
    assert await read_exactly(bench.app, 9) == b"an answer"
    assert (bench.splice.sent, bench.splice.received) == (8, 9)


async def test_half_close_from_the_local_side_leaves_the_other_direction_open(
    bench: Bench,
) -> None:
    far = await bench.far()
    await send(bench.app, b"request")
    bench.app.shutdown(socket.SHUT_WR)
    await until(lambda: far.events == ["eof"])
    assert far.data == b"!request"
    answer = os.urandom(1_000_000)
    far.stream.write(answer)
    far.stream.write_eof()
    assert await read_to_eof(bench.app) == answer
    assert await bench.end() == SpliceEnd(7, 1_000_000, "")
    await until(lambda: far.lost == [None])


async def test_half_close_from_the_peer_leaves_the_other_direction_open(bench: Bench) -> None:
    far = await bench.far()
    far.stream.write_eof()
    assert await read_to_eof(bench.app) == b""
    data = os.urandom(1_000_000)
    await send(bench.app, data)
    bench.app.shutdown(socket.SHUT_WR)
    await until(lambda: far.events == ["eof"])
    assert far.data == b"!" + data
    assert (await bench.end()).reason == ""


async def test_a_local_reset_becomes_reset_and_stop(bench: Bench) -> None:
    far = await bench.far()
    await until(lambda: far.data == b"!")
    abort(bench.app)
    await until(lambda: bool(far.lost))
    assert sorted(far.events) == ["reset 1", "stop 1"]
    assert (await bench.end()).reason == "the local connection was reset"


async def test_a_stream_reset_becomes_a_tcp_reset_and_ends_our_direction(bench: Bench) -> None:
    far = await bench.far()
    far.stream.reset(7)
    with pytest.raises(ConnectionResetError):
        await read_to_eof(bench.app)
    await until(lambda: far.events == ["reset 7"])
    assert (await bench.end()).reason == "the peer reset the connection"


async def test_reset_and_stop_together_become_a_tcp_reset(bench: Bench) -> None:
    far = await bench.far()
    far.stream.stop(1)
    far.stream.reset(1)
    with pytest.raises(ConnectionResetError):
        await read_to_eof(bench.app)
    await bench.end()


async def test_a_stop_after_the_peer_s_eof_becomes_a_tcp_reset(bench: Bench) -> None:
    far = await bench.far()
    far.stream.write(b"last words")
    far.stream.write_eof()
    assert await read_to_eof(bench.app) == b"last words"
    far.stream.stop(1)
    await bench.end()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await send(bench.app, b"x")
    assert bench.ends[0].reason == "the peer stopped reading"


async def test_after_a_stop_what_the_peer_still_sends_is_delivered_in_full(bench: Bench) -> None:
    far = await bench.far()
    far.stream.stop(0)
    await until(lambda: bench.near.stopped)
    await send(bench.app, b"nobody reads this" * 100_000)
    data = os.urandom(300_000)
    far.stream.write(data)
    assert await read_exactly(bench.app, len(data)) == data
    assert not bench.ends
    far.stream.write_eof()
    await bench.end()
    assert bench.ends[0].received == len(data)


async def test_the_link_s_loss_is_a_reset_not_an_end(bench: Bench) -> None:
    await bench.far()
    bench.link.lose("no answer for 300 s")
    with pytest.raises(ConnectionResetError):
        await read_to_eof(bench.app)
    assert (await bench.end()).reason == "no answer for 300 s"


async def test_aborting_a_splice_resets_both_sides(bench: Bench) -> None:
    far = await bench.far()
    bench.splice.abort("shutting down")
    with pytest.raises(ConnectionResetError):
        await read_to_eof(bench.app)
    await until(lambda: sorted(far.events) == ["reset 1", "stop 1"])
    assert (await bench.end()).reason == "shutting down"


async def test_a_target_that_never_reads_holds_the_peer_at_its_window() -> None:
    bench = await make(Sizes(window=128 * 1024))
    far = await bench.far()
    total = 64 * 1024 * 1024
    for _ in range(total // 65536):
        far.stream.write(bytes(65536))
    left = -1
    while left != far.stream.unsent:
        left = far.stream.unsent
        for _ in range(100):
            await asyncio.sleep(0)
    assert left > total // 2
    assert bench.near.unconsumed <= 128 * 1024
    taken = bench.splice.received
    assert await read_exactly(bench.app, taken) == bytes(taken)  # reading lets more through
    await until(lambda: bench.splice.received > taken)
    abort(bench.app)
    await bench.end()
    await until(lambda: bench.near.unconsumed == 0)


async def test_a_peer_that_never_consumes_stops_us_reading() -> None:
    bench = await make(Sizes(window=64 * 1024, high_water=64 * 1024))
    far = await bench.far(consume=False)
    sender = asyncio.create_task(send(bench.app, bytes(64 * 1024 * 1024)))
    sent = -1
    while sent != bench.splice.sent:
        sent = bench.splice.sent
        for _ in range(100):
            await asyncio.sleep(0)
    bound = 64 * 1024 + 64 * 1024 + 2 * splice_module.RECEIVE_BUFFER_SIZE
    assert 0 < sent <= bound
    far.consume = True
    far.stream.consumed(far.stream.unconsumed)
    await sender
    await until(lambda: len(far.data) == 1 + 64 * 1024 * 1024)
    bench.app.close()
    far.stream.write_eof()
    assert (await bench.end()).reason == ""


async def test_data_that_comes_although_reading_was_paused_is_kept(bench: Bench) -> None:
    far = await bench.far()
    bench.splice.pause_writing()
    bench.splice.local_data(b"late")  # as some event loops do
    await until(lambda: far.data == b"!late")


async def test_random_data_with_pressure_both_ways_arrives_unchanged() -> None:
    bench = await make(Sizes(window=50_000, high_water=30_000))
    far = await bench.far()
    up, down = os.urandom(8_000_000), os.urandom(8_000_000)
    far.stream.write(down)
    far.stream.write_eof()
    sender = asyncio.create_task(send(bench.app, up))
    got = await read_to_eof(bench.app)
    await sender
    bench.app.shutdown(socket.SHUT_WR)
    await until(lambda: "eof" in far.events)
    assert hashlib.sha256(got).digest() == hashlib.sha256(down).digest()
    assert hashlib.sha256(far.data[1:]).digest() == hashlib.sha256(up).digest()
    assert await bench.end() == SpliceEnd(len(up), len(down), "")
    bench.app.close()


async def test_last_bytes_that_nobody_takes_are_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splice_module, "FLUSH_PATIENCE", 0.02)
    bench = await make(Sizes(window=64 * 1024 * 1024))
    far = await bench.far()
    far.stream.write(bytes(32 * 1024 * 1024))
    far.stream.write_eof()
    bench.app.shutdown(socket.SHUT_WR)
    end = await bench.end()
    assert end.sent == 0
    bench.app.close()


async def test_a_stream_that_was_reset_before_joining_still_ends_cleanly() -> None:
    link, other = link_pair()
    app, inner = tcp_pair()
    stream = await link.open_stream()
    stream.write(b"!")
    far = await other.accept_stream()
    far.reset(3)
    ends: list[SpliceEnd] = []
    await until(lambda: not link.streams or stream._incoming_done)
    await join_tcp(inner, stream, stream.set_receiver, ends.append)
    with pytest.raises(ConnectionResetError):
        await read_to_eof(app)
    await until(lambda: len(ends) == 1)
    app.close()


async def test_joining_a_socket_that_is_not_connected_ends_with_the_reason() -> None:
    link, _ = link_pair()
    stream = await link.open_stream()
    sock = socket.socket()
    sock.setblocking(False)
    ends: list[SpliceEnd] = []
    await join_tcp(sock, stream, stream.set_receiver, ends.append)
    await until(lambda: len(ends) == 1)
    assert "not connected" in ends[0].reason
    assert sock.fileno() == -1


async def test_a_socket_that_cannot_be_joined_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(factory: object, sock: socket.socket) -> None:
        raise OSError("no more memory")

    link, _ = link_pair()
    stream = await link.open_stream()
    app, inner = tcp_pair()
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)
    with app, pytest.raises(OSError, match="no more memory"):
        await join_tcp(inner, stream, stream.set_receiver, lambda _: None)
    assert inner.fileno() == -1


def test_all_connections_of_a_thread_share_one_receive_buffer() -> None:
    class NoStream:
        pass

    sides = [TcpSide(NoStream(), lambda _: None, lambda _: None) for _ in range(2)]  # type: ignore[arg-type]
    assert sides[0].get_buffer(-1) is sides[1].get_buffer(-1)
    assert len(sides[0].get_buffer(-1)) == 256 * 1024


async def test_an_ended_splice_leaves_nothing_to_the_garbage_collector() -> None:
    bench = await make()
    far = await bench.far()
    far.stream.write_eof()
    bench.app.shutdown(socket.SHUT_WR)
    await bench.end()
    let_go = weakref.ref(bench.splice), weakref.ref(bench.splice._local)
    gc.disable()
    try:
        bench.near.set_receiver(Recorder(bench.near))
        del bench.splice
        await until(lambda: [each() for each in let_go] == [None, None])
    finally:
        gc.enable()
        bench.app.close()
