"""Delays between attempts: growth, limits, spread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.backoff import Backoff


def test_delays_double_up_to_the_limit() -> None:
    backoff = Backoff(jitter=0.0, random=lambda: 0.5)
    assert [backoff.next_delay() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_spreads_upwards_within_the_limit() -> None:
    lowest = Backoff(random=lambda: 0.0)
    highest = Backoff(random=lambda: 1.0)
    assert [lowest.next_delay() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 50, 50]
    expected = [1.2, 2.4, 4.8, 9.6, 19.2, 38.4, 60, 60]
    assert [highest.next_delay() for _ in range(8)] == pytest.approx(expected)


def test_reset_begins_again() -> None:
    backoff = Backoff(random=lambda: 0.0)
    assert [backoff.next_delay() for _ in range(3)] == [1, 2, 4]
    backoff.reset()
    assert [backoff.next_delay() for _ in range(2)] == [1, 2]


@given(
    st.floats(0.001, 10.0),
    st.floats(0.0, 100.0),
    st.floats(0.0, 3.0),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50),
)
def test_every_delay_is_between_first_and_limit(
    first: float, more: float, jitter: float, numbers: list[float]
) -> None:
    supply = iter(numbers)
    backoff = Backoff(first, first + more, jitter, random=lambda: next(supply))
    for _ in numbers:
        assert first <= backoff.next_delay() <= first + more


def test_it_can_be_asked_for_ever() -> None:
    backoff = Backoff(random=lambda: 1.0)
    assert max(backoff.next_delay() for _ in range(5000)) == 60.0


@pytest.mark.parametrize(("first", "limit", "jitter"), [(0, 1, 0), (2, 1, 0), (1, 2, -0.1)])
def test_senseless_settings_are_refused(first: float, limit: float, jitter: float) -> None:
    with pytest.raises(ValueError, match="a backoff needs"):
        Backoff(first, limit, jitter, random=lambda: 0.0)
