import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.splitting import cut_positions, pieces

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.vpn_frames import (
    MAX_FRAME,
    PING,
    PONG,
    FrameDecoder,
    offload_frame,
    packet_frame,
)
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD

HEADER = bytes(range(10))


def test_frames_have_the_bytes_of_the_specification() -> None:
    assert packet_frame(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert (PING, PONG) == (b"\x01", b"\x02")
    assert offload_frame(HEADER, b"abc") == b"\x04\x00\x00\x00\x03" + HEADER + b"abc"


def fed(decoder: FrameDecoder, chunks: list[bytes]) -> tuple[list[tuple[bytes, bytes]], int, int]:
    packets, pings, pongs = [], 0, 0
    for chunk in chunks:
        received = decoder.feed(chunk)
        packets += received.packets
        pings, pongs = pings + received.pings, pongs + received.pongs
    return packets, pings, pongs


frames = st.one_of(
    st.binary(max_size=200).map(lambda packet: (packet_frame(packet), (NO_OFFLOAD, packet))),
    st.binary(max_size=200).map(lambda packet: (offload_frame(HEADER, packet), (HEADER, packet))),
    st.sampled_from([(PING, None), (PONG, None)]),
)


@given(st.lists(frames, max_size=8), cut_positions)
def test_frames_in_pieces_are_put_together(
    sent: list[tuple[bytes, tuple[bytes, bytes] | None]], cuts: list[int]
) -> None:
    stream = b"".join(frame for frame, _ in sent)
    decoder = FrameDecoder(offload=True)
    packets, pings, pongs = fed(decoder, pieces(stream, cuts))
    assert packets == [packet for _, packet in sent if packet is not None]
    assert pings == sum(frame == PING for frame, _ in sent)
    assert pongs == sum(frame == PONG for frame, _ in sent)
    assert decoder.at_boundary


def test_byte_by_byte() -> None:
    stream = packet_frame(b"one") + PING + offload_frame(HEADER, b"two")
    decoder = FrameDecoder(offload=True)
    packets, pings, _ = fed(decoder, [bytes([byte]) for byte in stream])
    assert packets == [(NO_OFFLOAD, b"one"), (HEADER, b"two")]
    assert pings == 1


def test_an_ordinary_packet_has_the_very_header_that_means_so() -> None:
    [(header, _)] = FrameDecoder().feed(packet_frame(b"x")).packets
    assert header is NO_OFFLOAD


def test_packets_of_one_length_are_told_apart_from_others() -> None:
    sent = [b"one", b"two", b"", b"", b"longer", b"six", b"\0\0\0\0\3"]
    received = FrameDecoder().feed(b"".join(map(packet_frame, sent)) + packet_frame(b"cut")[:-1])
    assert received.packets == [(NO_OFFLOAD, packet) for packet in sent]
    assert all(header is NO_OFFLOAD for header, _ in received.packets)
    assert received.octets == sum(map(len, sent))


def test_the_largest_packet_passes_and_a_larger_one_does_not() -> None:
    packets, _, _ = fed(FrameDecoder(), [packet_frame(bytes(MAX_FRAME))])
    assert len(packets[0][1]) == MAX_FRAME
    with pytest.raises(ProtocolError, match="65537"):
        FrameDecoder().feed(b"\0" + (MAX_FRAME + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("kind", [3, 4, 5, 255])
def test_unknown_types_are_refused(kind: int) -> None:
    with pytest.raises(ProtocolError, match=f"type {kind}"):
        FrameDecoder().feed(bytes([kind]) + bytes(20))


def test_an_unfinished_frame_is_told() -> None:
    decoder = FrameDecoder()
    decoder.feed(packet_frame(b"abc")[:-1])
    assert not decoder.at_boundary


@given(st.binary(max_size=300), cut_positions)
def test_junk_is_read_or_refused(junk: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder(offload=True)
    try:
        fed(decoder, pieces(junk, cuts))
    except ProtocolError:
        pass
