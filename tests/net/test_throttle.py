"""Tests of `tunnel_rs.net.throttle`, on a clock that jumps."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.memory_link import MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.throttle import PIECE, ThrottledStream, Trickle, burst_of
from tunnel_rs.proto.token_bucket import TokenBucket

RATE = 4 * PIECE
"""Bytes a second: four pieces, of which one may pass at once."""


def now() -> float:
    return asyncio.get_running_loop().time()


def bucket(rate: float = RATE) -> TokenBucket:
    return TokenBucket(rate, burst_of(rate), now())


@dataclass
class Scene:
    """A throttled stream with its receiver, and the far end of the stream."""

    stream: MemoryStream
    throttled: ThrottledStream
    receiver: Recorder
    far: Recorder

    @property
    def peer(self) -> MemoryStream:
        stream = self.far.stream
        assert isinstance(stream, MemoryStream)
        return stream


async def scene(*, consume: bool = True) -> Scene:
    client, server = link_pair(Sizes(high_water=1 << 20))
    server.open_window()
    far = await client.open_stream()
    far.write(b"!")
    stream = await server.accept_stream()
    throttled = ThrottledStream(stream, stream.set_receiver, bucket(), bucket())
    receiver = Recorder(throttled, consume=consume)
    result = Scene(stream, throttled, receiver, Recorder(far))
    await asyncio.sleep(10)  # what the first byte cost is earned again
    receiver.data.clear()
    return result


async def seconds_until(condition: Callable[[], bool]) -> float:
    """On a clock that jumps nothing can tell us the moment; it costs no time to look."""
    began = now()
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return round(now() - began, 1)


@virtual_time
async def test_a_trickle_passes_a_burst_at_once_and_the_rest_at_its_rate() -> None:
    passed: list[tuple[float, int]] = []
    idle: list[float] = []
    began = now()
    trickle = Trickle(
        bucket(),
        lambda data: passed.append((round(now() - began, 2), len(data))),
        lambda: idle.append(round(now() - began, 2)),
    )
    trickle.push(bytes(3 * PIECE + 100))
    assert passed == [(0.0, PIECE), (0.0, PIECE)]
    assert trickle.is_waiting and trickle.pending == PIECE + 100
    await asyncio.sleep(2)
    assert passed[2:] == [(0.25, PIECE), (0.5, 100)]
    assert idle == [0.5]
    assert not trickle.is_waiting and trickle.pending == 0


@virtual_time
async def test_streams_that_share_a_bucket_share_its_rate() -> None:
    shared, got = bucket(), [0, 0]

    def taker(index: int) -> Trickle:
        def take(data: bytes) -> None:
            got[index] += len(data)

        return Trickle(shared, take, lambda: None)

    takers = [taker(0), taker(1)]
    for trickle in takers:
        trickle.push(bytes(100 * PIECE))
    await asyncio.sleep(10)
    assert abs(sum(got) - 10 * RATE) <= 3 * PIECE
    assert abs(got[0] - got[1]) <= 2 * PIECE
    for trickle in takers:
        trickle.clear()


@virtual_time
async def test_what_is_written_too_fast_pauses_the_writer_and_all_of_it_arrives() -> None:
    there = await scene()
    sent = bytes(range(256)) * (8 * PIECE // 256)
    there.throttled.write(sent)
    assert there.receiver.events == ["pause"]
    assert there.throttled.unsent > 0
    there.throttled.write_eof()
    assert 1.4 <= await seconds_until(lambda: there.far.events == ["eof"]) <= 1.8
    assert bytes(there.far.data) == sent
    await asyncio.sleep(1)
    assert there.receiver.events == ["pause", "resume"]


@virtual_time
async def test_what_comes_too_fast_is_held_in_order_and_keeps_the_window_closed() -> None:
    there = await scene()
    sent = bytes(range(256)) * (8 * PIECE // 256)
    there.peer.write(sent)
    there.peer.write_eof()
    await asyncio.sleep(0.001)
    assert len(there.receiver.data) == 2 * PIECE
    assert there.stream.unconsumed == 6 * PIECE
    assert 1.4 <= await seconds_until(lambda: there.receiver.events == ["eof"]) <= 1.8
    assert bytes(there.receiver.data) == sent
    assert there.stream.unconsumed == 0


@virtual_time
async def test_a_slow_stream_costs_nothing() -> None:
    there = await scene()
    for _ in range(20):
        there.throttled.write(bytes(PIECE // 2))
        there.peer.write(bytes(PIECE // 2))
        await asyncio.sleep(0.5)
    assert len(there.far.data) == len(there.receiver.data) == 10 * PIECE
    assert there.receiver.events == []


@virtual_time
async def test_a_reset_is_told_at_once_and_what_was_held_is_dropped() -> None:
    there = await scene()
    there.peer.write(bytes(8 * PIECE))
    await asyncio.sleep(0.001)
    there.peer.reset(7)
    await asyncio.sleep(0.001)
    assert there.receiver.events == ["reset 7"]
    assert there.stream.unconsumed == 0
    await asyncio.sleep(5)
    assert len(there.receiver.data) == 2 * PIECE


@virtual_time
async def test_resetting_drops_what_has_not_left() -> None:
    there = await scene()
    there.throttled.write(bytes(8 * PIECE))
    there.throttled.reset(3)
    await asyncio.sleep(5)
    assert there.far.events == ["reset 3"]
    assert len(there.far.data) <= 2 * PIECE


@virtual_time
async def test_stopping_counts_what_was_held_as_consumed() -> None:
    there = await scene()
    there.peer.write(bytes(8 * PIECE))
    await asyncio.sleep(0.001)
    there.throttled.stop(0)
    assert there.stream.unconsumed == 0
    await asyncio.sleep(5)
    assert there.far.events == ["stop 0"]
    assert len(there.receiver.data) == 2 * PIECE


@virtual_time
async def test_a_peer_that_reads_no_more_is_told_at_once() -> None:
    there = await scene()
    there.throttled.write(bytes(8 * PIECE))
    there.peer.stop(5)
    await asyncio.sleep(5)
    assert "stop 5" in there.receiver.events


@virtual_time
async def test_the_end_is_told_after_what_was_held() -> None:
    there = await scene()
    there.throttled.write_eof()
    there.peer.write(bytes(8 * PIECE))
    there.peer.write_eof()
    await asyncio.sleep(0.001)
    assert there.receiver.lost == []
    await asyncio.sleep(5)
    assert len(there.receiver.data) == 8 * PIECE
    assert there.receiver.events == ["eof"] and there.receiver.lost == [None]


@virtual_time
async def test_a_lost_link_is_told_at_once() -> None:
    there = await scene()
    there.throttled.write(bytes(8 * PIECE))
    there.peer.write(bytes(8 * PIECE))
    await asyncio.sleep(0.001)
    there.stream.link.lose()
    await asyncio.sleep(0.001)
    (lost,) = there.receiver.lost
    assert isinstance(lost, LinkClosedError)
    await asyncio.sleep(5)
    assert len(there.receiver.data) == 2 * PIECE


@virtual_time
async def test_the_stream_s_own_pressure_is_passed_on() -> None:
    there = await scene()
    there.throttled.pause_writing()
    assert there.receiver.events == ["pause"]
    there.throttled.write(bytes(4 * PIECE))
    there.throttled.resume_writing()
    assert there.receiver.events == ["pause"], "the limit holds it still"
    await asyncio.sleep(5)
    assert there.receiver.events == ["pause", "resume"]
    assert there.throttled.stream_id == there.stream.stream_id


@virtual_time
async def test_another_rate_holds_at_once() -> None:
    limit = bucket()
    got = bytearray()
    trickle = Trickle(limit, lambda data: got.extend(data), lambda: None)
    trickle.push(bytes(100 * PIECE))
    limit.set_rate(40 * PIECE, burst_of(40 * PIECE), now())
    assert await seconds_until(lambda: len(got) == 100 * PIECE) < 3
