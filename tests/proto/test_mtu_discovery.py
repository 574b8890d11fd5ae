"""Probing for the largest datagram (RFC 8899)."""

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.mtu_discovery import MIN_SIZE, MtuDiscovery


def search(discovery: MtuDiscovery, carries: int, now: float = 0.0) -> list[int]:
    """Probe on a path that carries `carries` bytes; the sizes tried."""
    tried = []
    while (size := discovery.next_probe(now)) is not None:
        tried.append(size)
        assert discovery.next_probe(now) is None, "one probe at a time"
        if size <= carries:
            discovery.acknowledged(size)
        else:
            discovery.lost(size)
        assert len(tried) < 100
    return tried


def test_the_largest_is_tried_first() -> None:
    discovery = MtuDiscovery(1452)
    assert search(discovery, 1500) == [1452]
    assert discovery.size == 1452


def test_a_size_is_given_up_after_three_losses() -> None:
    discovery = MtuDiscovery(1452)
    assert search(discovery, MIN_SIZE)[:3] == [1452] * 3
    assert discovery.size == MIN_SIZE


@given(upper=st.integers(0, 65_527), carries=st.integers(MIN_SIZE, 65_527))
def test_what_is_found_passes_and_is_near_the_most_that_does(upper: int, carries: int) -> None:
    discovery = MtuDiscovery(upper)
    tried = search(discovery, carries)
    best = max(MIN_SIZE, min(upper, carries))
    assert best - 41 <= discovery.size <= best
    assert all(MIN_SIZE < size <= upper for size in tried)


def test_nothing_is_probed_where_only_the_minimum_is_worth_it() -> None:
    for upper in (0, 1000, MIN_SIZE):
        discovery = MtuDiscovery(upper)
        assert discovery.next_probe(0.0) is None and discovery.size == MIN_SIZE


def test_what_failed_is_tried_again_after_ten_minutes() -> None:
    discovery = MtuDiscovery(1452)
    search(discovery, 1300, now=100.0)
    found = discovery.size
    assert discovery.next_probe(699.0) is None
    assert search(discovery, 1452, now=701.0) == [1452]
    assert found < discovery.size == 1452


def test_what_is_found_is_not_searched_again() -> None:
    discovery = MtuDiscovery(1452)
    search(discovery, 1452)
    assert discovery.next_probe(1e6) is None


def test_three_timeouts_in_a_row_take_the_size_back() -> None:
    discovery = MtuDiscovery(1452)
    search(discovery, 1452)
    assert not discovery.timed_out(2, 10.0)
    assert discovery.timed_out(3, 10.0) and discovery.size == MIN_SIZE
    assert not discovery.timed_out(4, 11.0)
    assert discovery.next_probe(600.0) is None
    assert search(discovery, 1452, now=611.0) and discovery.size == 1452


def test_news_of_probes_that_are_no_longer_asked_for_are_harmless() -> None:
    discovery = MtuDiscovery(1452)
    assert discovery.next_probe(0.0) == 1452
    discovery.lost(1300)
    assert not discovery.acknowledged(1100)
    assert discovery.next_probe(0.0) is None
    assert discovery.acknowledged(1452) and not discovery.acknowledged(1452)


def test_another_path_is_searched_anew() -> None:
    discovery = MtuDiscovery(1452)
    search(discovery, 1452)
    discovery.restart(9000)
    assert discovery.size == MIN_SIZE
    assert search(discovery, 9000) == [9000]
