"""The send buffer is what a bytearray is, with other memory."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnel_rs.proto import send_buffer
from tunnel_rs.proto.send_buffer import (
    BLOCK,
    MAX_SPARE,
    MAX_SPARE_IN_USE,
    SendBuffer,
    view,
)

PATTERN = bytes(range(251)) * (2 * BLOCK // 251 + 1)
SIZES = st.one_of(
    st.integers(0, 70),
    st.integers(0, 2 * BLOCK),
    st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK]),
)


@pytest.fixture(autouse=True)
def no_spare() -> Iterator[None]:
    send_buffer._spare.clear()
    yield
    send_buffer._spare.clear()


def data(size: int, number: int) -> bytes:
    return PATTERN[number % 251 :][:size]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), SIZES, SIZES), max_size=20))
def test_it_holds_what_a_bytearray_would(steps: list[tuple[bool, int, int]]) -> None:
    buffer, like = SendBuffer(), bytearray()
    for number, (adds, size, other) in enumerate(steps):
        if adds:
            buffer += data(size, number)
            like += data(size, number)
        else:
            del buffer[:size]
            del like[:size]
        assert len(buffer) == len(like)
        start = min(other, len(like))
        stop = min(start + size, len(like))
        assert buffer[start:stop] == like[start:stop]
        with view(buffer, start, stop) as part, view(like, start, stop) as alike:
            assert part == alike
    assert buffer[:] == like


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_it_takes_any_kind_of_bytes(kind: type) -> None:
    buffer = SendBuffer(kind(b"some"))
    buffer += kind(b"thing")
    assert buffer[:] == b"something"


def test_what_has_been_taken_in_is_copied() -> None:
    source = bytearray(b"before")
    buffer = SendBuffer(source)
    source[:] = b"after!"
    assert buffer[:] == b"before"


def test_an_empty_one_holds_no_memory() -> None:
    buffer = SendBuffer(data(3 * BLOCK // 2, 0))
    del buffer[: len(buffer)]
    assert not buffer._blocks


def test_blocks_that_have_been_sent_are_given_back_while_others_wait() -> None:
    buffer = SendBuffer(data(2 * BLOCK, 0))
    del buffer[:BLOCK]
    assert len(buffer._blocks) == 1
    assert len(send_buffer._spare) == 1


def test_a_stream_that_goes_on_and_on_uses_the_same_blocks() -> None:
    buffer = SendBuffer(data(BLOCK, 0))
    seen = {id(block) for block in buffer._blocks}
    for number in range(20):
        buffer += data(BLOCK, number)
        seen |= {id(block) for block in buffer._blocks}
        del buffer[:BLOCK]
    assert len(seen) == 2


def test_a_few_blocks_are_kept_for_later_and_more_while_a_buffer_is_in_use() -> None:
    blocks = MAX_SPARE_IN_USE + 10
    buffer = SendBuffer(bytes((blocks + 1) * BLOCK))
    del buffer[: blocks * BLOCK]
    assert len(send_buffer._spare) == MAX_SPARE_IN_USE
    del buffer[:BLOCK]
    assert len(send_buffer._spare) == MAX_SPARE


def test_bytes_leave_only_from_the_front() -> None:
    buffer = SendBuffer(b"something")
    with pytest.raises(ValueError, match="front"):
        del buffer[2:4]


def test_a_view_of_a_bytearray_lets_it_grow_once_it_is_released() -> None:
    buffer = bytearray(b"something")
    with view(buffer, 4, 9) as part:
        assert part == b"thing"
    buffer += b" else"
