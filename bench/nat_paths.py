"""How soon a tunnel is direct, what the relay carried before, and what several paths cost.

    python bench/nat_paths.py [--times 5] [--megabytes 100]

Needs root, for it runs in the NAT lab of the tests: both ends behind port-restricted NATs, and a
relay of our own between. Throughput is of bytes that go to an echo service and come back. Single
path: the same two programs without NATs, with and without multipath, in turns; medians.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from bench import report
from bench.processes import usage
from tests.netns.path_lab import Nat, PathLab, Session, missing, path_lab

MOST_CPU = 1.15
"""Processor time with several paths, as a multiple of that with one."""


@dataclass(frozen=True)
class Meeting:
    """One tunnel through two NATs. Seconds and bytes."""

    up: float
    direct: float
    relayed: int


@dataclass(frozen=True)
class Load:
    """Payload there and back over one tunnel: bytes per second, processor seconds per GB."""

    rate: float
    cpu: float


def meet(lab: PathLab) -> Meeting:
    with lab.session() as session:
        direct = session.direct(15.0)
        assert direct is not None, session.text
        carried = lab.relayed()
        up = float(session.up[1]["elapsed"])
        return Meeting(up, up + max(0.0, direct - session.up[0]), carried)


def load(session: Session, size: int) -> Load:
    pids = [session.client.process.pid, session.server.process.pid]
    before, began = usage(pids).cpu, time.monotonic()
    there_and_back(session, size)
    seconds = time.monotonic() - began
    return Load(size / seconds, (usage(pids).cpu - before) / (2 * size / 1e9))


def there_and_back(session: Session, size: int) -> None:
    piece = bytes(1 << 20)

    def send() -> None:
        for _ in range(size // len(piece)):
            session.sock.sendall(piece)

    session.sock.settimeout(60)
    sender = threading.Thread(target=send)
    sender.start()
    left = size // len(piece) * len(piece)
    while left:
        got = len(session.sock.recv(1 << 20))
        assert got, "the tunnel ended"
        left -= got
    sender.join()


def tunnel(lab: PathLab, size: int, *options: str) -> Load:
    with lab.session(*options) as session:
        session.direct(15.0)
        load(session, size // 4)  # find the path's size and speed first
        return load(session, size)


def middle(loads: Sequence[Load]) -> Load:
    return Load(median(each.rate for each in loads), median(each.cpu for each in loads))


def single_path(lab: PathLab) -> Sequence[str]:
    """Options of a client that does without several paths."""
    file = lab.directory / "single.toml"
    file.write_text('role = "client"\nmode = "iroh"\n[iroh.transport]\nmultipath = false\n')
    return "-c", str(file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    if why := missing():
        print(f"no lab here: {why}", file=sys.stderr)
        return 1
    size = options.megabytes << 20
    with path_lab() as lab:
        for side in "AB":
            lab.lab.set_nat(side, Nat.RESTRICTED)
        start = lab.relayed()
        meetings = []
        for _ in range(options.times):
            met = meet(lab)
            meetings.append(Meeting(met.up, met.direct, met.relayed - start))
            start = lab.relayed()
        through = tunnel(lab, size)
        for side in "AB":
            lab.lab.set_nat(side, Nat.OPEN)
        single_options = single_path(lab)
        loads = [
            (tunnel(lab, size), tunnel(lab, size, *single_options)) for _ in range(options.times)
        ]
    several, single = (middle(each) for each in zip(*loads, strict=True))
    ratio = several.cpu / single.cpu
    report.print_table(
        ["figure", "value"],
        [
            ["tunnel up (median)", f"{median(each.up for each in meetings) * 1000:.0f} ms"],
            ["direct (median)", f"{median(each.direct for each in meetings) * 1000:.0f} ms"],
            ["direct (slowest)", f"{max(each.direct for each in meetings) * 1000:.0f} ms"],
            ["relay before that", f"{median(each.relayed for each in meetings):.0f} bytes"],
            ["through two NATs", f"{through.rate * 8e-6:.0f} Mbit/s, {through.cpu:.1f} s/GB"],
            ["without NATs", f"{several.rate * 8e-6:.0f} Mbit/s, {several.cpu:.1f} s/GB"],
            ["the same, one path", f"{single.rate * 8e-6:.0f} Mbit/s, {single.cpu:.1f} s/GB"],
            ["processor time, several to one", f"{ratio:.2f}"],
        ],
    )
    figures = {
        "meetings": [asdict(each) for each in meetings],
        "through_nats": asdict(through),
        "several": [asdict(each) for each, _ in loads],
        "single": [asdict(each) for _, each in loads],
    }
    print(f"\n{report.save('nat-paths', figures)}")
    return 0 if ratio <= MOST_CPU else 1


if __name__ == "__main__":
    sys.exit(main())
