"""VPNs side by side, between two network namespaces of this machine (Linux, root, iperf3).

    python bench/vpn.py [--lines "tunnel-rs-vpn; wireguard-go"] [--seconds 5] [--tools ~/go/bin]
    python bench/vpn.py --gigabytes 10 --lines tunnel-rs-vpn

iperf3 TCP to the server's side and back, UDP at a fixed rate, and pings meanwhile; CPU seconds of
the VPN's own processes per GB (10^9 bytes) of payload, each side held to a core of its own.
`ratio` is the TCP speed over that of our TCP forwarding in the same run. Of several runs, each over
all lines, the medians are shown. With --gigabytes: so much through each line, and how its processes
have grown. Compare lines of one table only.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report
from bench.processes import PATH, BenchError, Program, usage
from bench.traffic import Times
from bench.vpn_lines import CLIENT, LINES, PORT, SERVER, Line, Places, SkippedError

GB = 1_000_000_000
WARM_UP_BYTES = 50_000_000
REFERENCE = "tunnel-rs, TCP forwarding"
PING_INTERVAL = 0.02
UDP_PAYLOAD = 1372
"""Bytes of a UDP datagram that no VPN here has to cut up."""


@dataclass(frozen=True)
class Pings:
    """Round trips that were answered, and the share of those that were not."""

    times: Times
    lost: float


@dataclass(frozen=True)
class Transfer:
    """One iperf3 run. CPU in seconds per GB."""

    mbit_per_second: float
    cpu_client: float
    cpu_server: float
    lost: float = 0.0
    """The share of UDP datagrams that did not arrive."""

    pings: Pings | None = None
    """Those sent meanwhile."""


@dataclass(frozen=True)
class Figures:
    """Everything measured on one line."""

    line: str
    up: Transfer
    down: Transfer
    udp: Transfer | None
    idle: Pings | None


@dataclass(frozen=True)
class Growth:
    """Resident bytes of both sides before and after a long transfer."""

    line: str
    transfer: Transfer
    before: tuple[int, int]
    after: tuple[int, int]


class Bench:
    """What is done on every line."""

    def __init__(
        self, places: Places, *, seconds: int, udp_rate: int, options: tuple[str, ...]
    ) -> None:
        """`udp_rate` in Mbit/s; `options` of iperf3 for TCP."""
        self._places = places
        self._tcp = options
        self._amount = ("-t", str(seconds))
        self._udp = ("-u", "-b", f"{udp_rate}M", "-l", str(UDP_PAYLOAD))
        self._seconds = seconds

    def measure(self, name: str, line: Line) -> Figures:
        self._warm_up(line)
        figures = Figures(
            line=name,
            idle=self._pings_while(line, None)[1],
            up=self._transfer(line, *self._amount, *self._tcp),
            down=self._transfer(line, *self._amount, *self._tcp, "-R"),
            udp=self._transfer(line, *self._amount, *self._udp) if line.carries_ip else None,
        )
        _check(line)
        return figures

    def grow(self, name: str, line: Line, amount: int) -> Growth:
        """Move `amount` bytes each way, after a first part that fills buffers and caches."""
        for direction in ((), ("-R",)):
            self._iperf(line, "-n", str(4 * WARM_UP_BYTES), *direction)
        before = _memory(line)
        up = self._transfer(line, "-n", str(amount // 2), ping=False)
        self._transfer(line, "-n", str(amount // 2), "-R", ping=False)
        _check(line)
        return Growth(name, up, before, _memory(line))

    def _warm_up(self, line: Line) -> None:
        for direction in ((), ("-R",)):
            self._iperf(line, "-n", str(WARM_UP_BYTES), *direction)

    def _transfer(self, line: Line, *options: str, ping: bool = True) -> Transfer:
        before = usage(line.client), usage(line.server)
        if ping:
            result, pings = self._pings_while(line, options)
        else:
            result, pings = self._iperf(line, *options), None
        after = usage(line.client), usage(line.server)
        total = result["end"].get("sum_received") or result["end"]["sum"]
        if "-u" in options:
            total = result["end"]["sum"]
        lost = total.get("lost_percent", 0.0) / 100
        octets = total["bytes"] * (1 - lost)
        return Transfer(
            mbit_per_second=total["bits_per_second"] * (1 - lost) / 1e6,
            cpu_client=(after[0].cpu - before[0].cpu) * GB / octets,
            cpu_server=(after[1].cpu - before[1].cpu) * GB / octets,
            lost=lost,
            pings=pings,
        )

    def _iperf(self, line: Line, *options: str) -> dict[str, Any]:
        words = ("iperf3", "-c", line.address, "-p", str(line.port), "-J", *options)
        done = subprocess.run(
            self._places.inside(CLIENT, *words),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        result: dict[str, Any] = json.loads(done.stdout or "{}")
        if done.returncode or "error" in result:
            raise BenchError(f"iperf3: {result.get('error', done.stderr.strip())}")
        return result

    def _pings_while(
        self, line: Line, options: tuple[str, ...] | None
    ) -> tuple[dict[str, Any], Pings | None]:
        """What iperf3 says, and the pings sent meanwhile. Without options: a second of pings."""
        if not line.carries_ip:
            return ({} if options is None else self._iperf(line, *options)), None
        seconds = 1 if options is None else self._seconds
        count = str(int(seconds / PING_INTERVAL))
        words = ("ping", "-n", "-c", count, "-i", str(PING_INTERVAL), "-W", "2", line.address)
        pinging = subprocess.Popen(
            self._places.inside(CLIENT, *words), stdout=subprocess.PIPE, text=True
        )
        result = {} if options is None else self._iperf(line, *options)
        output, _ = pinging.communicate(timeout=60)
        times = [float(found) / 1000 for found in re.findall(r"time=([0-9.]+)", output)]
        if not times:
            raise BenchError(f"ping: no answer from {line.address}")
        return result, Pings(Times.of(times), 1 - len(times) / int(count))


def _memory(line: Line) -> tuple[int, int]:
    return usage(line.client).rss, usage(line.server).rss


def _check(line: Line) -> None:
    for program in line.programs:
        program.discard_output()
        if program.ended:
            raise BenchError(f"{' '.join(program.command)}: it ended")


HEADER = (
    *("line", "up Mbit/s", "ratio", "CPU A / B s/GB", "down Mbit/s", "ratio", "CPU A / B s/GB"),
    *("UDP Mbit/s", "lost %", "ping idle p50 / p99 ms", "ping up", "ping down", "ping UDP"),
)
GROWTH_HEADER = (
    *("line", "Mbit/s up", "CPU A / B s/GB", "RSS A before -> after MB"),
    "RSS B before -> after MB",
)


Run = dict[str, Figures]
"""What was measured on the lines, by their names."""


def row(name: str, runs: list[Run]) -> list[str]:
    """Medians over the runs that have the line."""
    runs = [run for run in runs if name in run]
    up, down = [run[name].up for run in runs], [run[name].down for run in runs]
    udp = [transfer for run in runs if (transfer := run[name].udp) is not None]
    return [
        name,
        _speed(up),
        _ratio(name, runs, lambda figures: figures.up),
        _cpu(up),
        _speed(down),
        _ratio(name, runs, lambda figures: figures.down),
        _cpu(down),
        _speed(udp),
        f"{median(transfer.lost for transfer in udp) * 100:.2f}" if udp else "-",
        _pings([run[name].idle for run in runs]),
        *(_pings([transfer.pings for transfer in transfers]) for transfers in (up, down, udp)),
    ]


def _speed(transfers: list[Transfer]) -> str:
    return f"{median(t.mbit_per_second for t in transfers):.0f}" if transfers else "-"


def _cpu(transfers: list[Transfer]) -> str:
    client = median(transfer.cpu_client for transfer in transfers)
    server = median(transfer.cpu_server for transfer in transfers)
    return f"{client:.1f} / {server:.1f}"


def _ratio(name: str, runs: list[Run], which: Callable[[Figures], Transfer]) -> str:
    ratios = [
        which(run[name]).mbit_per_second / which(run[REFERENCE]).mbit_per_second
        for run in runs
        if REFERENCE in run
    ]
    return f"{median(ratios):.2f}" if ratios else "-"


def _pings(all_pings: list[Pings | None]) -> str:
    known = [pings for pings in all_pings if pings is not None]
    if not known:
        return "-"
    p50, p99 = (median(getattr(pings.times, name) for pings in known) for name in ("p50", "p99"))
    lost = median(pings.lost for pings in known)
    return f"{p50 * 1000:.1f} / {p99 * 1000:.1f}" + (f" ({lost:.0%} lost)" if lost > 0.005 else "")


def growth_row(growth: Growth) -> list[str]:
    def memory(side: int) -> str:
        return f"{growth.before[side] / 1e6:.1f} -> {growth.after[side] / 1e6:.1f}"

    speed = f"{growth.transfer.mbit_per_second:.0f}"
    return [growth.line, speed, _cpu([growth.transfer]), memory(CLIENT), memory(SERVER)]


def main() -> int:
    given = _arguments()
    runs: list[Run] = []
    grown: list[Growth] = []
    failed: set[str] = set()
    with Places(given.tools) as places:
        words = places.inside(SERVER, "iperf3", "-s", "-p", str(PORT), "--forceflush")
        with Program(words) as iperf:
            iperf.wait_for("listening")
            bench = Bench(
                places,
                seconds=given.seconds,
                udp_rate=given.udp,
                options=tuple(given.iperf.split()),
            )
            for number in range(given.runs):
                runs.append({})
                for name in given.lines:
                    print(f"run {number + 1}: {name} ...", file=sys.stderr, flush=True)
                    try:
                        with LINES[name](places) as line:
                            if given.gigabytes is None:
                                runs[-1][name] = bench.measure(name, line)
                            else:
                                grown.append(bench.grow(name, line, int(given.gigabytes * GB)))
                    except SkippedError as reason:
                        print(f"{name}: skipped: {reason}", file=sys.stderr)
                    except (BenchError, OSError) as error:
                        print(f"{name}: {error}", file=sys.stderr)
                        failed.add(name)
                    iperf.discard_output()
    if names := [name for name in given.lines if any(name in run for run in runs)]:
        report.print_table(HEADER, [row(name, runs) for name in names])
    if grown:
        report.print_table(GROWTH_HEADER, [growth_row(growth) for growth in grown])
    done = [asdict(figures) for run in runs for figures in run.values()]
    done += [asdict(growth) for growth in grown]
    if done:
        print(f"\n{report.save('vpn', done)}")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", help=f"some of: {'; '.join(LINES)}")
    parser.add_argument("--runs", type=int, default=1, help="over all lines (default 1)")
    parser.add_argument("--seconds", type=int, default=5, help="of each transfer (default 5)")
    parser.add_argument("--udp", type=int, default=100, help="UDP payload, Mbit/s (default 100)")
    parser.add_argument("--iperf", default="", help="more options for TCP, such as '-P 4 -C cubic'")
    parser.add_argument("--tools", type=Path, help="folder with wireguard, nebula, nebula-cert")
    parser.add_argument("--gigabytes", type=float, help="how memory grows over so much payload")
    given = parser.parse_args()
    named = [name.strip() for name in given.lines.split(";")] if given.lines else list(LINES)
    if unknown := [name for name in named if name not in LINES]:
        parser.error(f"no such line: {', '.join(unknown)}")
    if sys.platform != "linux" or os.geteuid() != 0:
        parser.error("it makes network namespaces: needs Linux and root")
    missing = [name for name in ("ip", "ping", "iperf3") if shutil.which(name, path=PATH) is None]
    if missing:
        parser.error(f"not installed here: {', '.join(missing)}")
    given.lines = named
    return given


if __name__ == "__main__":
    sys.exit(main())
