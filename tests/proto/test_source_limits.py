import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.source_limits import SourceLimits, source_group


def test_a_source_may_burst_and_then_gets_its_rate() -> None:
    limits = SourceLimits(2.0, 3)
    assert [limits.allow("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limits.allow("b", 0.0)
    assert not limits.allow("a", 0.4)
    assert limits.allow("a", 0.6)
    assert not limits.allow("a", 0.6)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_no_more_is_ever_allowed_than_burst_and_rate(steps: list[float]) -> None:
    limits, now, allowed = SourceLimits(4.0, 8), 0.0, 0
    for step in steps:
        now += step
        allowed += limits.allow("a", now)
    assert allowed <= 8 + 4.0 * now + 1e-6


def test_the_table_is_bounded_and_keeps_those_that_are_limited() -> None:
    limits = SourceLimits(0.001, 1, max_sources=100)
    assert limits.allow("flooder", 0.0)
    for number in range(10_000):
        limits.allow(f"other {number}", 0.0)
        if number % 50 == 0:
            assert not limits.allow("flooder", 0.0)
    assert len(limits) == 100


@pytest.mark.parametrize(
    ("ip", "group"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_sources_are_counted_by_network(ip: str, group: str) -> None:
    assert source_group(ip) == group


def test_the_prefixes_can_be_chosen() -> None:
    assert source_group("192.0.2.7", ipv4_prefix=24) == "192.0.2.0/24"
    assert source_group("2001:db8:1:2::4", ipv6_prefix=56) == "2001:db8:1::/56"
