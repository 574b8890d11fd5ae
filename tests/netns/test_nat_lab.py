"""`tunnel-rs-ice` through NATs. The whole matrix is printed by `make natmatrix`."""

import json
import time
from collections.abc import Iterator

import pytest
from tests.netns.nat_lab import STUN6, TURN_TCP, TURN_UDP, Nat, NatLab, end, missing, nat_lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(missing()), reason=missing() or "a lab is possible"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[NatLab]:
    with nat_lab() as one:
        yield one


@pytest.mark.parametrize(
    ("mine", "theirs", "options", "kind"),
    [
        (Nat.OPEN, Nat.RESTRICTED, (), "through NAT"),
        (Nat.RESTRICTED, Nat.RESTRICTED, (), "through NAT"),
        (Nat.FULL_CONE, Nat.SYMMETRIC, (), "through NAT"),
        (Nat.RESTRICTED, Nat.SYMMETRIC, (), "fails"),
        # With a relay at hand the direct way is used wherever there is one.
        (Nat.RESTRICTED, Nat.RESTRICTED, ("--turn-server", TURN_UDP), "through NAT"),
        (Nat.SYMMETRIC, Nat.SYMMETRIC, ("--turn-server", TURN_UDP), "relayed"),
        (Nat.NO_UDP, Nat.SYMMETRIC, ("--turn-server", TURN_TCP), "relayed"),
        (Nat.NO_UDP, Nat.OPEN, (), "fails"),
    ],
)
def test_two_of_us_meet(
    lab: NatLab, mine: Nat, theirs: Nat, options: tuple[str, ...], kind: str
) -> None:
    lab.set_nat("A", mine)
    lab.set_nat("B", theirs)
    outcome = lab.tunnel(client=options)
    assert outcome.kind == kind, outcome.output


def test_two_of_us_meet_over_ipv6_alone_through_firewalls(lab: NatLab) -> None:
    with lab.ipv6_only():
        outcome = lab.tunnel(stun=STUN6)
    assert outcome.kind == "direct" and "2001:db8:2::2" in outcome.way, outcome.output


def test_interfaces_that_lead_nowhere_do_no_harm(lab: NatLab) -> None:
    for side in "AB":
        lab.set_nat(side, Nat.RESTRICTED)
    with lab.more_interfaces():
        outcome = lab.tunnel()
    assert outcome.kind == "through NAT" and outcome.seconds < 5, outcome.output


ORIGINAL = [
    ("manual", Nat.OPEN),
    ("manual", Nat.RESTRICTED),
    ("nostr", Nat.RESTRICTED),
]


@pytest.mark.parametrize(("mode", "nat"), ORIGINAL)
def test_an_emulated_original_as_client_is_served(lab: NatLab, mode: str, nat: Nat) -> None:
    for side in "AB":
        lab.set_nat(side, nat)
    assert lab.with_original_client(mode)


@pytest.mark.parametrize(("mode", "nat"), ORIGINAL)
def test_an_emulated_original_as_server_is_used(lab: NatLab, mode: str, nat: Nat) -> None:
    for side in "AB":
        lab.set_nat(side, nat)
    assert lab.with_original_server(mode)


def test_a_dead_path_is_noticed_within_10_s_and_nostr_makes_a_new_session(lab: NatLab) -> None:
    for side in "AB":
        lab.set_nat(side, Nat.RESTRICTED)
    serving = lab.serve("nostr")
    client = lab.nostr_client("-t", "127.0.0.1:0")

    def next_event(name: str) -> float:
        assert client.stdout is not None
        for line in client.stdout:
            if json.loads(line)["event"] == name:
                return time.monotonic()
        raise AssertionError(f"the client ended before {name}")

    next_event("tunnel_up")
    with lab.cut():
        began = time.monotonic()
        noticed = next_event("tunnel_lost") - began
    again = next_event("tunnel_up") - began
    end(client)
    end(serving)
    assert noticed < 10 and again < 25, (noticed, again)
