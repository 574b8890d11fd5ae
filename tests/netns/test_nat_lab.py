"""`tunnel-rs-ice` through NATs. The whole matrix is printed by `make natmatrix`."""

from collections.abc import Iterator

import pytest
from tests.netns.nat_lab import TURN_TCP, TURN_UDP, Nat, NatLab, missing, nat_lab

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


@pytest.mark.parametrize("nat", [Nat.OPEN, Nat.RESTRICTED])
def test_an_emulated_original_as_client_is_served(lab: NatLab, nat: Nat) -> None:
    for side in "AB":
        lab.set_nat(side, nat)
    assert lab.with_original_client()


@pytest.mark.parametrize("nat", [Nat.OPEN, Nat.RESTRICTED])
def test_an_emulated_original_as_server_is_used(lab: NatLab, nat: Nat) -> None:
    for side in "AB":
        lab.set_nat(side, nat)
    assert lab.with_original_server()
