"""How patient RFC 9002 section 6.1 and RFC 8985 section 6.2 let a sender be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.reordering import Reordering

RTT = 0.1


def declared(*spans: tuple[int, int], sent: float = 1.0, now: float = 1.12) -> Reordering:
    """One loss event of the packets from and below each of `spans`."""
    reordering = Reordering()
    reordering.begin_event()
    for number, end in spans:
        reordering.declare(number, end, sent, now=now, rtt=RTT)
    return reordering


def heard(reordering: Reordering, *ranges: range, largest: int = 30, now: float = 1.13) -> bool:
    return reordering.acknowledge(ranges, largest=largest, now=now, rtt=RTT)


def test_at_first_three_packets_or_an_eighth_of_a_round_trip_are_waited_for() -> None:
    reordering = Reordering()
    assert reordering.packet_threshold == 3 and not reordering.is_watching
    assert reordering.loss_delay(RTT) == pytest.approx(9 / 8 * RTT)


def test_as_many_packets_are_waited_for_as_once_overtook_one() -> None:
    reordering = declared((5, 6))
    heard(reordering, range(0, 41), largest=40)
    assert reordering.packet_threshold == 36  # at 40, packet 5 would not be lost yet


def test_one_is_waited_for_somewhat_longer_than_one_was_late() -> None:
    reordering = declared((5, 6), sent=1.0)
    heard(reordering, range(0, 31), now=1.0 + RTT + 0.04)
    assert reordering.loss_delay(RTT) == pytest.approx(RTT + 1.25 * 0.04)
    assert reordering.loss_delay(10 * RTT) == pytest.approx(9 / 8 * 10 * RTT)


def test_patience_ends_at_two_round_trips_and_a_bounded_number_of_packets() -> None:
    reordering = declared((5, 6), sent=0.0)
    heard(reordering, range(0, 1_000_000), largest=999_999, now=1.3)
    assert reordering.loss_delay(RTT) == pytest.approx(2 * RTT)
    assert reordering.packet_threshold == 4096


def test_a_loss_event_whose_packets_all_turn_up_was_none() -> None:
    reordering = declared((5, 6), (8, 10))
    assert not heard(reordering, range(5, 6))
    assert not heard(reordering, range(5, 6), range(8, 9))
    assert heard(reordering, range(5, 10))
    assert not reordering.is_watching
    assert not heard(reordering, range(5, 10))  # told once


def test_one_real_loss_makes_the_event_real() -> None:
    reordering = declared((5, 6), (8, 9))
    assert not heard(reordering, range(0, 8), range(9, 30))
    assert reordering.packet_threshold > 3  # but something is learned all the same


def test_late_packets_of_an_earlier_event_undo_no_later_one() -> None:
    reordering = declared((5, 6))
    reordering.begin_event()
    reordering.declare(20, 21, 1.1, now=1.21, rtt=RTT)
    assert not heard(reordering, range(0, 20))
    assert heard(reordering, range(0, 21))


def test_sixteen_real_loss_events_end_patience() -> None:
    reordering = declared((5, 6))
    heard(reordering, range(0, 31))
    for _ in range(15):
        reordering.begin_event()
    assert reordering.packet_threshold > 3
    reordering.begin_event()
    assert reordering.packet_threshold == 3
    assert reordering.loss_delay(RTT) == pytest.approx(9 / 8 * RTT)


def test_another_late_packet_renews_patience() -> None:
    reordering = declared((5, 6))
    heard(reordering, range(0, 31))
    for _ in range(15):
        reordering.begin_event()
    reordering.declare(50, 51, 1.2, now=1.31, rtt=RTT)
    heard(reordering, range(0, 61), largest=60, now=1.32)
    for _ in range(15):
        reordering.begin_event()
    assert reordering.packet_threshold > 3


def test_what_does_not_turn_up_in_three_round_trips_is_forgotten() -> None:
    reordering = declared((5, 6), now=1.0)
    assert not heard(reordering, range(10, 20), now=1.0 + 2.9 * RTT)
    assert reordering.is_watching
    assert not heard(reordering, range(10, 20), now=1.0 + 3.1 * RTT)
    assert not reordering.is_watching


def test_a_peer_that_acknowledges_nothing_of_it_fills_no_memory() -> None:
    reordering = Reordering()
    for number in range(0, 20_000, 2):
        reordering.declare(number, number + 1, 1.0, now=1.0, rtt=RTT)
    assert len(reordering._declared) == 256


def test_another_path_is_begun_without_patience() -> None:
    reordering = declared((5, 6))
    heard(reordering, range(0, 31))
    reordering.declare(50, 51, 1.2, now=1.31, rtt=RTT)
    reordering.restart()
    assert reordering.packet_threshold == 3 and not reordering.is_watching
    assert not heard(reordering, range(0, 61))


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12),
    st.lists(st.sets(st.integers(0, 80)), max_size=8),
)
def test_an_event_is_undone_when_its_last_packet_turns_up_and_only_then(
    gaps: list[int], acknowledged: list[set[int]]
) -> None:
    spans, position = [], 0
    for gap in gaps:
        spans.append((position + gap, position + 2 * gap))
        position += 2 * gap + 1
    reordering = declared(*spans)
    missing = {number for start, end in spans for number in range(start, end)}
    for numbers in acknowledged:
        before = set(missing)
        missing -= numbers
        ranges = [range(number, number + 1) for number in sorted(numbers)]
        assert heard(reordering, *ranges, largest=80) == bool(before and not missing)
        assert reordering.is_watching == bool(missing)
