"""When a relay connection is pinged and when it counts as dead; the clock is in our hands."""

import pytest

from tunnel_rs.proto.relay_ping import PingClock


def test_a_client_pings_at_once_and_then_15_seconds_after_the_last_frame() -> None:
    clock = PingClock(100.0, ping_at_once=True)
    assert clock.due(100.0)
    clock.ping_sent(b"a", 100.0)
    clock.pong_received(b"a", 100.2)
    assert clock.get_timer() == pytest.approx(115.2)
    clock.frame_received(110.0)
    assert clock.get_timer() == 125.0 and not clock.due(124.9) and clock.due(125.0)


def test_the_first_pong_has_5_seconds() -> None:
    clock = PingClock(0.0, ping_at_once=True)
    clock.ping_sent(b"a", 0.0)
    assert clock.get_timer() == 5.0 and not clock.is_dead(4.99) and clock.is_dead(5.0)


@pytest.mark.parametrize(("round_trip", "deadline"), [(0.01, 0.5), (0.4, 1.2), (4.0, 5.0)])
def test_later_pongs_have_three_round_trips_within_bounds(
    round_trip: float, deadline: float
) -> None:
    clock = PingClock(0.0, ping_at_once=True)
    clock.ping_sent(b"a", 0.0)
    clock.pong_received(b"a", round_trip)
    assert clock.round_trip == pytest.approx(round_trip)
    clock.ping_sent(b"b", 50.0)
    assert clock.get_timer() == pytest.approx(50.0 + deadline)


def test_other_frames_do_not_stand_in_for_a_pong() -> None:
    clock = PingClock(0.0, ping_at_once=True)
    clock.ping_sent(b"a", 0.0)
    clock.frame_received(4.9)
    clock.pong_received(b"b", 4.9)
    assert clock.is_dead(5.0) and clock.round_trip is None


def test_a_pong_nobody_asked_for_changes_nothing() -> None:
    clock = PingClock(0.0, 16.0, ping_at_once=False)
    clock.pong_received(b"a", 3.0)
    assert clock.round_trip is None and clock.get_timer() == 16.0


def test_asked_to_it_pings_at_once_but_one_ping_at_a_time() -> None:
    clock = PingClock(0.0, ping_at_once=False)
    clock.ask(3.0)
    assert clock.due(3.0)
    clock.ping_sent(b"a", 3.0)
    clock.ask(4.0)
    assert not clock.due(4.0) and clock.is_dead(8.0)
