"""Packets of a train that continue one stream."""

import pytest
from aioquic.quic.connection import Limit
from aioquic.quic.stream import QuicStream
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import varint
from tunnel_rs.proto.stream_run import StreamRun

STREAM, LEN, OFF = 0x08, 0x02, 0x04


def _stream(received: int, limit: int = 1 << 40) -> QuicStream:
    stream = QuicStream(stream_id=4, max_stream_data_local=limit)
    stream.receiver.highest_offset = stream.receiver._buffer_start = received
    return stream


def _credit(value: int = 1 << 40, used: int = 0) -> Limit:
    credit = Limit(frame_type=0x10, name="max_data", value=value)
    credit.used = used
    return credit


def _frames(offset: int, data: bytes, width: int = 8) -> bytes:
    field = (offset | {1: 0, 2: 1, 4: 2, 8: 3}[width] << (8 * width - 2)).to_bytes(width, "big")
    return bytes([STREAM | OFF, 4]) + field + data


def _run(stream: QuicStream, credit: Limit, offset: int, data: bytes, width: int = 8) -> StreamRun:
    frames = _frames(offset, data, width)
    return StreamRun(stream, credit, frames, offset_at=2, width=width, data_at=2 + width)


@given(
    st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=20),
    st.integers(0, 1 << 30),
    st.sampled_from([4, 8]),
)
def test_packets_in_order_are_taken_and_accounted_for(
    pieces: list[bytes], start: int, width: int
) -> None:
    start %= 1 << 29
    stream, credit = _stream(start), _credit(used=start)
    run = _run(stream, credit, start, pieces[0], width)
    offset = start + len(pieces[0])
    for piece in pieces[1:]:
        assert run.take(_frames(offset, piece, width))
        offset += len(piece)
    assert stream.receiver.highest_offset == start  # nothing has changed yet
    run.commit()
    assert run.pieces == pieces
    assert stream.receiver.highest_offset == stream.receiver._buffer_start == offset
    assert credit.used == offset


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(_frames(20, b"later"), id="a gap"),
        pytest.param(_frames(0, b"before"), id="bytes that came before"),
        pytest.param(_frames(10, b""), id="no data"),
        pytest.param(_frames(10, b"x", width=4), id="another form of the offset"),
        pytest.param(b"\x0d" + _frames(10, b"x")[1:], id="a FIN"),
        pytest.param(b"\x01", id="a PING"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_any_other_packet_is_left_alone(frames: bytes) -> None:
    stream, credit = _stream(0), _credit()
    run = _run(stream, credit, 0, b"0123456789")
    assert not run.take(frames)
    run.commit()
    assert credit.used == 10


def test_a_frame_with_a_length_begins_no_run() -> None:
    data = b"abc"
    frames = bytes([STREAM | OFF | LEN, 4]) + varint.encode(64) + varint.encode(3) + data
    stream = _stream(64)
    run = StreamRun(stream, _credit(), frames, offset_at=2, width=2, data_at=5)
    assert run.pieces == [data]
    assert not run.take(frames[:2] + varint.encode(67) + frames[4:])


def test_flow_control_of_the_stream_and_of_the_connection_ends_a_run() -> None:
    for stream, credit in ((_stream(0, limit=15), _credit()), (_stream(0), _credit(15))):
        run = _run(stream, credit, 0, b"0123456789")
        assert run.is_within_limits
        assert run.take(_frames(10, b"01234"))
        assert not run.take(_frames(15, b"5"))
        assert not _run(stream, credit, 0, bytes(16)).is_within_limits


def test_a_run_ends_where_the_offset_outgrows_its_field() -> None:
    largest = (1 << 14) - 1
    stream = _stream(largest - 4)
    run = _run(stream, _credit(), largest - 4, b"0123", width=2)
    assert run.is_within_limits
    assert not run.take(_frames(largest, b"4", width=2))
    stream = _stream(largest)
    run = _run(stream, _credit(), largest, b"01", width=2)
    assert run.is_within_limits
    run.commit()
    assert stream.receiver.highest_offset == largest + 2
