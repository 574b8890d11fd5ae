"""What is asked of a peer that takes ACK_FREQUENCY frames."""

from aioquic._buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import varint
from tunnel_rs.proto.ack_frequency import MIN_ACK_DELAY, SPARSE, AckFrequency, min_ack_delay


def _parameter(kind: int, value: bytes) -> bytes:
    return varint.encode(kind) + varint.encode(len(value)) + value


def _fields(frame: bytes) -> tuple[int, ...]:
    buf = Buffer(data=frame)
    return tuple(buf.pull_uint_var() for _ in range(4))


def test_iroh_s_parameter_is_read_wherever_it_stands() -> None:
    ours = _parameter(MIN_ACK_DELAY, varint.encode(1000))
    assert min_ack_delay(_parameter(1, b"\x05") + ours + _parameter(4, b"\x07")) == 0.001
    assert min_ack_delay(_parameter(1, b"\x05")) is None


@given(st.binary(max_size=80))
def test_malformed_parameters_are_no_more_than_silent(parameters: bytes) -> None:
    min_ack_delay(parameters)


def test_nothing_is_asked_while_the_window_is_small() -> None:
    frequency = AckFrequency(0.001)
    frequency.window_is(100)
    assert not frequency.is_due


def test_a_large_window_asks_for_sparse_acknowledgements_once() -> None:
    frequency = AckFrequency(0.001)
    frequency.window_is(128)
    assert frequency.is_due
    assert _fields(frequency.next_frame()) == (0, SPARSE - 1, 10_000, 3)
    frequency.window_is(500)
    assert not frequency.is_due


def test_a_window_that_shrinks_takes_it_back_with_a_later_sequence_number() -> None:
    frequency = AckFrequency(0.001)
    frequency.window_is(128)
    frequency.next_frame()
    frequency.window_is(100)
    assert not frequency.is_due
    frequency.window_is(63)
    assert _fields(frequency.next_frame()) == (1, 1, 10_000, 3)


def test_the_delay_asked_for_is_one_the_peer_can_keep() -> None:
    frequency = AckFrequency(0.020)
    frequency.window_is(128)
    assert _fields(frequency.next_frame())[2] == 20_000
