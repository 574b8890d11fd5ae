"""Print how `tunnel-rs` reaches its peer for every pair of NATs, how long it is without a path when
networks change, and what it makes of bad links.

Run it as root from the top of the repository: `make pathmatrix`. It takes some 35 minutes; with
names of tables (`ARGS="links outages"`) it prints those only.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.netns import path_changes as changes
from tests.netns import path_links
from tests.netns.path_changes import Step
from tests.netns.path_lab import Nat, PathLab, Reached, missing, path_lab
from tests.netns.path_links import Crossed
from tests.support.link_quality import QUALITIES
from tools import path_stops

KINDS = (Nat.OPEN, Nat.FULL_CONE, Nat.RESTRICTED, Nat.SYMMETRIC)
NAMES = {Nat.FULL_CONE: "endpoint-independent"}
WITHIN = 15.0
"""Seconds in which a path that is possible must be direct."""


def name(kind: Nat) -> str:
    return NAMES.get(kind, kind)


def is_possible(mine: Nat, theirs: Nat) -> bool:
    """Whether any program could get a direct path: a symmetric NAT needs somebody to answer from
    an address that it has not sent to."""
    pair = {mine, theirs}
    return Nat.NO_UDP not in pair and pair not in (
        {Nat.SYMMETRIC},
        {Nat.SYMMETRIC, Nat.RESTRICTED},
    )


def cell(reached: Reached, mine: Nat, theirs: Nat) -> tuple[str, bool]:
    """What to print, and whether it is as it must be."""
    good = reached.kind == ("direct" if is_possible(mine, theirs) else "relay")
    good = good and reached.echoes == 2
    text = reached.kind
    if reached.direct_after is not None:
        text += f", {reached.direct_after:.1f} s"
    return text if good else f"**{text}**", good


def matrix(lab: PathLab) -> bool:
    """One table: rows are the client's NAT, columns the server's. Whether all is as it must be."""
    print("| client \\ server | " + " | ".join(map(name, KINDS)) + " |")
    print("|---" * (len(KINDS) + 1) + "|", flush=True)
    all_good = True
    for mine in (*KINDS, Nat.NO_UDP):
        cells = []
        for theirs in KINDS:
            lab.lab.set_nat("A", mine)
            lab.lab.set_nat("B", theirs)
            wait = WITHIN if is_possible(mine, theirs) else 3.0
            text, good = cell(lab.reach(within=wait), mine, theirs)
            cells.append(text)
            all_good &= good
        print(f"| **{name(mine)}** | " + " | ".join(cells) + " |", flush=True)
    return all_good


def show(steps: Iterable[Step | Crossed]) -> bool:
    """One row a step. Whether all is as it must be."""
    all_good = True
    for step in steps:
        print(step.row, flush=True)
        if not step.is_good:
            all_good = False
            print(step.problem, file=sys.stderr)
    return all_good


def uplinks() -> bool:
    with path_lab(ipv6=True) as lab:
        print(changes.HEADING, flush=True)
        combinations = [(side, other) for side in "AB" for other in ("46", "4", "6")]
        return all([show(changes.tour(lab, side, other)) for side, other in combinations])


def networks() -> bool:
    """What else happens to networks."""
    with path_lab() as lab:
        print(changes.HEADING, flush=True)
        good = show(changes.moves(lab))
        for sides in changes.BLOCKED:
            good &= show(changes.udp_comes_and_goes(lab, sides))
            good &= show(changes.udp_comes_and_goes(lab, sides, from_start=False))
        good &= show(changes.relay_restarts(lab, "--relay-only", away=12.0))
        return show(changes.relay_restarts(lab, away=12.0)) and good


def links() -> bool:
    with path_lab() as lab:
        print(path_links.HEADING, flush=True)
        return show(path_links.cross(lab, quality) for quality in QUALITIES)


def nats() -> bool:
    with path_lab() as lab:
        return matrix(lab)


def outages() -> bool:
    return path_stops.stops(path_stops.OUTAGES, lambda text: print(text, flush=True))


TABLES = {
    "nats": nats,
    "uplinks": uplinks,
    "networks": networks,
    "links": links,
    "outages": outages,
}


def main() -> int:
    why = missing()
    if why:
        print(f"no lab here: {why}", file=sys.stderr)
        return 1
    wanted = sys.argv[1:] or list(TABLES)
    if unknown := set(wanted) - set(TABLES):
        print(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}", file=sys.stderr)
        return 2
    all_good = True
    for name in wanted:
        all_good &= TABLES[name]()
        print(flush=True)
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
