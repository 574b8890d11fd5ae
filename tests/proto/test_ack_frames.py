"""ACK frames beside data agree with aioquic's own reader and writer."""

from aioquic._buffer import Buffer
from aioquic.quic.packet import pull_ack_frame, push_ack_frame
from aioquic.quic.rangeset import RangeSet
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import ack_frames

HEAD = b"\x02"

numbers = st.integers(0, 2**40)
lengths = st.one_of(st.integers(1, 100), st.integers(1, 2**32))
ranges = st.lists(st.tuples(lengths, lengths), min_size=1, max_size=ack_frames.MAX_RANGES)


def built(start: int, parts: list[tuple[int, int]]) -> RangeSet:
    """Ranges from `start` on: for each part a gap, and how many packets follow it."""
    acknowledged = RangeSet()
    for gap, length in parts:
        start += gap
        acknowledged.add(start, start + length)
        start += length
    return acknowledged


@given(start=numbers, parts=ranges, delay=st.integers(0, 2**30), rest=st.binary(max_size=9))
def test_what_is_written_is_read_again_and_what_follows_is_left(
    start: int, parts: list[tuple[int, int]], delay: int, rest: bytes
) -> None:
    acknowledged = built(start, parts)
    frame = ack_frames.write(HEAD, acknowledged, delay)
    read = ack_frames.read(frame + rest, len(HEAD))
    assert read is not None
    assert list(read[0]) == list(acknowledged)
    assert read[1:] == (delay, len(frame))


@given(start=numbers, parts=ranges, delay=st.integers(0, 2**30))
def test_the_frame_is_the_one_that_aioquic_writes(
    start: int, parts: list[tuple[int, int]], delay: int
) -> None:
    acknowledged = built(start, parts)
    buf = Buffer(capacity=200)
    push_ack_frame(buf, acknowledged, delay, 200)
    assert ack_frames.write(b"", acknowledged, delay) == buf.data


@given(st.binary(max_size=40))
def test_hostile_bytes_are_left_alone_or_read_as_aioquic_reads_them(data: bytes) -> None:
    read = ack_frames.read(data, 0)
    if read is None:
        return
    buf = Buffer(data=data)
    acknowledged, delay = pull_ack_frame(buf)
    assert list(read[0]) == list(acknowledged)
    assert read[1:] == (delay, buf.tell())


def test_packet_numbers_below_zero_are_left_to_the_slow_path() -> None:
    assert ack_frames.read(bytes([3, 0, 0, 4]), 0) is None
    assert ack_frames.read(bytes([9, 0, 1, 0, 9, 0]), 0) is None


def test_more_ranges_than_are_read_here_are_left_to_the_slow_path() -> None:
    most = ack_frames.MAX_RANGES
    frame = ack_frames.write(b"", built(0, [(1, 1)] * (most + 1)), 0)
    assert ack_frames.read(frame, 0) is None
