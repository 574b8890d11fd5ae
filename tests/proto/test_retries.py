"""Tests of `tunnel_rs.proto.retries`."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.proto.retries import (
    EAGER_LIMIT,
    EAGER_TIME,
    PATIENT_LIMIT,
    REFUSED_LIMIT,
    TELL_AGAIN,
    Retries,
)


def least(**options: bool) -> Retries:
    """Whose delays are the shortest there may be."""
    return Retries(random=lambda: 0.0, **options)


@given(st.floats(min_value=0.0, max_value=1.0))
def test_for_a_while_a_server_that_does_not_answer_is_tried_every_two_seconds(share: float) -> None:
    retries, now = Retries(random=lambda: share), 0.0
    while now < EAGER_TIME - EAGER_LIMIT:
        delay = retries.missed(now)
        assert 1.0 <= delay <= EAGER_LIMIT
        now += delay


@pytest.mark.parametrize(
    ("by_peer", "was_up", "hurries"),
    [(True, False, False), (True, True, True), (False, False, True)],
)
def test_only_who_was_sent_away_before_a_tunnel_was_up_keeps_away(
    by_peer: bool, was_up: bool, hurries: bool
) -> None:
    retries = least()
    retries.after(LinkClosedError(7, "too many", by_peer=by_peer), 0.0, was_up=was_up)
    assert retries.hurries is hurries


def test_after_that_it_is_tried_now_and_then() -> None:
    retries = Retries(random=lambda: 1.0)
    retries.missed(0.0)
    delays = [retries.missed(EAGER_TIME) for _ in range(10)]
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(PATIENT_LIMIT)


def test_while_somebody_waits_it_is_tried_often_whatever_the_time() -> None:
    retries = Retries(random=random.Random(1).random)
    retries.missed(0.0)
    assert all(retries.missed(10 * EAGER_TIME, wanted=True) <= EAGER_LIMIT for _ in range(10))


def test_who_was_up_begins_anew() -> None:
    retries = least()
    retries.missed(0.0)
    for _ in range(10):
        retries.missed(EAGER_TIME)
        retries.refused()
    retries.up()
    assert not retries.hurries
    assert retries.missed(EAGER_TIME + 1.0) == retries.refused() == 1.0


def test_whom_the_server_sends_away_comes_less_and_less_often_and_is_not_hurried() -> None:
    retries = Retries(random=lambda: 1.0)
    retries.missed(0.0)
    assert retries.hurries
    delays = [retries.refused() for _ in range(10)]
    assert not retries.hurries
    assert delays == sorted(delays) and delays[-1] == pytest.approx(REFUSED_LIMIT)


def test_attempts_that_bother_others_become_rare() -> None:
    retries = least(eager=False)
    delays = [retries.missed(0.0, wanted=True) for _ in range(10)]
    assert delays[:5] == [1, 2, 4, 8, 16]
    assert delays[-1] == REFUSED_LIMIT / 1.2
    assert not retries.hurries


def test_the_same_reason_is_told_once_a_minute_and_another_at_once() -> None:
    retries = least()
    assert retries.is_news("no answer", 0.0)
    assert not retries.is_news("no answer", TELL_AGAIN - 1.0)
    assert retries.is_news("no answer", TELL_AGAIN)
    assert retries.is_news("refused", TELL_AGAIN)
    retries.up()
    assert retries.is_news("refused", TELL_AGAIN)
