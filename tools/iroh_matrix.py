"""Print how `tunnel-rs` and real iroh reach each other for every pair of NATs, in both roles, how
long it takes until they do so directly, and what the relay carries before.

Run it as root from the top of the repository: `make irohmatrix`. It takes some 5 minutes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.netns.iroh_lab import IrohLab, IrohMet, iroh_lab
from tests.netns.path_lab import Nat, missing
from tools.path_matrix import KINDS, WITHIN, is_possible, name


def cell(met: IrohMet, mine: Nat, theirs: Nat) -> tuple[str, bool]:
    """What to print, and whether it is as it must be."""
    good = met.is_as_it_must_be("direct" if is_possible(mine, theirs) else "relay")
    text = met.kind
    if met.direct_after is not None:
        text += f", {met.direct_after:.2f} s, {met.relayed_before / 1000:.0f} kB"
    if not good:
        print(f"we {mine}, iroh {theirs}: {met.text}", file=sys.stderr)
    return text if good else f"**{text}**", good


def matrix(lab: IrohLab, *, iroh_dials: bool) -> bool:
    """One table: rows are our NAT, columns iroh's. Whether all is as it must be."""
    who = "our server \\ iroh's client" if iroh_dials else "our client \\ iroh's server"
    print(f"| {who} | " + " | ".join(map(name, KINDS)) + " |")
    print("|---" * (len(KINDS) + 1) + "|", flush=True)
    all_good = True
    for mine in KINDS:
        cells = []
        for theirs in KINDS:
            within = WITHIN if is_possible(mine, theirs) else 3.0
            met = lab.meet(mine, theirs, iroh_dials=iroh_dials, within=within)
            text, good = cell(met, mine, theirs)
            cells.append(text)
            all_good &= good
        print(f"| **{name(mine)}** | " + " | ".join(cells) + " |", flush=True)
    print()
    return all_good


def main() -> int:
    why = missing()
    if why:
        print(f"no lab here: {why}", file=sys.stderr)
        return 1
    with iroh_lab() as lab:
        good = matrix(lab, iroh_dials=False)
        good &= matrix(lab, iroh_dials=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
