"""The token bucket never lets more through than rate and burst allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.token_bucket import TokenBucket


def test_a_burst_is_free_and_then_the_rate_counts() -> None:
    bucket = TokenBucket(100, 50, now=0.0)
    assert bucket.spend(50, 0.0) == 0.0
    assert bucket.spend(10, 0.0) == pytest.approx(0.1)
    assert bucket.spend(0, 0.1) == pytest.approx(0.0)


def test_rest_does_not_save_up_more_than_the_burst() -> None:
    bucket = TokenBucket(100, 50, now=0.0)
    assert bucket.try_spend(50, 1000.0) and not bucket.try_spend(1, 1000.0)
    assert bucket.try_spend(1, 1000.02)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1, 1, now=10.0)
    assert bucket.try_spend(1, 10.0) and not bucket.try_spend(1, 5.0)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1)])
def test_a_bucket_that_would_never_fill_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="above zero"):
        TokenBucket(rate, burst, 0.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 200)), max_size=50))
def test_over_any_time_no_more_than_rate_and_burst_gets_through(
    steps: list[tuple[float, int]],
) -> None:
    bucket, now, through = TokenBucket(10, 30, 0.0), 0.0, 0
    for pause, tokens in steps:
        now += pause
        through += tokens if bucket.try_spend(tokens, now) else 0
    assert through <= 30 + 10 * now + 1e-6


def test_another_rate_holds_from_now_on_and_debts_stay() -> None:
    bucket = TokenBucket(10, 10, now=0)
    assert bucket.spend(30, now=0) == 2
    bucket.set_rate(20, 5, now=1)
    assert bucket.spend(0, now=1) == 0.5
    assert bucket.try_spend(5, now=9) and not bucket.try_spend(1, now=9)
