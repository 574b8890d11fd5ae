"""The choice of the home relay."""

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.home_relay import MEMORY, HomeRelayChoice, next_report_delay

A, B, C = "https://a/", "https://b/", "https://c/"


def test_the_nearest_relay_that_answered_is_home() -> None:
    choice = HomeRelayChoice((A, B, C))
    assert choice.home is None
    assert choice.measured({A: 0.15, B: 0.02, C: None}, 0.0) == B


def test_the_home_is_kept_unless_another_is_clearly_nearer() -> None:
    choice = HomeRelayChoice((A, B))
    choice.measured({A: 0.030, B: 0.100}, 0.0)
    assert choice.measured({A: 0.030, B: 0.021}, 25.0) == A
    assert choice.measured({A: 0.030, B: 0.019}, 50.0) == B


def test_the_best_of_five_minutes_is_what_counts() -> None:
    choice = HomeRelayChoice((A, B))
    choice.measured({A: 0.010, B: 0.100}, 0.0)
    assert choice.measured({A: 0.100, B: 0.060}, 20.0) == A, "A was at 10 ms not long ago"
    later = MEMORY + 21.0
    assert choice.measured({A: 0.100, B: 0.060}, later) == B, "now that is forgotten"


def test_a_home_that_does_not_answer_gives_way_to_one_that_does() -> None:
    choice = HomeRelayChoice((A, B))
    choice.measured({A: 0.01, B: 0.5}, 0.0)
    assert choice.measured({A: None, B: 0.5}, 25.0) == B


def test_when_nobody_answers_the_home_stays() -> None:
    choice = HomeRelayChoice((A, B))
    choice.measured({A: 0.01, B: 0.5}, 0.0)
    assert choice.measured({A: None, B: None}, 25.0) == A


def test_a_broken_home_is_left_at_once_for_the_nearest_other() -> None:
    choice = HomeRelayChoice((A, B, C))
    choice.measured({A: 0.01, B: 0.5, C: 0.3}, 0.0)
    assert choice.lost(A) == C
    assert choice.lost(C) == B
    assert choice.lost(B) == B, "there is no other left"
    assert choice.connected(C) == C, "the first that can be reached again takes over"
    assert choice.connected(A) == C


def test_a_failed_relay_is_a_candidate_again_once_it_answers() -> None:
    choice = HomeRelayChoice((A, B))
    choice.measured({A: 0.01, B: 0.5}, 0.0)
    choice.lost(A)
    assert choice.measured({A: 0.01, B: 0.5}, 25.0) == A


def test_a_relay_that_is_not_ours_never_becomes_home() -> None:
    choice = HomeRelayChoice((A,))
    assert choice.measured({"https://evil/": 0.001}, 0.0) is None
    assert choice.connected("https://evil/") is None
    assert choice.lost("https://evil/") == A, "without any measurement the first named is home"


@given(st.floats(0, 0.999))
def test_reports_come_every_20_to_26_seconds(random: float) -> None:
    assert 20 <= next_report_delay(lambda: random) < 26


@given(
    st.lists(
        st.dictionaries(st.sampled_from([A, B, C]), st.none() | st.floats(0.001, 2)), max_size=30
    )
)
def test_the_home_always_answered_or_stayed(reports: list[dict[str, float | None]]) -> None:
    choice = HomeRelayChoice((A, B, C))
    for number, report in enumerate(reports):
        before = choice.home
        home = choice.measured(report, number * 23.0)
        answered = {url for url, latency in report.items() if latency is not None}
        assert home in answered if answered else home == before
