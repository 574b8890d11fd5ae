"""Print how `tunnel-rs-ice` connects for every pair of NATs, with and without TURN.

Run it as root from the top of the repository: `make natmatrix`. It takes some minutes.
"""

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.netns.nat_lab import (
    STUN6,
    TURN_TCP,
    TURN_UDP,
    Nat,
    NatLab,
    Outcome,
    missing,
    nat_lab,
)

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


def other_cells(lab: NatLab) -> None:
    """TURN on the other side, blocked UDP on both, IPv6 alone, many interfaces."""
    for mine, theirs in ((Nat.RESTRICTED, Nat.SYMMETRIC), (Nat.SYMMETRIC, Nat.SYMMETRIC)):
        lab.set_nat("A", mine)
        lab.set_nat("B", theirs)
        outcome = lab.tunnel(server=("--turn-server", TURN_UDP))
        say(f"client {mine}, server {theirs}, TURN on the server's side", outcome)
    for side in "AB":
        lab.set_nat(side, Nat.NO_UDP)
    turn = ("--turn-server", TURN_TCP)
    say("no UDP on either side, TURN over TCP on both", lab.tunnel(client=turn, server=turn))
    with lab.ipv6_only():
        say("IPv6 only, behind firewalls", lab.tunnel(stun=STUN6))
    for side in "AB":
        lab.set_nat(side, Nat.RESTRICTED)
    with lab.more_interfaces():
        say("two more interfaces that lead nowhere, port-restricted", lab.tunnel())
    print()


def say(what: str, outcome: Outcome) -> None:
    seconds = f", {outcome.seconds:.1f} s" if outcome.connected else ""
    print(f"- {what}: {outcome.kind}{seconds}", flush=True)


def originals(lab: NatLab) -> None:
    """The emulated original on either side, in both modes."""
    print("| original as | mode | same kind of place on both sides | works |")
    print("|---" * 4 + "|", flush=True)
    for mode, nat in product(("manual", "nostr"), (Nat.OPEN, Nat.RESTRICTED)):
        for side in "AB":
            lab.set_nat(side, nat)
        for role in ("client", "server"):
            session = lab.with_original_client if role == "client" else lab.with_original_server
            print(f"| {role} | {mode} | {nat} | {'yes' if session(mode) else 'no'} |", flush=True)
    print()


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
        print("\nOther cells:\n")
        other_cells(lab)
        print("The emulated original as the other end:\n")
        originals(lab)
    return 0


if __name__ == "__main__":
    sys.exit(main())
