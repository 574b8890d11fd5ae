"""Which datagram sizes are probed, and what is made of the answers."""

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.mtu_discovery import MIN_SIZE, MtuDiscovery


def _search(path: int, upper: int) -> tuple[MtuDiscovery, list[int]]:
    """Probe a path that carries at most `path` bytes until nothing is left to try."""
    discovery, probes = MtuDiscovery(upper), []
    while (probe := discovery.next_probe(now=0.0)) is not None:
        probes.append(probe)
        if probe <= path:
            discovery.acknowledged(probe)
        else:
            discovery.lost(probe)
    return discovery, probes


def test_a_path_that_carries_everything_takes_one_probe() -> None:
    discovery, probes = _search(path=9000, upper=1452)
    assert (discovery.size, probes) == (1452, [1452])


def test_a_size_is_given_up_after_three_losses() -> None:
    _, probes = _search(path=1200, upper=1452)
    assert probes[:3] == [1452, 1452, 1452]
    assert probes[3] < 1452


@given(st.integers(MIN_SIZE, 20_000), st.integers(MIN_SIZE, 20_000))
def test_the_search_ends_close_below_what_the_path_carries(path: int, upper: int) -> None:
    discovery, probes = _search(path, upper)
    assert discovery.size <= min(path, upper)
    assert min(path, upper) - discovery.size < 40
    assert len(probes) < 60


def test_one_probe_is_under_way_at_a_time() -> None:
    discovery = MtuDiscovery(1452)
    assert discovery.next_probe(0.0) == 1452
    assert discovery.next_probe(0.0) is None


def test_nothing_is_probed_where_the_least_is_all_there_is() -> None:
    assert MtuDiscovery().next_probe(0.0) is None


def test_a_path_that_carried_less_is_tried_again_ten_minutes_later() -> None:
    discovery, _ = _search(path=1300, upper=1452)
    assert discovery.next_probe(599.0) is None
    assert discovery.next_probe(601.0) == 1452


def test_a_black_hole_takes_the_size_back() -> None:
    discovery, _ = _search(path=9000, upper=1452)
    assert not discovery.timed_out(2, now=5.0)
    assert discovery.size == 1452
    assert discovery.timed_out(3, now=5.0)
    assert discovery.size == MIN_SIZE
    assert not discovery.timed_out(4, now=6.0)
    assert discovery.next_probe(10.0) is None
    assert discovery.next_probe(606.0) == 1452


def test_late_answers_for_other_sizes_change_nothing() -> None:
    discovery = MtuDiscovery(1452)
    discovery.next_probe(0.0)
    discovery.lost(1300)
    assert not discovery.acknowledged(1200)
    assert discovery.size == MIN_SIZE
