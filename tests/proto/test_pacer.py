"""The token bucket that spreads packets over time."""

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.pacer import Pacer

SIZE = 1200


def paced(window: int, rtt: float) -> Pacer:
    pacer = Pacer(max_datagram_size=SIZE)
    pacer.update_rate(window, rtt)
    return pacer


def test_before_the_first_sample_nothing_is_paced() -> None:
    pacer = Pacer(max_datagram_size=SIZE)
    assert pacer.next_send_time(5.0) is None
    assert pacer.available(5.0) > 1_000_000
    pacer.update_after_send(5.0)
    pacer.spend(1 << 40)
    assert pacer.next_send_time(5.0) is None


def test_the_rate_is_a_little_above_a_window_for_each_round_trip() -> None:
    assert paced(120_000, 0.1).rate == 1.25 * 1_200_000


def test_a_round_trip_of_zero_does_not_divide() -> None:
    assert paced(120_000, 0.0).rate is not None


def test_a_slow_path_gets_bursts_of_sixteen_datagrams() -> None:
    pacer = paced(12_000, 1.0)
    assert pacer.available(100.0) == 16


def test_a_fast_path_gets_bursts_of_two_milliseconds() -> None:
    pacer = paced(12_000_000, 0.1)
    assert pacer.available(100.0) == int(150_000_000 * 0.002) // SIZE


def test_an_empty_bucket_says_when_to_come_back() -> None:
    pacer = paced(120_000, 0.1)
    pacer.spend(pacer.available(100.0) * SIZE)
    due = pacer.next_send_time(100.0)
    assert due is not None and 100.0 < due <= 100.0 + 0.002
    assert pacer.next_send_time(due + 1e-9) is None
    assert pacer.available(due + 1e-9) >= 1


def test_a_clock_that_stands_still_earns_nothing() -> None:
    pacer = paced(120_000, 0.1)
    pacer.available(50.0)
    pacer.spend(1 << 20)
    assert pacer.available(50.0) == pacer.available(49.0) == 0


@given(st.integers(2 * SIZE, 10_000_000), st.floats(0.0005, 1.0), st.floats(1.0, 1e7))
def test_the_time_to_come_back_is_late_enough(window: int, rtt: float, now: float) -> None:
    """However little is missing, and however coarse the clock's last digit is."""
    pacer = paced(window, rtt)
    for missing in (SIZE, 1.0, 1e-9):
        pacer.spend(int(pacer.available(now) * SIZE - SIZE + missing))
        due = pacer.next_send_time(now)
        if due is not None:
            assert due > now
            now = due
        assert pacer.next_send_time(now) is None and pacer.available(now) >= 1


@given(
    st.integers(2 * SIZE, 10_000_000),
    st.floats(0.0005, 1.0),
    st.lists(st.floats(0.0, 0.01), min_size=1, max_size=100),
)
def test_never_more_leaves_than_rate_and_burst_allow(
    window: int, rtt: float, waits: list[float]
) -> None:
    pacer = paced(window, rtt)
    assert pacer.rate is not None
    now, sent = 10.0, 0
    pacer.available(now)
    burst = max(16 * SIZE, pacer.rate * 0.002)
    for wait in waits:
        now += wait
        while pacer.next_send_time(now) is None:
            pacer.update_after_send(now)
            sent += SIZE
        assert sent <= burst + pacer.rate * (now - 10.0) + SIZE


@given(st.integers(2 * SIZE, 10_000_000), st.floats(0.0005, 1.0))
def test_a_sender_that_obeys_reaches_the_rate(window: int, rtt: float) -> None:
    pacer = paced(window, rtt)
    assert pacer.rate is not None
    now, sent = 10.0, 0
    for _ in range(200):
        count = pacer.available(now)
        pacer.spend(count * SIZE)
        sent += count * SIZE
        now = max(now, pacer.next_send_time(now) or now)
    assert sent >= 0.95 * pacer.rate * (now - 10.0)
