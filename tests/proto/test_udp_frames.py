"""Datagrams on a stream: sizes, splits, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.splitting import cut_positions, pieces

from tunnel_rs.proto.udp_frames import MAX_DATAGRAM, DatagramDecoder, encode_datagram


@pytest.mark.parametrize(
    ("payload", "wire"),
    [
        (b"", b"\x00\x00"),
        (b"a", b"\x00\x01a"),
        (bytes(256), b"\x01\x00" + bytes(256)),
        (bytes(65_535), b"\xff\xff" + bytes(65_535)),
    ],
)
def test_a_datagram_is_two_bytes_of_length_and_itself(payload: bytes, wire: bytes) -> None:
    assert encode_datagram(payload) == wire
    assert DatagramDecoder().feed(wire) == [payload]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_encoded(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    assert encode_datagram(kind(b"abc")) == b"\x00\x03abc"


def test_a_datagram_above_65535_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="a datagram of 65536 bytes is longer than 65535"):
        encode_datagram(bytes(65_536))


@given(st.lists(st.binary(max_size=300), max_size=6), cut_positions)
def test_datagrams_are_found_however_the_bytes_are_split(
    sent: list[bytes], cuts: list[int]
) -> None:
    decoder = DatagramDecoder()
    stream = b"".join(map(encode_datagram, sent))
    assert [d for part in pieces(stream, cuts) for d in decoder.feed(part)] == sent
    assert decoder.at_boundary


def test_one_byte_at_a_time_is_enough() -> None:
    decoder = DatagramDecoder()
    stream = encode_datagram(b"ab") + encode_datagram(b"") + encode_datagram(b"c")
    assert [d for b in stream for d in decoder.feed(bytes([b]))] == [b"ab", b"", b"c"]


@pytest.mark.parametrize(
    ("stream", "at_boundary"),
    [(b"", True), (b"\x00", False), (b"\x00\x02", False), (b"\x00\x02a", False)]
    + [(b"\x00\x02ab", True), (b"\x00\x02ab\x00", False), (b"\x00\x00", True)],
)
def test_the_end_of_the_stream_inside_a_datagram_is_noticed(
    stream: bytes, at_boundary: bool
) -> None:
    decoder = DatagramDecoder()
    for byte in stream:
        decoder.feed(bytes([byte]))
    assert decoder.at_boundary == at_boundary


@given(st.lists(st.binary(max_size=500), max_size=12))
def test_any_bytes_are_datagrams_and_a_part_of_one(parts: list[bytes]) -> None:
    decoder = DatagramDecoder()
    found = [d for part in parts for d in decoder.feed(part)]
    stream, framed = b"".join(parts), b"".join(map(encode_datagram, found))
    assert stream.startswith(framed)
    assert decoder.at_boundary == (stream == framed)
    assert len(stream) - len(framed) < 2 + MAX_DATAGRAM
