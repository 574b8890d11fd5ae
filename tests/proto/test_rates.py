from tunnel_rs.proto.rates import HISTORY, Rates


def test_nothing_is_known_before_the_second_look() -> None:
    rates = Rates()
    assert rates.now is None and rates.of(1) is None
    rates.sample({1: (100, 200)}, (100, 200), 10.0)
    assert rates.now is None and rates.of(1) is None and not rates.history


def test_a_rate_is_what_has_moved_since_the_last_look() -> None:
    rates = Rates()
    rates.sample({1: (100, 200)}, (100, 200), 10.0)
    rates.sample({1: (300, 200), 2: (50, 0)}, (350, 200), 12.0)
    assert rates.of(1) == (100, 0)
    assert rates.of(2) == (25, 0), "it began since"
    assert rates.now == (125, 0)
    rates.sample({2: (50, 0)}, (350, 200), 14.0)
    assert rates.of(1) is None and rates.of(2) == (0, 0)
    assert list(rates.history) == [(125, 0)] * 2 + [(0, 0)] * 2, "an entry stands for a second"


def test_totals_that_go_back_are_no_negative_rate() -> None:
    rates = Rates()
    rates.sample({1: (100, 100)}, (100, 100), 0.0)
    rates.sample({1: (10, 110)}, (10, 110), 1.0)
    assert rates.of(1) == (0, 10)


def test_two_looks_at_the_same_time_are_no_measurement() -> None:
    rates = Rates()
    rates.sample({}, (0, 0), 1.0)
    rates.sample({}, (5, 0), 1.0)
    assert rates.now is None


def test_the_history_is_bounded() -> None:
    rates = Rates()
    for second in range(HISTORY + 10):
        rates.sample({}, (second, 0), float(second))
    assert len(rates.history) == HISTORY
    rates.sample({}, (10**6, 0), 1e6)
    assert len(rates.history) == HISTORY
