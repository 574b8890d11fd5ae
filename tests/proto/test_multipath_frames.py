"""Frames of QUIC multipath: bytes, and what cut or forged ones do."""

import pytest
from aioquic._buffer import Buffer, BufferReadError
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto import varint
from tunnel_rs.proto.multipath_frames import (
    INITIAL_MAX_PATH_ID,
    MAX_PATH_ID,
    NAT_TRAVERSAL,
    FrameType,
    MultipathParameters,
    NewConnectionId,
    PathError,
    encode_numbers,
    numbers,
)

INTEGERS = st.integers(0, varint.MAX)

# Spec multipath.md, section 2.
TYPES = {
    FrameType.PATH_ACK: "3e",
    FrameType.PATH_ACK_ECN: "3f",
    FrameType.PATH_ABANDON: "7e75",
    FrameType.PATH_STATUS_BACKUP: "7e76",
    FrameType.PATH_STATUS_AVAILABLE: "7e77",
    FrameType.PATH_NEW_CONNECTION_ID: "7e78",
    FrameType.PATH_RETIRE_CONNECTION_ID: "7e79",
    FrameType.MAX_PATH_ID: "7e7a",
    FrameType.PATHS_BLOCKED: "7e7b",
    FrameType.PATH_CIDS_BLOCKED: "7e7c",
}


def test_types_are_encoded_as_in_the_final_draft() -> None:
    assert {kind: varint.encode(kind).hex() for kind in FrameType} == TYPES


def test_errors_have_the_codes_of_the_draft() -> None:
    assert PathError.NO_VIABLE_PATH == 0x10
    assert PathError.APPLICATION_ABANDON_PATH == 0x3E
    assert [error for error in PathError if error > 0x3E] == [0x3E75, 0x3E76, 0x3E77]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 0x3E), "013e"),  # PATH_ABANDON of path 1
        ((2, 3), "0203"),  # PATH_STATUS: path 2, the third change
        ((7,), "07"),  # MAX_PATH_ID
        ((300, 0x3E76), "412c7e76"),
    ],
)
def test_frames_of_numbers_have_known_bytes(values: tuple[int, ...], expected: str) -> None:
    assert encode_numbers(*values).hex() == expected


def test_a_new_connection_id_has_known_bytes() -> None:
    frame = NewConnectionId(3, 1, 0, bytes(range(8)), bytes(16))
    assert frame.encode().hex() == "030100" + "08" + "0001020304050607" + "00" * 16


@given(st.lists(INTEGERS, min_size=1, max_size=4))
def test_numbers_come_back(values: list[int]) -> None:
    buf = Buffer(data=encode_numbers(*values))
    assert numbers(buf, len(values)) == tuple(values)
    assert buf.eof()


CONNECTION_IDS = st.builds(
    NewConnectionId,
    INTEGERS,
    INTEGERS,
    INTEGERS,
    st.binary(min_size=1, max_size=20),
    st.binary(min_size=16, max_size=16),
)


@given(CONNECTION_IDS)
def test_a_new_connection_id_comes_back(frame: NewConnectionId) -> None:
    buf = Buffer(data=frame.encode() + b"rest")
    assert NewConnectionId.pull(buf) == frame
    assert buf.pull_bytes(4) == b"rest"


@given(CONNECTION_IDS, st.data())
def test_a_new_connection_id_that_is_cut_off_is_noticed(
    frame: NewConnectionId, data: st.DataObject
) -> None:
    encoded = frame.encode()
    with pytest.raises(BufferReadError):
        NewConnectionId.pull(Buffer(data=encoded[: data.draw(st.integers(0, len(encoded) - 1))]))


@pytest.mark.parametrize("length", [0, 21, 255])
def test_a_connection_id_has_between_1_and_20_bytes(length: int) -> None:
    content = b"\x01\x00\x00" + bytes((length,)) + bytes(300)
    with pytest.raises(ProtocolError):
        NewConnectionId.pull(Buffer(data=content))


# Transport parameters


def test_parameters_have_known_bytes() -> None:
    assert MultipathParameters(7).encode().hex() == "3e0107"
    assert MultipathParameters(7, 32).encode().hex() == "3e0107" + "c0003d7f91120401" + "01" + "20"
    assert MultipathParameters().encode() == b""


PARAMETERS = st.builds(
    MultipathParameters,
    st.none() | st.integers(0, MAX_PATH_ID),
    st.none() | st.integers(1, 255),
)
OTHERS = st.lists(st.tuples(st.integers(0x40, 0x3FFF), st.binary(max_size=20)), max_size=4)


def parameter(kind: int, value: bytes) -> bytes:
    return varint.encode(kind) + varint.encode(len(value)) + value


@given(PARAMETERS, OTHERS, OTHERS)
def test_parameters_are_found_among_others(
    parameters: MultipathParameters,
    before: list[tuple[int, bytes]],
    after: list[tuple[int, bytes]],
) -> None:
    encoded = b"".join(
        (
            *(parameter(*other) for other in before),
            parameters.encode(),
            *(parameter(*other) for other in after),
        )
    )
    assert MultipathParameters.find(encoded) == parameters


@pytest.mark.parametrize(
    "encoded",
    [
        parameter(INITIAL_MAX_PATH_ID, b"\x07") * 2,
        parameter(NAT_TRAVERSAL, b"\x20") * 2,
        parameter(INITIAL_MAX_PATH_ID, b""),
        parameter(INITIAL_MAX_PATH_ID, b"\x07\x07"),
        parameter(INITIAL_MAX_PATH_ID, varint.encode(1 << 32)),
        parameter(INITIAL_MAX_PATH_ID, b"\x40"),
        parameter(NAT_TRAVERSAL, b""),
        parameter(NAT_TRAVERSAL, b"\x00"),
        parameter(NAT_TRAVERSAL, b"\x40\x20"),
        b"\x3e\x05\x07",
        b"\x3e",
    ],
)
def test_malformed_parameters_are_refused(encoded: bytes) -> None:
    with pytest.raises(ProtocolError):
        MultipathParameters.find(encoded)


@given(st.binary(max_size=60))
def test_any_bytes_are_parameters_or_refused(encoded: bytes) -> None:
    try:
        MultipathParameters.find(encoded)
    except ProtocolError:
        pass
