"""Print how `tunnel-rs` reaches its peer for every pair of NATs, and how long it is without a path
when networks change.

Run it as root from the top of the repository: `make pathmatrix`. It takes some 20 minutes.
"""

import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.netns.path_lab import Nat, PathLab, Reached, missing, path_lab

KINDS = (Nat.OPEN, Nat.FULL_CONE, Nat.RESTRICTED, Nat.SYMMETRIC)
NAMES = {Nat.FULL_CONE: "endpoint-independent"}
WITHIN = 15.0
"""Seconds in which a path that is possible must be direct."""

LONG_OUTAGE, LONG_SLEEP = 60.0, 600.0


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
    print()
    return all_good


def changes(lab: PathLab) -> bool:
    """One forwarded connection through everything that happens to networks."""
    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    print("| what happens | forwarded bytes are back after | then |\n|---|---|---|", flush=True)
    with lab.session() as session:
        session.direct(WITHIN)

        def row(what: str) -> None:
            took = session.echo_within(30.0)
            way = "direct" if session.direct(WITHIN) else "relay"
            print(f"| {what} | {took:.2f} s | {way} |", flush=True)

        for side, who in (("A", "client"), ("B", "server")):
            lab.lab.set_nat(side, Nat.NO_UDP)
            row(f"UDP blocked at the {who}")
            lab.lab.set_nat(side, Nat.RESTRICTED)
            row(f"UDP let through again at the {who}")
            lab.move(side)
            row(f"the {who} has another address")
            lab.lab.run(f"nat{side}", "ip link set wan down")
            time.sleep(LONG_OUTAGE)
            lab.lab.run(f"nat{side}", "ip link set wan up")
            row(f"no network at the {who} for {LONG_OUTAGE:g} s")
        for seconds in (60.0, 240.0):
            session.client.process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            session.client.process.send_signal(signal.SIGCONT)
            row(f"the client stopped for {seconds:g} s")
    return sleep(lab)


def sleep(lab: PathLab) -> bool:
    """Longer than the idle timeout, so that the link is lost: how soon there is another."""
    with lab.session() as session:
        session.client.process.send_signal(signal.SIGSTOP)
        time.sleep(LONG_SLEEP)
        session.client.process.send_signal(signal.SIGCONT)
        began = time.monotonic()
        up = session.client.next("tunnel_up", 30.0)
        took = "never" if up is None else f"{up[0] - began:.2f} s"
        print(f"| the client stopped for {LONG_SLEEP:g} s | {took} | a new link |\n", flush=True)
        return up is not None


def main() -> int:
    why = missing()
    if why:
        print(f"no lab here: {why}", file=sys.stderr)
        return 1
    with path_lab() as lab:
        good = matrix(lab)
        if "--no-changes" not in sys.argv:
            good &= changes(lab)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
