"""Token judgement and the penalties of those who guess."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.auth import EVERYBODY, MAX_SHOWN, FailurePenalties, token_accepted
from tunnel_rs.reports import Penalties, Penalty
from tunnel_rs.values import Secret

TOKENS = [Secret("iAAAAAAAAAAAAAAAAA"), Secret("iabcdefghijklmnopg"), Secret("iZ9-_.Z9-_.Z9-_.ZU")]


@pytest.mark.parametrize("token", TOKENS)
def test_each_of_the_tokens_is_accepted(token: Secret[str]) -> None:
    assert token_accepted(Secret(token.reveal()), TOKENS)


@pytest.mark.parametrize(
    "text", ["", "i", "iAAAAAAAAAAAAAAAAB", "iAAAAAAAAAAAAAAAAA ", "\u00e4", "\ud800", "x" * 16_000]
)
def test_anything_else_is_refused(text: str) -> None:
    assert not token_accepted(Secret(text), TOKENS)


def test_nothing_is_accepted_when_there_are_no_tokens() -> None:
    assert not token_accepted(Secret(""), [])


def test_every_token_is_compared_even_after_one_has_matched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def record(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", record)
    assert token_accepted(TOKENS[0], TOKENS)
    assert compared == [token.reveal().encode() for token in TOKENS]


@given(st.text(), st.lists(st.text(), max_size=3))
def test_judging_agrees_with_membership_and_never_fails(shown: str, accepted: list[str]) -> None:
    assert token_accepted(Secret(shown), [Secret(t) for t in accepted]) == (shown in accepted)


def test_a_stranger_is_welcome() -> None:
    assert FailurePenalties().penalty("192.0.2.1", 0.0) == 0.0


def test_two_mistakes_cost_nothing_and_the_third_is_served_until_it_has_run_off() -> None:
    penalties = FailurePenalties()
    for _ in range(2):
        penalties.failed("192.0.2.1", 100.0)
        assert penalties.penalty("192.0.2.1", 100.0) == 0.0
    penalties.failed("192.0.2.1", 100.0)
    assert penalties.penalty("192.0.2.1", 100.0) == 15.0
    assert penalties.penalty("192.0.2.1", 110.0) == 5.0
    assert penalties.penalty("192.0.2.1", 115.0) == 0.0
    assert len(penalties) == 0


def test_mistakes_far_apart_do_not_add_up() -> None:
    penalties = FailurePenalties()
    for failure in range(20):
        penalties.failed("192.0.2.1", failure * 5.0)
        assert penalties.penalty("192.0.2.1", failure * 5.0) == 0.0


def test_after_the_penalty_has_run_off_mistakes_count_from_the_beginning() -> None:
    penalties = FailurePenalties()
    for _ in range(3):
        penalties.failed("192.0.2.1", 0.0)
    penalties.failed("192.0.2.1", 15.0)
    assert penalties.penalty("192.0.2.1", 15.0) == 0.0


def test_the_penalty_never_exceeds_the_maximum() -> None:
    penalties = FailurePenalties(maximum=60.0, global_rate=1e9)
    for _ in range(1000):
        penalties.failed("192.0.2.1", 0.0)
    assert penalties.penalty("192.0.2.1", 0.0) == 60.0


def test_a_maximum_below_the_threshold_is_still_enforced() -> None:
    penalties = FailurePenalties(maximum=5.0)
    penalties.failed("192.0.2.1", 0.0)
    assert penalties.penalty("192.0.2.1", 0.0) == 5.0


@pytest.mark.parametrize(
    ("guilty", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("relay.example", "relay2.example", False),
        ("relay.example", "relay.example", True),
    ],
)
def test_what_counts_as_one_source(guilty: str, other: str, same: bool) -> None:
    penalties = FailurePenalties()
    for _ in range(3):
        penalties.failed(guilty, 0.0)
    assert penalties.penalty(guilty, 0.0) == 15.0
    assert penalties.penalty(other, 0.0) == (15.0 if same else 0.0)


def test_many_sources_are_slowed_together() -> None:
    penalties = FailurePenalties(global_rate=8.0, global_burst=20)
    for source in range(20):
        penalties.failed(f"198.51.100.{source}", 0.0)
        assert penalties.penalty("192.0.2.1", 0.0) == 0.0
    for source in range(4):
        penalties.failed(f"203.0.113.{source}", 0.0)
    assert penalties.penalty("192.0.2.1", 0.0) == 0.5
    assert penalties.penalty("192.0.2.1", 0.5) == 0.0


def test_the_wait_for_all_sources_is_bounded_too() -> None:
    penalties = FailurePenalties(maximum=60.0, global_rate=1.0, global_burst=1)
    for source in range(1000):
        penalties.failed(f"198.51.{source // 250}.{source % 250}", 0.0)
    assert penalties.penalty("192.0.2.1", 0.0) == pytest.approx(60.0)


def test_a_proven_source_is_not_held_back_by_the_failures_of_others() -> None:
    penalties = FailurePenalties(global_rate=1.0, global_burst=1)
    penalties.succeeded("192.0.2.1")
    for source in range(100):
        penalties.failed(f"198.51.100.{source}", 0.0)
    assert penalties.penalty("192.0.2.2", 0.0) > 60.0
    assert penalties.penalty("192.0.2.1", 0.0) == 0.0


def test_a_proven_source_is_held_back_by_failures_of_its_own() -> None:
    penalties = FailurePenalties()
    for _ in range(3):
        penalties.failed("192.0.2.1", 0.0)
    penalties.succeeded("192.0.2.1")
    assert penalties.penalty("192.0.2.1", 0.0) == 15.0


def test_memory_is_bounded_however_many_sources_fail_or_succeed() -> None:
    penalties = FailurePenalties(max_sources=10)
    for source in range(1000):
        penalties.failed(f"198.51.{source // 250}.{source % 250}", float(source))
        penalties.succeeded(f"203.0.{source // 250}.{source % 250}")
        assert len(penalties) <= 20


def test_the_worst_offender_is_not_forgotten_to_make_room() -> None:
    penalties = FailurePenalties(max_sources=8, global_rate=1e9)
    for _ in range(50):
        penalties.failed("192.0.2.1", 0.0)
    for source in range(200):
        penalties.failed(f"198.51.100.{source}", 1.0)
    assert penalties.penalty("192.0.2.1", 1.0) == 249.0


def test_a_long_name_of_a_source_is_not_kept_whole() -> None:
    penalties = FailurePenalties()
    for tail in "abc":
        penalties.failed("x" * 64 + tail, 0.0)
    assert penalties.penalty("x" * 64, 0.0) == 15.0


@given(
    st.lists(st.tuples(st.sampled_from(["a", "192.0.2.1", "::1"]), st.floats(0, 1000)), max_size=40)
)
def test_a_penalty_is_never_negative_nor_above_the_maximum(steps: list[tuple[str, float]]) -> None:
    penalties = FailurePenalties(maximum=50.0, threshold=5.0, max_sources=2)
    for source, now in sorted(steps, key=lambda step: step[1]):
        penalties.failed(source, now)
        assert 0.0 <= penalties.penalty(source, now) <= 50.0


def test_who_has_to_wait_is_told_the_longest_first() -> None:
    penalties = FailurePenalties()
    assert penalties.penalties(0.0) == Penalties()
    for source, failures in (("192.0.2.1", 3), ("2001:db8::1", 5), ("192.0.2.3", 2)):
        for _ in range(failures):
            penalties.failed(source, 100.0)
    told = penalties.penalties(101.0)
    assert told == Penalties(2, (Penalty("2001:db8::/64", 24.0, 5), Penalty("192.0.2.1", 14.0, 3)))
    assert penalties.penalties(200.0) == Penalties()


def test_the_limit_over_all_sources_is_told_as_everybody_s() -> None:
    penalties = FailurePenalties(global_burst=10, global_rate=10.0)
    for number in range(15):
        penalties.failed(f"192.0.2.{number}", 100.0)
    assert penalties.penalties(100.0) == Penalties(1, (Penalty(EVERYBODY, 0.5, 15),))


def test_of_thousands_who_wait_only_some_are_named() -> None:
    penalties = FailurePenalties()
    for number in range(1000):
        for _ in range(3 + number % 7):
            penalties.failed(f"10.0.{number // 256}.{number % 256}", 100.0)
    told = penalties.penalties(100.0)
    assert told.sources == 1001
    assert len(told.longest) == MAX_SHOWN
    assert {penalty.failures for penalty in told.longest[1:]} == {9}


def test_three_mistakes_need_not_come_at_the_same_moment() -> None:
    penalties = FailurePenalties()
    for number in range(3):
        penalties.failed("192.0.2.1", 100.0 + 1.9 * number)
    assert penalties.penalty("192.0.2.1", 104.0) > 0
