"""Windows: what a peer may send."""

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.flow_control import (
    HELD_LIMIT,
    STALL,
    ConnectionWindow,
    StreamWindow,
    window_for,
)


def test_a_stream_window_does_not_move_before_half_of_it_is_consumed() -> None:
    window = StreamWindow(1000, 16_000)
    assert not window.consume(499)
    assert window.limit == 1000


def test_a_stream_window_doubles_while_the_application_keeps_up() -> None:
    window = StreamWindow(1000, 3500)
    assert window.consume(500) and window.limit == 500 + 2000
    assert window.consume(1500) and window.limit == 2000 + 3500
    assert window.consume(3500) and window.limit == 5500 + 3500


@given(
    st.integers(1024, 10_000),
    st.integers(1, 16),
    st.lists(st.integers(1, 20_000), max_size=50),
)
def test_a_reader_that_keeps_up_never_blocks_its_peer(
    initial: int, factor: int, steps: list[int]
) -> None:
    window = StreamWindow(initial, initial * factor)
    received = told = 0
    told = initial
    for step in steps:
        sent = min(step, told - received)
        received += sent
        assert sent > 0
        if sent and window.consume(sent):
            assert told < window.limit <= window.consumed + initial * factor
            told = window.limit


def test_a_stranger_is_held_at_the_window_whatever_it_does_not_consume() -> None:
    window = ConnectionWindow(65_536)
    assert not window.update(65_536)
    assert window.limit == 65_536


def test_held_bytes_do_not_count_against_the_others_up_to_the_limit() -> None:
    window = ConnectionWindow(65_536)
    window.trust(1_000_000)
    assert window.update(0) and window.limit == 1_000_000
    assert window.update(1_000_000) and window.limit == 2_000_000
    while window.update(window.limit):
        pass
    assert HELD_LIMIT - 1_000_000 < window.limit <= HELD_LIMIT


@given(
    st.integers(1024, 100_000),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), max_size=60),
)
def test_credit_is_bounded_and_comes_back(
    size: int, trusted: bool, steps: list[tuple[int, int]]
) -> None:
    window = ConnectionWindow(size)
    if trusted:
        window.trust(2 * size)
        window.update(0)
    received, told = 0, window.limit
    for sent, consumed in steps:
        received += min(sent, told - received)
        window.update(received)
        window.consumed += min(consumed, received - window.consumed)
        window.update(received)
        assert window.limit >= told
        told = window.limit
        assert told - window.consumed <= window.held_limit
    window.consumed = received
    window.update(received)
    assert window.limit - received >= window.size // 2


def test_trust_takes_nothing_back() -> None:
    window = ConnectionWindow(65_536)
    window.trust(1024)
    assert window.size == 65_536 and window.held_limit == HELD_LIMIT
    window.trust(1_000_000)
    assert window.update(0)
    window.trust(100_000)  # the path has become shorter
    assert not window.update(0) and window.limit == 1_000_000
    window.consumed = 950_000
    assert window.update(950_000) and window.limit == 1_050_000


def test_a_window_is_no_larger_than_the_socket_s_buffer_on_a_short_path() -> None:
    assert window_for(8_000_000, 400_000, rtt=0.0003) == 400_000
    assert window_for(8_000_000, 400_000, rtt=STALL) == 400_000
    assert window_for(8_000_000, 400_000, rtt=0.1) == 2_000_000  # no more than the buffer in 20 ms
    assert window_for(8_000_000, 400_000, rtt=2.0) == 8_000_000
    assert window_for(100_000, 400_000, rtt=0.0003) == 100_000
