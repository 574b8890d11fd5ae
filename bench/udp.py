"""UDP through the tunnel at a steady rate: `python bench/udp.py`.

    [--rate 50000] [--seconds 4] [--runs 5] [--size 200] [--modes "datagrams; stream"] [--quick]

A generator sends datagrams of one size in bursts every half millisecond to a local port of
`tunnel-rs client`; a sink behind `tunnel-rs server` counts those that come unchanged and for the
first time. CPU is that of each side's process for a delivered datagram. Writes JSON to
bench/results/ and prints a table; the last line is the file's path.
"""

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report
from bench.lines import Line, OurServer, listening
from bench.processes import BenchError, Program, python, usage

MODES = {
    "datagrams": "",
    "stream": "udp_datagrams = false",
    "datagrams, fast path off": "fast_path = false",
}
"""Settings of both sides."""

TICK = 0.0005
NUMBER = struct.Struct("!Q")
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
QUIET = 0.5
"""Seconds without a datagram after which the sink takes the stream of them to be over."""


@dataclass(frozen=True)
class Figures:
    """Median of the runs."""

    line: str
    mode: str
    rate: int
    sent: int
    delivered: float
    """Share."""
    cpu_client: float
    cpu_server: float
    """Seconds for a delivered datagram."""


def rest_of(size: int) -> bytes:
    """What follows the number in each datagram."""
    return bytes(i * 7 & 0xFF for i in range(size - NUMBER.size))


# The two programs around the tunnel


def sink(size: int) -> None:
    """Print the port; then, whenever datagrams have come and no more do, how many were right."""
    expected = rest_of(size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        sock.bind(("127.0.0.1", 0))
        print("port", sock.getsockname()[1], flush=True)
        while True:
            sock.settimeout(None)
            seen = _take(sock.recv(65_535), size, expected)
            sock.settimeout(QUIET)
            try:
                while True:
                    seen |= _take(sock.recv(65_535), size, expected)
            except TimeoutError:
                print("received", len(seen), flush=True)


def _take(data: bytes, size: int, expected: bytes) -> set[int]:
    """Numbers of the unchanged datagrams that the kernel has joined to `data`."""
    starts = range(0, len(data), size)
    return {
        NUMBER.unpack_from(data, start)[0]
        for start in starts
        if data[start + NUMBER.size : start + size] == expected
    }


def generate(port: int, size: int, rate: int, count: int) -> int:
    """Send `count` numbered datagrams at `rate` a second; how many the kernel took."""
    tail = rest_of(size)
    control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))]
    burst = min(max(1, round(rate * TICK)), 65_000 // size)
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sock.connect(("127.0.0.1", port))
        began = time.perf_counter()
        while sent < count:
            due = began + sent / rate
            pause = due - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            numbers = range(sent, min(sent + burst, count))
            sock.sendmsg([b"".join(NUMBER.pack(n) + tail for n in numbers)], control)
            sent = numbers.stop
    return sent


# Measuring


@contextmanager
def tunnel(settings: str, target: int) -> Iterator[Line]:
    with OurServer(settings=settings, allowed_udp=("127.0.0.0/8",)) as server:
        with server.client("-s", f"udp://127.0.0.1:{target}", "-t", "127.0.0.1:0") as client:
            port = listening(client)
            client.wait_for('"tunnel_up"')
            yield Line(port, (client.pid,), (server.program.pid,))


def measure(mode: str, settings: str, given: argparse.Namespace) -> list[Figures]:
    """Each run on a tunnel and a flow of its own, after a second at the same rate."""
    found = []
    for _ in range(given.runs):
        command = python(Path(__file__), "--sink", "--size", str(given.size))
        with Program(command) as program:
            target = int(program.wait_for("port ").rpartition(" ")[2])
            with tunnel(settings, target) as line:
                found.append(_one_run(mode, line, program, given))
    return found


def _one_run(mode: str, line: Line, program: Program, given: argparse.Namespace) -> Figures:
    def carry(seconds: float) -> tuple[int, int]:
        sent = generate(line.port, given.size, given.rate, int(given.rate * seconds))
        said = program.wait_for("received ", within=20)
        return sent, int(said.rpartition(" ")[2])

    carry(min(1.0, given.seconds))
    before = [usage(side).cpu for side in (line.client, line.server)]
    sent, received = carry(given.seconds)
    if not received:
        raise BenchError(f"{mode}: nothing arrived")
    used = [usage(side).cpu for side in (line.client, line.server)]
    client, server = (after - was for after, was in zip(used, before, strict=True))
    share = received / sent
    return Figures("tunnel-rs", mode, given.rate, sent, share, client / received, server / received)


def summed_up(runs: list[Figures]) -> Figures:
    first = runs[0]
    return Figures(
        first.line,
        first.mode,
        first.rate,
        first.sent,
        median(run.delivered for run in runs),
        median(run.cpu_client for run in runs),
        median(run.cpu_server for run in runs),
    )


def main() -> int:
    given = _arguments()
    if given.sink:
        sink(given.size)
    figures = [summed_up(measure(mode, MODES[mode], given)) for mode in given.modes]
    rows = [
        [
            f"{each.mode}, {each.rate}/s",
            f"{100 * each.delivered:.2f}",
            f"{1e6 * each.cpu_client:.1f} / {1e6 * each.cpu_server:.1f}",
        ]
        for each in figures
    ]
    report.print_table(("UDP", "% delivered", "CPU us a datagram, client / server"), rows)
    print(report.save("udp", list(map(asdict, figures))))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=50_000, help="datagrams a second")
    parser.add_argument("--seconds", type=float, default=4, help="of one run")
    parser.add_argument("--runs", type=int, default=5, help="the median of so many counts")
    parser.add_argument("--size", type=int, default=200, help="bytes of a datagram, 16 to 1400")
    modes = "; ".join(list(MODES)[:2])
    parser.add_argument("--modes", default=modes, help=f"some of: {'; '.join(MODES)}")
    parser.add_argument("--quick", action="store_true", help="one short run, to see that all works")
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.modes = [mode.strip() for mode in given.modes.split(";")]
    if unknown := [mode for mode in given.modes if mode not in MODES]:
        parser.error(f"no such mode: {', '.join(unknown)}")
    if not 16 <= given.size <= 1400 or given.runs < 1 or given.rate < 1 or given.seconds <= 0:
        parser.error("--size: 16 to 1400; --runs, --rate and --seconds: above 0")
    if given.quick:
        given.runs, given.seconds = 1, 0.5
    return given


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
