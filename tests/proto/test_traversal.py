"""Frames of n0's NAT traversal: bytes, and what is cut off."""

import pytest
from aioquic._buffer import Buffer, BufferReadError
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import varint
from tunnel_rs.proto.nat_traversal import AddAddress, ReachOut, RemoveAddress
from tunnel_rs.proto.traversal import FrameType, encode, pull
from tunnel_rs.values import SocketAddr

NUMBERS = st.integers(0, varint.MAX)
ADDRESSES = st.builds(SocketAddr, st.ip_addresses().map(str), st.integers(0, 65_535))
FRAMES = (
    st.builds(AddAddress, NUMBERS, ADDRESSES)
    | st.builds(ReachOut, NUMBERS, ADDRESSES)
    | st.builds(RemoveAddress, NUMBERS)
)


@pytest.mark.parametrize(
    ("frame", "kind", "content"),
    [
        (AddAddress(0, SocketAddr("192.0.2.7", 4444)), 0x3D7F90, "00c0000207115c"),
        (
            AddAddress(1, SocketAddr("2001:db8::1", 443)),
            0x3D7F91,
            "0120010db800000000000000000000000101bb",
        ),
        (ReachOut(2, SocketAddr("192.0.2.7", 4444)), 0x3D7F92, "02c0000207115c"),
        (ReachOut(64, SocketAddr("::1", 1)), 0x3D7F93, "4040" + "00" * 15 + "010001"),
        (RemoveAddress(9), 0x3D7F94, "09"),
    ],
)
def test_frames_have_known_bytes(
    frame: AddAddress | ReachOut | RemoveAddress, kind: int, content: str
) -> None:
    assert encode(frame) == (kind, bytes.fromhex(content))


def test_types_take_four_bytes() -> None:
    assert {len(varint.encode(kind)) for kind in FrameType} == {4}
    assert varint.encode(FrameType.ADD_ADDRESS_V4).hex() == "803d7f90"


@given(FRAMES)
def test_frames_come_back(frame: AddAddress | ReachOut | RemoveAddress) -> None:
    kind, content = encode(frame)
    buf = Buffer(data=content)
    assert pull(kind, buf) == frame
    assert buf.eof()


@given(FRAMES, st.data())
def test_a_frame_that_is_cut_off_is_noticed(
    frame: AddAddress | ReachOut | RemoveAddress, data: st.DataObject
) -> None:
    kind, content = encode(frame)
    with pytest.raises(BufferReadError):
        pull(kind, Buffer(data=content[: data.draw(st.integers(0, len(content) - 1))]))


@given(st.sampled_from(FrameType), st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_too_short(kind: FrameType, content: bytes) -> None:
    try:
        pull(kind, Buffer(data=content))
    except BufferReadError:
        pass
