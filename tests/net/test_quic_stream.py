"""Tests of `tunnel_rs.net.quic_stream` against the contract of `net.link`, without a network."""

import gc
import weakref
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from tests.support.tape import Tape

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.quic_stream import MIN_UNSENT, QuicStream
from tunnel_rs.proto.engine import Engine

LOST = LinkClosedError(7, "gone")


@dataclass
class FakeEngine:
    """Notes what a stream asks of it; `sent` acknowledges."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    consumed_bytes: int = 0
    worth_telling: int = 0
    waiting: int = 0
    others: int = 0
    send_window: int = 4 << 20
    send_target: int = 0

    @property
    def total_unsent(self) -> int:
        return self.waiting + self.others

    def unsent(self, stream_id: int) -> int:
        return self.waiting

    def write(self, stream_id: int, data: bytes, fin: bool) -> None:
        self.waiting += len(data)
        self.calls.append(("write", bytes(data), fin))

    def reset(self, stream_id: int, code: int) -> None:
        self.waiting = 0
        self.calls.append(("reset", code))

    def stop(self, stream_id: int, code: int) -> None:
        self.calls.append(("stop", code))

    def consumed(self, stream_id: int, n: int) -> bool:
        self.consumed_bytes += n
        return self.consumed_bytes >= self.worth_telling


class Owner:
    def __init__(self) -> None:
        self.fake = FakeEngine()
        self.flushes = 0
        self.paused: list[QuicStream] = []
        self.done: list[QuicStream] = []

    @property
    def engine(self) -> Engine:
        return cast(Engine, self.fake)

    def schedule_flush(self) -> None:
        self.flushes += 1

    def data_written(self, n: int) -> None:
        self.flushes += 1

    def pause(self, stream: QuicStream) -> None:
        self.paused.append(stream)

    def stream_done(self, stream: QuicStream) -> None:
        self.done.append(stream)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def stream(owner: Owner) -> QuicStream:
    return QuicStream(owner, 4)


# Receiving


async def test_what_came_before_the_first_receiver_is_delivered_to_it_in_order(
    stream: QuicStream,
) -> None:
    stream.deliver(b"one")
    stream.deliver(b"two")
    stream.deliver_stop(5)
    stream.deliver_eof()
    tape = Tape(stream)
    assert tape.calls == [
        ("data", b"one"),
        ("data", b"two"),
        ("stop", 5),
        ("eof", None),
        ("lost", None),
    ]


async def test_a_reset_before_the_first_receiver_keeps_its_place(stream: QuicStream) -> None:
    stream.deliver(b"one")
    stream.deliver_reset(9)
    stream.deliver_stop(3)
    assert Tape(stream).calls == [("data", b"one"), ("reset", 9), ("stop", 3), ("lost", None)]


async def test_the_end_of_the_link_comes_after_what_nobody_had_received_yet(
    stream: QuicStream,
) -> None:
    stream.deliver(b"one")
    stream.lose(LOST)
    assert Tape(stream).calls == [("data", b"one"), ("lost", LOST)]


async def test_a_stream_handed_on_inside_data_received_gives_the_rest_to_the_new_receiver(
    stream: QuicStream,
) -> None:
    for data in (b"head", b"payload", b"more"):
        stream.deliver(data)
    stream.deliver_eof()
    first, second = Tape(stream, attach=False), Tape(stream, attach=False)
    first.on["data"] = lambda: stream.set_receiver(second)
    stream.set_receiver(first)
    assert first.calls == [("data", b"head")]
    assert second.calls == [("data", b"payload"), ("data", b"more"), ("eof", None)]
    stream.write_eof()
    assert second.calls[-1] == ("lost", None)
    assert first.calls == [("data", b"head")]


async def test_a_stream_handed_on_later_gives_new_events_to_the_new_receiver_only(
    stream: QuicStream,
) -> None:
    first = Tape(stream)
    stream.deliver(b"one")
    stream.deliver_eof()
    second = Tape(stream)
    assert second.calls == []
    stream.deliver_stop(1)
    assert first.calls == [("data", b"one"), ("eof", None)]
    assert second.calls == [("stop", 1), ("lost", None)]


async def test_a_stream_handed_back_and_forth_loses_and_doubles_nothing(
    stream: QuicStream,
) -> None:
    for number in range(6):
        stream.deliver(bytes([number]))
    first, second = Tape(stream, attach=False), Tape(stream, attach=False)
    first.on["data"] = lambda: stream.set_receiver(second)
    second.on["data"] = lambda: stream.set_receiver(first)
    stream.set_receiver(first)
    assert (first.data, second.data) == (b"\x00\x02\x04", b"\x01\x03\x05")


async def test_what_a_receiver_does_inside_a_call_keeps_the_order_of_the_rest(
    stream: QuicStream,
) -> None:
    stream.deliver(b"one")
    stream.deliver_eof()
    tape = Tape(stream, attach=False)
    tape.on["data"] = stream.write_eof  # ends the stream, with EOF not delivered yet
    stream.set_receiver(tape)
    assert tape.calls == [("data", b"one"), ("eof", None), ("lost", None)]


async def test_consuming_opens_the_window_now_later_and_after_an_end_in_order(
    owner: Owner, stream: QuicStream
) -> None:
    tape = Tape(stream, consume=False)
    stream.deliver(b"12345")
    stream.consumed(2)
    assert owner.fake.consumed_bytes == 2
    assert owner.flushes
    stream.deliver_eof()
    stream.write_eof()
    assert tape.lost == [None]
    stream.consumed(3)
    assert owner.fake.consumed_bytes == 5


async def test_consuming_after_the_link_has_ended_does_nothing(
    owner: Owner, stream: QuicStream
) -> None:
    Tape(stream, consume=False)
    stream.deliver(b"12345")
    stream.lose(LOST)
    flushes = owner.flushes
    stream.consumed(5)
    assert (owner.fake.consumed_bytes, owner.flushes) == (0, flushes)


async def test_a_window_that_is_not_worth_telling_is_no_reason_to_send(
    owner: Owner, stream: QuicStream
) -> None:
    Tape(stream, consume=False)
    owner.fake.worth_telling = 5
    stream.consumed(4)
    assert not owner.flushes
    stream.consumed(1)
    assert owner.flushes


async def test_stop_tells_the_peer_and_counts_what_still_comes_as_consumed(
    owner: Owner, stream: QuicStream
) -> None:
    tape = Tape(stream)
    stream.stop(6)
    stream.stop(7)
    assert owner.fake.calls == [("stop", 6)]
    stream.deliver(b"late")
    stream.deliver_eof()
    assert owner.fake.consumed_bytes == 4
    assert tape.calls == []


async def test_stop_consumes_what_no_receiver_has_seen(owner: Owner, stream: QuicStream) -> None:
    stream.deliver(b"12345")
    stream.deliver_reset(1)
    stream.stop(6)
    assert owner.fake.consumed_bytes == 5
    assert owner.fake.calls == []  # the peer's direction has ended: nobody to tell
    tape = Tape(stream)
    assert tape.calls == []
    stream.reset(2)
    assert tape.calls == [("lost", None)]


async def test_stop_inside_data_received_drops_the_rest(owner: Owner, stream: QuicStream) -> None:
    for _ in range(3):
        stream.deliver(b"12345")
    stream.deliver_eof()
    tape = Tape(stream, attach=False)
    tape.on["data"] = lambda: stream.stop(0)
    stream.set_receiver(tape)
    assert tape.calls == [("data", b"12345")]
    assert owner.fake.consumed_bytes == 15


# Sending


async def test_writes_go_out_once_a_turn_and_eof_behind_them(
    owner: Owner, stream: QuicStream
) -> None:
    stream.write(b"one")
    stream.write(b"")
    stream.write(memoryview(b"two"))
    stream.write_eof()
    stream.write_eof()
    assert owner.fake.calls == [
        ("write", b"one", False),
        ("write", b"two", False),
        ("write", b"", True),
    ]


@pytest.mark.parametrize("end", ["eof", "reset"])
async def test_writing_after_our_own_end_is_a_mistake(stream: QuicStream, end: str) -> None:
    if end == "eof":
        stream.write_eof()
    else:
        stream.reset(1)
    with pytest.raises(RuntimeError, match="the sending direction has ended"):
        stream.write(b"x")


async def test_writing_after_stop_and_after_the_end_is_dropped(
    owner: Owner, stream: QuicStream
) -> None:
    tape = Tape(stream)
    stream.deliver_stop(4)
    stream.write(b"x")
    stream.deliver_eof()
    stream.write(b"y")
    assert owner.fake.calls == []
    assert tape.calls == [("stop", 4), ("eof", None), ("lost", None)]
    other = QuicStream(owner, 8)
    other.lose(LOST)
    other.write(b"x")
    other.write_eof()
    other.reset(1)
    other.stop(1)
    assert owner.fake.calls == []


async def test_reset_discards_and_later_ends_change_nothing(
    owner: Owner, stream: QuicStream
) -> None:
    tape = Tape(stream)
    stream.write(b"one")
    stream.reset(3)
    stream.reset(4)
    stream.write_eof()
    stream.deliver_stop(5)  # has crossed our reset
    assert owner.fake.calls == [("write", b"one", False), ("reset", 3)]
    assert tape.calls == []


async def test_reset_after_eof_is_still_possible(owner: Owner, stream: QuicStream) -> None:
    stream.write(b"one")
    stream.write_eof()
    stream.reset(3)
    assert owner.fake.calls[-1] == ("reset", 3)


# Pressure


async def test_a_stream_pauses_above_the_high_water_mark_and_resumes_at_half_of_it(
    owner: Owner, stream: QuicStream
) -> None:
    tape = Tape(stream)
    stream.write(bytes(1 << 20))
    assert tape.calls == []
    stream.write(b"x")
    stream.write(b"y")
    assert tape.calls == [("pause", None)]
    assert owner.paused == [stream]
    owner.fake.waiting = (1 << 19) + 1
    assert not stream.resume_if_sent()
    owner.fake.waiting = 1 << 19
    assert stream.resume_if_sent()
    assert tape.names == ["pause", "resume"]


async def test_a_fast_path_raises_the_mark(owner: Owner, stream: QuicStream) -> None:
    owner.fake.send_target = 3 << 20
    tape = Tape(stream)
    stream.write(bytes(3 << 20))
    assert tape.calls == []


async def test_siblings_that_fill_the_send_window_pause_a_stream_but_not_a_small_one(
    owner: Owner, stream: QuicStream
) -> None:
    owner.fake.others = owner.fake.send_window
    tape = Tape(stream)
    stream.write(bytes(MIN_UNSENT))
    assert tape.calls == []
    stream.write(b"x")
    assert tape.calls == [("pause", None)]
    owner.fake.waiting = MIN_UNSENT // 2
    assert stream.resume_if_sent()


async def test_a_receiver_that_takes_over_a_paused_stream_is_told(stream: QuicStream) -> None:
    stream.write(bytes(2 << 20))
    first = Tape(stream)
    assert first.calls == [("pause", None)]
    second = Tape(stream)
    assert second.calls == [("pause", None)]


async def test_nothing_is_called_after_connection_lost(owner: Owner, stream: QuicStream) -> None:
    tape = Tape(stream)
    stream.write(bytes(2 << 20))
    stream.lose(LOST)
    stream.lose(None)
    stream.deliver_stop(1)
    assert stream.resume_if_sent()
    late = Tape(stream)
    assert tape.calls == [("pause", None), ("lost", LOST)]
    assert late.calls == []
    assert owner.done == [stream]


# Ends


@pytest.mark.parametrize("sending", ["eof", "reset", "stopped"])
@pytest.mark.parametrize("receiving", ["eof", "reset", "stop"])
@pytest.mark.parametrize("sending_first", [True, False])
async def test_a_stream_is_over_once_both_directions_have_ended(
    owner: Owner, stream: QuicStream, sending: str, receiving: str, sending_first: bool
) -> None:
    def end_sending() -> None:
        if sending == "eof":
            stream.write_eof()
        elif sending == "reset":
            stream.reset(1)
        else:
            stream.deliver_stop(2)

    def end_receiving() -> None:
        if receiving == "eof":
            stream.deliver_eof()
        elif receiving == "reset":
            stream.deliver_reset(3)
        else:
            stream.stop(4)

    tape = Tape(stream)
    first, second = (end_sending, end_receiving) if sending_first else (end_receiving, end_sending)
    first()
    assert tape.lost == []
    assert owner.done == []
    second()
    assert tape.calls[-1] == ("lost", None)
    assert tape.lost == [None]
    assert owner.done == [stream]
    assert stream.is_done


async def test_ending_our_side_inside_eof_received_loses_the_stream_once(
    stream: QuicStream,
) -> None:
    tape = Tape(stream)
    tape.on["eof"] = stream.write_eof
    stream.deliver_eof()
    assert tape.calls == [("eof", None), ("lost", None)]


async def test_the_repr_names_the_stream(stream: QuicStream) -> None:
    assert repr(stream) == "QuicStream(4)"


async def test_whoever_has_been_told_everything_is_let_go(stream: QuicStream) -> None:
    tape = Tape(stream)
    stream.write_eof()
    stream.deliver_eof()
    let_go = weakref.ref(tape)
    gc.disable()
    try:
        del tape
        assert let_go() is None
    finally:
        gc.enable()


async def test_a_receiver_that_comes_after_the_end_is_told_it_and_let_go(
    stream: QuicStream,
) -> None:
    stream.lose(LOST)
    assert Tape(stream).calls == [("lost", LOST)]
    assert stream._receiver is None
