"""Tests of `tunnel_rs.vpn.session`; `vpn.test_switch` has it at work."""

from ipaddress import ip_network

import pytest
from tests.support.ip_packets import packed

from tunnel_rs.vpn import session as module
from tunnel_rs.vpn.session import DestinationPolicy, why_not
from tunnel_rs.vpn.settings import Spoofing

OWN = (packed("10.7.0.2"), packed("fd07::2"))


def test_without_a_list_everything_is_allowed_and_with_an_empty_one_nothing() -> None:
    assert DestinationPolicy(None).allows(packed("192.0.2.1"))
    assert not DestinationPolicy(()).allows(packed("192.0.2.1"))


def test_both_families_are_judged_apart() -> None:
    policy = DestinationPolicy((ip_network("0.0.0.0/0"),))
    assert policy.allows(packed("192.0.2.1"))
    assert not policy.allows(packed("fd00::1"))


def test_what_is_remembered_is_bounded_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_JUDGED", 3)
    policy = DestinationPolicy((ip_network("10.0.0.0/30"),))
    for _ in range(2):
        judged = [policy.allows(packed(f"10.0.0.{number}")) for number in range(8)]
        assert judged == [True] * 4 + [False] * 4
    assert len(policy._judged) <= 3


@pytest.mark.parametrize(
    ("source", "taken", "spoofing", "reason"),
    [
        ("10.7.0.2", False, Spoofing.STRICT, None),
        ("fd07::2", True, Spoofing.STRICT, None),
        ("10.7.0.3", False, Spoofing.STRICT, "spoofed"),
        ("10.7.0.3", False, Spoofing.LOOSE, None),
        ("10.7.0.3", True, Spoofing.LOOSE, "spoofed"),
        ("224.0.0.1", False, Spoofing.LOOSE, "spoofed"),
        ("fe80::1", False, Spoofing.LOOSE, "link-local"),
        ("fe80::1", True, Spoofing.OFF, None),
    ],
)
def test_why_a_source_is_refused(
    source: str, taken: bool, spoofing: Spoofing, reason: str | None
) -> None:
    assert why_not(packed(source), OWN, taken, spoofing) == reason
