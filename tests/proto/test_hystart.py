"""RFC 9406, by its constants: 8 samples a round, a threshold of an eighth of the round trip
between 4 and 16 ms, 5 rounds of conservative slow start."""

import pytest

from tunnel_rs.proto.hystart import HyStart


def play_round(hystart: HyStart, rtt: float, samples: int = 8) -> bool:
    hystart.start_round()
    return any([hystart.sample(rtt) for _ in range(samples)])


def slowed(before: float, after: float) -> HyStart:
    hystart = HyStart()
    play_round(hystart, before)
    play_round(hystart, after)
    return hystart


@pytest.mark.parametrize(
    ("before", "after", "conservative"),
    [
        (0.010, 0.0139, False),
        (0.010, 0.0141, True),  # at least 4 ms
        (0.080, 0.0899, False),
        (0.080, 0.0901, True),  # an eighth
        (0.400, 0.4159, False),
        (0.400, 0.4161, True),  # at most 16 ms
    ],
)
def test_slow_start_becomes_conservative_when_the_round_trip_grows(
    before: float, after: float, conservative: bool
) -> None:
    assert slowed(before, after).growth == (0.25 if conservative else 1.0)


def test_fewer_than_eight_samples_decide_nothing() -> None:
    hystart = HyStart()
    play_round(hystart, 0.05)
    play_round(hystart, 0.5, samples=7)
    assert hystart.growth == 1.0


def test_one_slow_sample_decides_nothing() -> None:
    hystart = HyStart()
    play_round(hystart, 0.05)
    hystart.start_round()
    for rtt in (0.5, 0.5, 0.5, 0.05, 0.5, 0.5, 0.5, 0.5, 0.5):
        hystart.sample(rtt)
    assert hystart.growth == 1.0


def test_the_first_round_has_nothing_to_compare_with() -> None:
    hystart = HyStart()
    assert not play_round(hystart, 0.5, samples=50)
    assert hystart.growth == 1.0


def test_slow_start_ends_after_five_conservative_rounds() -> None:
    hystart = slowed(0.05, 0.08)
    assert [play_round(hystart, 0.08) for _ in range(5)] == [False] * 4 + [True]


def test_a_round_trip_that_shrinks_again_resumes_slow_start() -> None:
    hystart = slowed(0.05, 0.08)
    assert not play_round(hystart, 0.051)
    assert hystart.growth == 1.0
    for _ in range(10):
        assert not play_round(hystart, 0.051)
