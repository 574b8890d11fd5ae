"""Tests of `tunnel_rs.forward.udp_flow`."""

import asyncio
import gc
import weakref

import pytest
from tests.support.memory_link import MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import UdpTarget, until

from tunnel_rs.forward.udp_flow import MAX_EARLY, MAX_EARLY_BYTES, UdpFlow, join_udp
from tunnel_rs.net.datagrams import connect_udp
from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.proto.udp_frames import DatagramDecoder, encode_datagram


class Bench:
    """A flow whose local side is a list, and the other end of its stream."""

    def __init__(self, *, idle_timeout: float = 60) -> None:
        self.delivered: list[bytes] = []
        self.ends: list[SpliceEnd] = []
        self.flow = UdpFlow(self.delivered.append, self.ends.append, idle_timeout=idle_timeout)
        self.near: MemoryStream
        self.far: Recorder

    async def open(self, beside: int = 0) -> None:
        self.link, other = link_pair(Sizes(max_datagram=beside))
        self.near = await self.link.open_stream()
        self.near.write(b"")  # shows the stream to the other end
        self.flow.attach(self.near, self.near.set_receiver, beside=beside > 0)
        self.far = Recorder(await other.accept_stream())

    @property
    def frames(self) -> list[bytes]:
        return DatagramDecoder().feed(bytes(self.far.data))


async def opened(*, idle_timeout: float = 60, beside: int = 0) -> Bench:
    """`beside`: the longest datagram that goes beside the stream; with 0 all go on it."""
    bench = Bench(idle_timeout=idle_timeout)
    await bench.open(beside)
    return bench


async def test_datagrams_read_together_share_one_write() -> None:
    bench = await opened()
    bench.near.writes.clear()
    bench.flow.send([b"one", b"", b"three"])
    assert bench.near.writes == [3 * 2 + 8]
    await until(lambda: bench.frames == [b"one", b"", b"three"])
    bench.flow.close()


async def test_frames_are_delivered_as_datagrams_and_counted() -> None:
    bench = await opened()
    frames = encode_datagram(b"one") + encode_datagram(b"") + encode_datagram(b"three")
    for i in range(len(frames)):
        bench.far.stream.write(frames[i : i + 1])
    await until(lambda: bench.delivered == [b"one", b"", b"three"])
    assert bench.near.unconsumed == 0
    bench.flow.send([b"xx"])
    bench.flow.close()
    assert bench.ends == [SpliceEnd(2, 8, "")]


async def test_while_the_stream_is_paused_datagrams_are_dropped_not_queued() -> None:
    bench = await opened()
    bench.far.consume = False
    for _ in range(1000):
        bench.flow.send([bytes(1000)] * 10)
        await asyncio.sleep(0)
    assert bench.flow.dropped > 9000
    assert bench.near.unsent <= bench.link.sizes.high_water + 10_020
    bench.far.consume = True
    bench.far.stream.consumed(bench.far.stream.unconsumed)
    await until(lambda: not bench.flow._paused)
    sent = bench.flow.sent
    bench.flow.send([b"flows again"])
    assert bench.flow.sent == sent + 11
    bench.flow.close()


async def test_datagrams_go_beside_the_stream_where_that_is_agreed() -> None:
    bench = await opened(beside=1000)
    bench.near.writes.clear()
    bench.flow.send([b"one", b"", bytes(1000)])
    assert bench.near.datagrams == [b"one", b"", bytes(1000)]
    assert bench.near.writes == []
    await until(lambda: bench.far.datagrams == [b"one", b"", bytes(1000)])
    bench.far.stream.send_datagrams([b"answer", b""])
    await until(lambda: bench.delivered == [b"answer", b""])
    bench.flow.close()
    assert bench.ends == [SpliceEnd(1003, 6, "")]


async def test_what_is_too_long_to_go_beside_the_stream_goes_on_it() -> None:
    bench = await opened(beside=1000)
    bench.flow.send([b"one", bytes(1001), b"three", bytes(65_000)])
    await until(lambda: bench.frames == [bytes(1001), bytes(65_000)])
    assert bench.far.datagrams == [b"one", b"three"]
    bench.far.stream.write(encode_datagram(bytes(2000)))
    bench.far.stream.send_datagrams([b"short"])
    await until(lambda: sorted(bench.delivered) == [bytes(2000), b"short"])
    bench.flow.close()


async def test_a_paused_stream_holds_up_nothing_that_goes_beside_it() -> None:
    bench = await opened(beside=1000)
    bench.far.consume = False
    while not bench.flow._paused:
        bench.flow.send([bytes(60_000)])
        await asyncio.sleep(0)
    dropped = bench.flow.dropped
    bench.flow.send([bytes(60_000), b"passes"])
    assert bench.flow.dropped == dropped + 1
    assert bench.near.datagrams == [b"passes"]
    bench.flow.close()


async def test_what_the_path_cannot_take_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await opened(beside=1000)
    monkeypatch.setattr(bench.near, "send_datagrams", lambda payloads: 2)
    bench.flow.send([b"one", b"two", b"three"])
    assert bench.flow.dropped == 2
    bench.flow.close()


async def test_what_comes_beside_the_stream_after_the_end_is_dropped() -> None:
    bench = await opened(beside=1000)
    bench.flow.close()
    bench.flow.datagrams_received([b"late"])
    assert bench.delivered == []


async def test_what_waited_for_the_stream_goes_beside_it() -> None:
    bench = Bench()
    bench.flow.send([b"early"])
    await bench.open(beside=1000)
    await until(lambda: bench.far.datagrams == [b"early"])
    bench.flow.close()


async def test_before_the_stream_is_open_a_bounded_number_is_kept() -> None:
    bench = Bench()
    bench.flow.send([b"%d" % i for i in range(MAX_EARLY + 5)])
    assert bench.flow.dropped == 5
    await bench.open()
    await until(lambda: bench.frames == [b"%d" % i for i in range(MAX_EARLY)])
    bench.flow.close()


async def test_before_the_stream_is_open_bounded_bytes_are_kept() -> None:
    bench = Bench()
    bench.flow.send([bytes(60_000)] * 10)
    assert bench.flow.dropped == 10 - MAX_EARLY_BYTES // 60_000
    bench.flow.close()


async def test_an_idle_flow_ends_and_traffic_in_either_direction_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    bench = await opened(idle_timeout=60)
    for i in range(6):
        clock[0] += 50
        if i % 2:
            bench.flow.send([b"x"])
        else:
            bench.far.stream.write(encode_datagram(b"y"))
            await until(lambda wanted=i // 2 + 1: len(bench.delivered) == wanted)  # type: ignore[misc]
        for _ in range(5):
            await asyncio.sleep(0)
    clock[0] += 59
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.ends == []
    clock[0] += 2
    await until(lambda: bench.ends == [SpliceEnd(3, 3, "")])
    await until(lambda: sorted(bench.far.events) == ["eof", "stop 0"])


async def test_the_peer_s_eof_ends_the_flow_in_order() -> None:
    bench = await opened()
    bench.far.stream.write(encode_datagram(b"last"))
    bench.far.stream.write_eof()
    await until(lambda: bench.far.events == ["eof"])
    assert bench.delivered == [b"last"]
    assert bench.ends == [SpliceEnd(0, 4, "")]
    await until(lambda: bench.far.lost == [None])


async def test_half_a_frame_at_the_end_is_told() -> None:
    bench = await opened()
    bench.far.stream.write(b"\0\x09half")
    bench.far.stream.write_eof()
    await until(lambda: bool(bench.ends))
    assert bench.delivered == []
    assert bench.ends[0].reason == "the peer ended in the middle of a datagram"


async def test_a_reset_ends_the_flow_with_a_reset() -> None:
    bench = await opened()
    bench.far.stream.reset(3)
    await until(lambda: bench.far.events == ["reset 0"])
    assert bench.ends[0].reason == "the peer reset the flow"


async def test_a_stop_ends_the_flow() -> None:
    bench = await opened()
    bench.far.stream.stop(3)
    await until(lambda: bench.ends == [SpliceEnd(0, 0, "")])


async def test_the_link_s_loss_ends_the_flow_with_its_reason() -> None:
    bench = await opened()
    bench.link.lose("gone")
    await until(lambda: bench.ends == [SpliceEnd(0, 0, "gone")])
    bench.flow.send([b"too late"])
    assert bench.flow.dropped == 1


async def test_aborting_resets_the_stream_once() -> None:
    bench = await opened()
    bench.flow.abort("bye")
    bench.flow.abort("bye again")
    bench.flow.close()
    await until(lambda: sorted(bench.far.events) == ["reset 0", "stop 0"])
    assert bench.ends == [SpliceEnd(0, 0, "bye")]


async def test_a_stream_that_opens_after_the_end_is_reset() -> None:
    bench = Bench()
    bench.flow.close()
    await bench.open()
    await until(lambda: sorted(bench.far.events) == ["reset 0", "stop 0"])


@pytest.mark.parametrize("size", [0, 1, 1400, 9000, 60_000])
async def test_a_connected_socket_and_a_stream_are_joined(size: int) -> None:
    target = UdpTarget(lambda data: data + b"!" if len(data) < 9000 else data)
    ends: list[SpliceEnd] = []
    sock = connect_udp(["127.0.0.1"], target.port)
    flow = join_udp(sock, ends.append, idle_timeout=60)
    link, other = link_pair()
    stream = await link.open_stream()
    flow.attach(stream, stream.set_receiver)
    stream.write(b"")
    far = Recorder(await other.accept_stream())
    far.stream.write(encode_datagram(bytes(size)))
    await until(lambda: bool(far.data))
    answer = size + 1 if size < 9000 else size
    await until(lambda: len(far.data) == 2 + answer)
    flow.close()
    assert sock.fileno() == -1
    assert ends == [SpliceEnd(answer, size, "")]
    target.close()


async def test_an_ended_flow_leaves_nothing_to_the_garbage_collector() -> None:
    target = UdpTarget(bytes)
    flow = join_udp(connect_udp(["127.0.0.1"], target.port), [].append, idle_timeout=60)
    flow.close()
    let_go = weakref.ref(flow)
    gc.disable()
    try:
        del flow
        await until(lambda: let_go() is None)
    finally:
        gc.enable()
        target.close()
