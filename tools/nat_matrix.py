"""Print how `tunnel-rs-ice` connects for every pair of NATs, with and without TURN.

Run it as root from the top of the repository: `make natmatrix`. It takes some minutes.
"""

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.netns.nat_lab import TURN_TCP, TURN_UDP, Nat, NatLab, missing, nat_lab

KINDS = (Nat.OPEN, Nat.FULL_CONE, Nat.RESTRICTED, Nat.SYMMETRIC)


def table(lab: NatLab, options: Sequence[str]) -> None:
    """One table: rows are the client's NAT, columns the server's."""
    print("| client \\ server | " + " | ".join(KINDS) + " |")
    print("|---" * (len(KINDS) + 1) + "|", flush=True)
    for mine in KINDS:
        cells = []
        for theirs in KINDS:
            lab.set_nat("A", mine)
            lab.set_nat("B", theirs)
            outcome = lab.tunnel(client=options)
            cells.append(
                f"{outcome.kind}, {outcome.seconds:.1f} s" if outcome.connected else "fails"
            )
        print(f"| **{mine}** | " + " | ".join(cells) + " |", flush=True)
    print()


def blocked(lab: NatLab) -> None:
    """The client's network lets no UDP out; TURN over TCP helps."""
    lab.set_nat("A", Nat.NO_UDP)
    for theirs, turn in product(KINDS, ((), ("--turn-server", TURN_TCP))):
        lab.set_nat("B", theirs)
        outcome = lab.tunnel(client=turn)
        how = "TURN over TCP" if turn else "no TURN"
        print(f"- client without UDP, {how}; server {theirs}: {outcome.kind}", flush=True)


def main() -> int:
    why = missing()
    if why:
        print(f"no lab here: {why}", file=sys.stderr)
        return 1
    with nat_lab() as lab:
        print("Without TURN:\n")
        table(lab, ())
        print("With a TURN server (UDP) on the client's side:\n")
        table(lab, ("--turn-server", TURN_UDP))
        print("UDP blocked on the client's side:\n")
        blocked(lab)
    return 0


if __name__ == "__main__":
    sys.exit(main())
