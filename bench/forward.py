"""Forwarders side by side, in one run on one machine: `make bench`.

    python bench/forward.py [--lines "ssh -L; tunnel-rs"] [--bytes 1000000000] [--quick]

Speed in Mbit/s, CPU seconds per GB (10^9 bytes) of payload on each side (A: the local port's, B:
the target's, each held to a core of its own), round trips of 64 bytes, the time from connect to
the first answer on a new connection, memory before and after the bulk transfers, and whether a
half-close survives. Compare lines of one run only: another day is another machine.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report, traffic
from bench.lines import LINES, Line
from bench.processes import BenchError, Program, Usage, python, usage

GB = 1_000_000_000
WARM_UP = 20_000_000
LONGEST = 30.0
"""Seconds of bulk transfer each way for the lines of others; ours always move everything."""


@dataclass(frozen=True)
class Bulk:
    """One bulk transfer. CPU in seconds per GB."""

    bytes: int
    mbit_per_second: float
    cpu_client: float
    cpu_server: float


@dataclass(frozen=True)
class Figures:
    """Everything measured on one line. Times in seconds, memory in bytes."""

    line: str
    up: Bulk
    down: Bulk
    round_trip: traffic.Times
    new_connection: traffic.Times
    half_close_kept: bool
    rss_before: tuple[int, int]
    rss_after: tuple[int, int]


def measure(name: str, line: Line, amount: int, quick: bool) -> Figures:
    speed = WARM_UP / traffic.upload(line.port, WARM_UP)
    traffic.download(line.port, WARM_UP)
    if not name.startswith("tunnel-rs"):
        amount = min(amount, max(int(speed * LONGEST), WARM_UP))
    before = sides(line)
    up = bulk(line, amount, traffic.upload)
    down = bulk(line, amount, traffic.download)
    after = sides(line)
    trips = traffic.round_trips(line.port, 300 if quick else 3000)
    connections = traffic.new_connections(line.port, 30 if quick else 200)
    kept = traffic.half_close(line.port, 5_000_000)
    line.settle()
    return Figures(
        line=name,
        up=up,
        down=down,
        round_trip=trips,
        new_connection=connections,
        half_close_kept=kept,
        rss_before=(before[0].rss, before[1].rss),
        rss_after=(after[0].rss, after[1].rss),
    )


def sides(line: Line) -> tuple[Usage, Usage]:
    return usage(line.client), usage(line.server)


def bulk(line: Line, amount: int, transfer: Callable[[int, int], float]) -> Bulk:
    before = sides(line)
    seconds = transfer(line.port, amount)
    after = sides(line)
    return Bulk(
        bytes=amount,
        mbit_per_second=amount * 8 / seconds / 1e6,
        cpu_client=(after[0].cpu - before[0].cpu) * GB / amount,
        cpu_server=(after[1].cpu - before[1].cpu) * GB / amount,
    )


HEADER = (
    *("line", "up Mbit/s", "CPU A / B s/GB", "down Mbit/s", "CPU A / B s/GB"),
    *("64 B p50 / p99 us", "new conn p50 / p99 ms", "RSS A before -> after MB"),
    *("RSS B before -> after MB", "GB each way", "half-close"),
)


def row(figures: Figures) -> list[str]:
    def cpu(bulk: Bulk) -> str:
        return f"{bulk.cpu_client:.1f} / {bulk.cpu_server:.1f}"

    def times(times: traffic.Times, scale: float, digits: int) -> str:
        return f"{times.p50 * scale:.{digits}f} / {times.p99 * scale:.{digits}f}"

    def memory(side: int) -> str:
        return f"{figures.rss_before[side] / 1e6:.1f} -> {figures.rss_after[side] / 1e6:.1f}"

    return [
        figures.line,
        f"{figures.up.mbit_per_second:.0f}",
        cpu(figures.up),
        f"{figures.down.mbit_per_second:.0f}",
        cpu(figures.down),
        times(figures.round_trip, 1e6, 0),
        times(figures.new_connection, 1e3, 2),
        memory(0),
        memory(1),
        f"{figures.up.bytes / GB:.2f}",
        "kept" if figures.half_close_kept else "LOST",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", help=f"some of: {'; '.join(LINES)}")
    parser.add_argument("--bytes", type=int, default=GB, help="payload each way (default 10^9)")
    parser.add_argument("--quick", action="store_true", help="50 MB and a tenth of the rest")
    given = parser.parse_args()
    names = [name.strip() for name in given.lines.split(";")] if given.lines else list(LINES)
    if unknown := [name for name in names if name not in LINES]:
        parser.error(f"no such line: {', '.join(unknown)}")
    amount = min(given.bytes, 50_000_000) if given.quick else given.bytes
    done: list[Figures] = []
    failed = False
    with Program(python(Path(traffic.__file__))) as target:
        port = int(target.wait_for("port ").rpartition(" ")[2])
        for name in names:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                with LINES[name](port) as line:
                    done.append(measure(name, line, amount, given.quick))
            except (BenchError, OSError, EOFError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
    if done:
        report.print_table(HEADER, [row(figures) for figures in done])
        print(f"\n{report.save('forward', [asdict(figures) for figures in done])}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
