"""Tests of `tunnel_rs.proto.happy_eyeballs`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.happy_eyeballs import ATTEMPT_DELAY, Race, order

IPS = st.lists(st.ip_addresses().map(str), unique=True, max_size=20)


@pytest.mark.parametrize(
    ("ips", "ordered"),
    [
        ([], []),
        (["192.0.2.1"], ["192.0.2.1"]),
        (["2001:db8::1", "2001:db8::2", "192.0.2.1"], ["2001:db8::1", "192.0.2.1", "2001:db8::2"]),
        (["192.0.2.1", "192.0.2.2", "2001:db8::1"], ["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
        (["::1", "127.0.0.1"], ["127.0.0.1", "::1"]),
        (["127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
        (["::1", "192.0.2.1"], ["::1", "192.0.2.1"]),
        (["::1"], ["::1"]),
    ],
)
def test_families_alternate_and_loopback_prefers_ipv4(ips: list[str], ordered: list[str]) -> None:
    assert order(ips) == ordered


@given(IPS)
def test_ordering_loses_nothing_and_keeps_the_order_within_a_family(ips: list[str]) -> None:
    ordered = order(ips)
    assert sorted(ordered) == sorted(ips)
    for v6 in (True, False):
        assert [ip for ip in ordered if (":" in ip) is v6] == [
            ip for ip in ips if (":" in ip) is v6
        ]


def test_attempts_start_one_delay_apart() -> None:
    race = Race(["2001:db8::1", "192.0.2.1", "192.0.2.2"])
    assert race.due(100.0) == ["2001:db8::1"]
    assert race.due(100.0) == []
    assert race.due(100.0 + ATTEMPT_DELAY - 0.01) == []
    assert race.due(100.0 + ATTEMPT_DELAY) == ["192.0.2.1"]
    assert race.due(200.0) == ["192.0.2.2"]
    assert not race.lost


def test_the_next_start_is_told_while_addresses_wait() -> None:
    race = Race(["192.0.2.1", "192.0.2.2"])
    race.due(100.0)
    assert race.next_start == 100.0 + ATTEMPT_DELAY
    race.failed("192.0.2.1", "refused", 100.1)
    assert race.next_start == 100.1


def test_there_is_no_next_start_once_every_address_has_been_named() -> None:
    race = Race(["192.0.2.1"])
    race.due(100.0)
    assert race.next_start is None


def test_a_failure_starts_the_next_attempt_at_once() -> None:
    race = Race(["192.0.2.1", "192.0.2.2"])
    race.due(10.0)
    race.failed("192.0.2.1", "refused", 10.01)
    assert race.due(10.01) == ["192.0.2.2"]
    race.failed("192.0.2.2", "unreachable", 10.02)
    assert race.lost
    assert race.failures == {"192.0.2.1": "refused", "192.0.2.2": "unreachable"}


def test_abandoning_names_the_running_and_the_waiting_addresses() -> None:
    race = Race(["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    race.due(0.0)
    race.failed("192.0.2.1", "refused", 0.1)
    race.due(0.1)
    race.abandon("no answer")
    assert race.lost
    assert race.failures == {
        "192.0.2.1": "refused",
        "192.0.2.2": "no answer",
        "192.0.2.3": "no answer",
    }


@given(IPS)
def test_every_address_is_started_exactly_once(ips: list[str]) -> None:
    race, now, started = Race(ips), 0.0, []
    while race.next_start is not None:
        now = max(now, race.next_start)
        started += race.due(now)
    assert started == order(ips)
