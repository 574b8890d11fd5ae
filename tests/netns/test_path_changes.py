"""One forwarded connection while uplinks change between IPv4 and IPv6, UDP is blocked and let
through, and the relay restarts (root, Linux). All that there is, is in `make pathmatrix`."""

from collections.abc import Iterable, Iterator

import pytest
from tests.netns.path_changes import Step, relay_restarts, tour, udp_comes_and_goes
from tests.netns.path_lab import PathLab, missing, path_lab
from tests.netns.path_links import cross
from tests.support.link_quality import QUALITIES

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing() or "a lab is possible"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[PathLab]:
    with path_lab() as one:
        yield one


def hold(steps: Iterable[Step]) -> None:
    for step in steps:
        assert step.is_good, f"{step.row}\n{step.problem}"


@pytest.mark.parametrize("side", ["A", "B"], ids=["client", "server"])
def test_an_uplink_changes_between_ipv4_and_ipv6(side: str) -> None:
    with path_lab(ipv6=True) as lab:
        hold(tour(lab, side, "46", ("46", "4", "6", "46")))


def test_udp_is_blocked_on_both_sides_for_a_while(lab: PathLab) -> None:
    hold(udp_comes_and_goes(lab, "AB", from_start=False, seconds=8.0))


def test_the_relay_restarts_beside_a_direct_path(lab: PathLab) -> None:
    hold(relay_restarts(lab, away=0.0))


@pytest.mark.parametrize("quality", [QUALITIES[3], QUALITIES[-1]], ids=lambda each: each.text)
def test_a_transfer_over_a_bad_link(lab: PathLab, quality: object) -> None:
    crossed = cross(lab, quality)
    assert crossed.is_good, f"{crossed.row}\n{crossed.problem}"
