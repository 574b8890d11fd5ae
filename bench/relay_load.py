"""A relay under load: 1,000 clients, 200 pairs of them talking; and bad neighbours.

    python bench/relay_load.py [--clients 1000] [--pairs 200] [--seconds 10] [--rust PROGRAM]

Measures messages per second, processor time and memory per client of our relay, and of the real
iroh-relay beside it where that is installed. Then one pair is timed alone, beside a client that
floods, and beside one that is flooded and never reads; it fails when the pair becomes much slower.
The relay has one core to itself where there are two; the clients have the other.
"""

import argparse
import asyncio
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from bench import report
from bench.processes import BenchError, Program, python, usage
from bench.relay_peer import Peer, connected, datagram_to

CONTENTS = bytes(1200)
WINDOW = 4
"""Datagrams in flight in each direction of a pair."""
AT_ONCE = 50
"""Handshakes at a time."""
FLOOD_LIMIT = 2_000_000
"""bytes_per_second of limits.client.rx while there are bad neighbours."""
MOST_DELAY, MOST_FACTOR = 0.030, 6.0
"""A pair may become slower by this (99th percentile), or by this factor, beside bad neighbours."""


@dataclass(frozen=True)
class Load:
    """What carrying the load took. Bytes and seconds."""

    connected_in: float
    bytes_per_client: float
    messages_per_second: float
    cpu: float
    cpu_per_message: float
    rss: int


@dataclass(frozen=True)
class RoundTrips:
    """How a pair fares, in seconds."""

    median: float
    slow: float
    """99th percentile."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def relay(command: list[str | Path], more: str) -> Iterator[tuple[Program, int]]:
    """A relay without TLS; `command` takes the configuration file as its last argument."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "relay.toml"
        config.write_text(
            f'http_bind_addr = "127.0.0.1:{port}"\nenable_metrics = false\n[limits]\n{more}\n'
        )
        core = 0 if (os.cpu_count() or 1) > 1 else None
        with Program([*command, config], core=core) as program:
            wait_for(program, port)
            yield program, port


def wait_for(program: Program, port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not program.ended:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise BenchError(f"{' '.join(program.command)} did not start")


class Pairs:
    """Pairs that throw datagrams at each other and back."""

    def __init__(self) -> None:
        self.messages = 0
        self.talking = False
        self._replies: dict[Peer, bytes] = {}

    def received(self, peer: Peer, contents: bytes) -> None:
        self.messages += 1
        if self.talking:
            peer.transport.write(self._replies[peer])

    def start(self, pairs: list[tuple[Peer, Peer]]) -> None:
        self.talking = True
        for one, other in pairs:
            for sender, receiver in ((one, other), (other, one)):
                self._replies[sender] = datagram_to(receiver.endpoint_id, CONTENTS)
        for sender, datagram in self._replies.items():
            for _ in range(WINDOW):
                sender.transport.write(datagram)


async def crowd(port: int, count: int, pairs: Pairs) -> list[Peer]:
    peers: list[Peer] = []
    while len(peers) < count:
        some = min(AT_ONCE, count - len(peers))
        peers += await asyncio.gather(*(connected(port, pairs.received) for _ in range(some)))
    return peers


async def measure_load(program: Program, port: int, given: argparse.Namespace) -> Load:
    pairs = Pairs()
    warm = await crowd(port, 20, pairs)
    before, began = usage([program.pid]), time.monotonic()
    peers = await crowd(port, given.clients, pairs)
    connected_in, after = time.monotonic() - began, usage([program.pid])
    pairs.start(
        list(zip(peers[0 : 2 * given.pairs : 2], peers[1 : 2 * given.pairs : 2], strict=True))
    )
    await asyncio.sleep(1)  # until it runs evenly
    messages, first, began = pairs.messages, usage([program.pid]), time.monotonic()
    await asyncio.sleep(given.seconds)
    carried, second = pairs.messages - messages, usage([program.pid])
    elapsed = time.monotonic() - began
    if any(peer.lost for peer in peers):
        raise BenchError(f"the relay lost {sum(peer.lost for peer in peers)} client(s)")
    pairs.talking = False
    for peer in (*warm, *peers):
        peer.transport.abort()
    cpu = second.cpu - first.cpu
    return Load(
        connected_in,
        (after.rss - before.rss) / given.clients,
        carried / elapsed,
        cpu / elapsed,
        cpu / max(carried, 1),
        second.rss,
    )


class Timed:
    """One pair with a single datagram under way: every round trip is timed."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._sent_at = 0.0
        self._forth = self._back = b""
        self._one: Peer | None = None

    def received(self, peer: Peer, contents: bytes) -> None:
        if peer is not self._one:
            peer.transport.write(self._back)
            return
        now = time.perf_counter()
        self.times.append(now - self._sent_at)
        self._send()

    def _send(self) -> None:
        assert self._one is not None
        self._sent_at = time.perf_counter()
        self._one.transport.write(self._forth)

    def start(self, one: Peer, other: Peer) -> None:
        self._one = one
        self._forth = datagram_to(other.endpoint_id, CONTENTS)
        self._back = datagram_to(one.endpoint_id, CONTENTS)
        self._send()


async def measure_pair(port: int, seconds: float) -> RoundTrips:
    timed = Timed()
    one = await connected(port, timed.received)
    other = await connected(port, timed.received)
    timed.start(one, other)
    await asyncio.sleep(seconds)
    for peer in (one, other):
        if peer.lost:
            raise BenchError("the relay lost one of the pair that was timed")
        peer.transport.abort()
    times = sorted(timed.times)
    if not times:
        return RoundTrips(seconds, seconds)
    return RoundTrips(times[len(times) // 2], times[int(len(times) * 0.99)])


def ignored(peer: Peer, contents: bytes) -> None:
    """Read and forgotten."""


@asynccontextmanager
async def flooder(port: int, *, target_reads: bool) -> AsyncIterator[None]:
    """A client that sends as fast as the relay takes it, to one that reads it, or never does."""
    target, source = await connected(port, ignored), await connected(port, ignored)
    if not target_reads:
        target.transport.pause_reading()
    datagram = datagram_to(target.endpoint_id, CONTENTS) * 20

    async def flood() -> None:
        while not source.lost:
            # What the transport has not got rid of waits in its buffer: leave it there.
            if source.transport.get_write_buffer_size() < 1 << 20:
                source.transport.write(datagram)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(flood())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for peer in (target, source):
            peer.transport.abort()


async def measure_neighbours(port: int, seconds: float) -> dict[str, RoundTrips]:
    found = {"alone": await measure_pair(port, seconds)}
    async with flooder(port, target_reads=True):
        found["beside a flood"] = await measure_pair(port, seconds)
    async with flooder(port, target_reads=False):
        found["beside one that never reads"] = await measure_pair(port, seconds)
    return found


def suffers(found: dict[str, RoundTrips]) -> list[str]:
    """In which neighbourhoods a pair becomes much slower."""
    most = max(found["alone"].slow * MOST_FACTOR, found["alone"].slow + MOST_DELAY)
    return [name for name, trips in found.items() if trips.slow > most]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rust", default=os.environ.get("IROH_RELAY_BIN", "iroh-relay"))
    given = parser.parse_args()
    if 2 * given.pairs > given.clients:
        parser.error("--pairs: there are not so many clients")
    allow_files(2 * given.clients + 200)
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)))
    relays: dict[str, tuple[list[str | Path], str]] = {
        "tunnel-rs relay": (
            python("-m", "tunnel_rs", "relay", "-c"),
            "max_connections_per_address = 0",
        )
    }
    if (rust := shutil.which(given.rust)) is not None:
        relays["iroh-relay"] = ([rust, "-c"], "")
    else:
        print("iroh-relay is not installed: measuring ours alone\n", file=sys.stderr)
    loads, neighbours = {}, {}
    for name, (command, more) in relays.items():
        with relay(command, more) as (program, port):
            loads[name] = asyncio.run(measure_load(program, port, given))
        limit = f"[limits.client.rx]\nbytes_per_second = {FLOOD_LIMIT}"
        with relay(command, f"{more}\n{limit}") as (program, port):
            neighbours[name] = asyncio.run(measure_neighbours(port, max(2.0, given.seconds / 3)))
    show(loads, neighbours)
    figures = {
        "settings": {"clients": given.clients, "pairs": given.pairs, "seconds": given.seconds},
        "load": {name: asdict(load) for name, load in loads.items()},
        "neighbours": {
            name: {where: asdict(trips) for where, trips in found.items()}
            for name, found in neighbours.items()
        },
    }
    print(f"\n{report.save('relay_load', figures)}")
    slower = suffers(neighbours["tunnel-rs relay"])
    if slower:
        print(f"a pair becomes much slower {' and '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


def allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def show(loads: dict[str, Load], neighbours: dict[str, dict[str, RoundTrips]]) -> None:
    header = ("relay", "messages/s", "CPU", "CPU us/message", "kB/client", "RSS MB", "connect s")
    rows = [
        [
            name,
            f"{load.messages_per_second:,.0f}",
            f"{load.cpu:.0%}",
            f"{load.cpu_per_message * 1e6:.1f}",
            f"{load.bytes_per_client / 1e3:.1f}",
            f"{load.rss / 1e6:.0f}",
            f"{load.connected_in:.2f}",
        ]
        for name, load in loads.items()
    ]
    report.print_table(header, rows)
    print(f"\nA pair's round trips, with bytes_per_second = {FLOOD_LIMIT:,}:\n")
    rows = [
        [f"{name}, {where}", f"{trips.median * 1e3:.2f}", f"{trips.slow * 1e3:.2f}"]
        for name, found in neighbours.items()
        for where, trips in found.items()
    ]
    report.print_table(("relay", "median ms", "99 % ms"), rows)


if __name__ == "__main__":
    sys.exit(main())
