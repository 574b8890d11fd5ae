"""Real iroh and `tunnel-rs` through NATs, in both roles (root, Linux). All pairs of NATs are in
`make pathmatrix`."""

from collections.abc import Iterator

import pytest
from tests.netns.path_lab import Nat, missing

pytest.importorskip("iroh", reason="needs iroh, which has no wheel for this platform")
from tests.netns.iroh_lab import IrohLab, iroh_lab

pytestmark = [
    pytest.mark.interop,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing() or "a lab is possible"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[IrohLab]:
    with iroh_lab() as one:
        yield one


@pytest.mark.parametrize(
    ("iroh_dials", "mine", "theirs", "kind"),
    [
        (False, Nat.RESTRICTED, Nat.RESTRICTED, "direct"),
        (True, Nat.RESTRICTED, Nat.RESTRICTED, "direct"),
        (True, Nat.SYMMETRIC, Nat.FULL_CONE, "direct"),
        (False, Nat.SYMMETRIC, Nat.SYMMETRIC, "relay"),
    ],
)
def test_iroh_and_we_meet(
    lab: IrohLab, iroh_dials: bool, mine: Nat, theirs: Nat, kind: str
) -> None:
    met = lab.meet(mine, theirs, iroh_dials=iroh_dials, within=15.0 if kind == "direct" else 1.0)
    assert met.is_as_it_must_be(kind), met
