"""Mixed load for a long time: does anything grow?  `make soak`.

    python bench/soak.py [--minutes 30] [--connections 100] [--flows 20] [--outage 60]

All the time 100 connections open, exchange bytes that are checked, and close, some by a reset, some
by halves; UDP flows come and go beside them. Every `--outage` seconds the link between client and
server is cut (a relay of ours in between swallows everything), until the client has noticed; then
it has to reconnect by itself. Sampled every few seconds: memory, descriptors and tasks of both
programs. Fails when a byte is wrong, when the tunnel does not come back, when memory grows by more
than 5 MB from the second quarter of the time to the last, or when descriptors or tasks of the idle
programs are more at the end than at the beginning.
"""

import argparse
import asyncio
import hashlib
import math
import os
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report, traffic
from bench.lines import OurServer, listening
from bench.processes import BenchError, Program, python, usage

SAMPLE_EVERY = 5.0
MOST_GROWTH = 5_000_000
CUT = 16.0
"""Seconds the link stays cut: longer than the programs need to give a silent link up."""
BACK_WITHIN = 75.0
"""Seconds for the first exchange after a cut: the longest backoff, and something."""
QUIET_WITHIN = 120.0
"""Seconds for idle programs to let everything go: UDP flows stay for 60."""
EXPECTED = (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError)
"""What a connection may end with while the link is cut, and nothing else."""


class Cable(asyncio.DatagramProtocol):
    """Passes datagrams between the client and the server, unless it is cut."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._client: tuple[str, int] | None = None
        self.cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if self.cut:
            return
        if address == self._server:
            if self._client is not None:
                self._transport.sendto(data, self._client)
        else:
            self._client = address
            self._transport.sendto(data, self._server)


class Echo(asyncio.DatagramProtocol):
    """The UDP target."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)


@dataclass
class Load:
    """The traffic, and what came of it."""

    tcp_port: int
    udp_port: int
    cable: Cable
    running: bool = True
    done: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    """Exchanges that a cut link ended: expected, and counted."""
    wrong: list[str] = field(default_factory=list)
    """What must never happen."""
    cut_began: float = math.inf
    cut_over: float = -math.inf
    """When the tunnel had come back after the last cut; infinite until it has."""

    async def keep(self, exchange: Callable[[], Awaitable[str]]) -> None:
        """Do it again and again until the load is over."""
        while self.running:
            began = time.monotonic()
            try:
                async with asyncio.timeout(BACK_WITHIN):
                    self.done[await exchange()] += 1
            except EXPECTED as error:
                if began > self.cut_over or time.monotonic() < self.cut_began:
                    self.wrong.append(f"{error!r} with the link up")
                self.interrupted += 1
                await asyncio.sleep(0.5)

    async def connection(self) -> str:
        kind = random.choices(("echo", "half", "reset"), (8, 2, 1))[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tcp_port)
        try:
            data = random.randbytes(random.randint(1, 200_000))
            writer.write(traffic.HEADER.pack(b"H" if kind == "half" else b"E", 0))
            if kind == "half":
                writer.write(data)
                writer.write_eof()
                if await reader.readexactly(32) != hashlib.sha256(data).digest():
                    self.wrong.append("half-closed: another digest")
            else:
                _, back = await asyncio.gather(_send(writer, data), reader.readexactly(len(data)))
                if back != data:
                    self.wrong.append("echo: other bytes")
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
            return kind
        finally:
            writer.close()

    async def flow(self) -> str:
        """A new local UDP peer: 20 datagrams, each must come back, but a lost one is asked anew."""
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.udp_port))
            for number in range(20):
                data = struct.pack("!I", number) + random.randbytes(random.randint(0, 1200))
                await self._ask(loop, sock, data)
        await asyncio.sleep(1)
        return "flow"

    async def _ask(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytes) -> None:
        for _ in range(10):
            await loop.sock_sendall(sock, data)
            try:
                async with asyncio.timeout(2):
                    while (answer := await loop.sock_recv(sock, 65535))[:4] != data[:4]:
                        pass  # the late answer to a question asked twice
            except TimeoutError:
                continue
            if answer != data:
                self.wrong.append("flow: other bytes")
            return
        raise TimeoutError("no answer to a datagram")


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@dataclass(frozen=True)
class Sample:
    """One look at a program. `tasks` is -1 when it did not say."""

    at: float
    rss: int
    fds: int
    threads: int
    tasks: int


class Observed:
    """A program under observation."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.program = program
        self.samples: list[Sample] = []
        self.idle_before: Sample | None = None
        self.idle_after: Sample | None = None

    def look(self, at: float) -> Sample:
        if self.program.ended:
            raise BenchError(f"the {self.name} has ended")
        used = usage([self.program.pid])
        os.kill(self.program.pid, signal.SIGUSR2)
        tasks = int(self.program.wait_for("tasks ", within=10).rpartition(" ")[2])
        return Sample(at, used.rss, used.fds, used.threads, tasks)

    def growth(self) -> int:
        """Bytes from the mean of the second quarter to the mean of the last."""
        quarter = max(len(self.samples) // 4, 1)
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        mean = [sum(sample.rss for sample in part) // max(len(part), 1) for part in (early, late)]
        return mean[1] - mean[0]

    def judge(self) -> list[str]:
        before, after = self.idle_before, self.idle_after
        assert before is not None and after is not None
        faults = []
        if self.growth() > MOST_GROWTH:
            faults.append(f"the {self.name}'s memory grew by {self.growth() / 1e6:.1f} MB")
        if after.fds > before.fds:
            faults.append(f"the {self.name} has {after.fds - before.fds} descriptors more")
        if after.tasks > before.tasks:
            faults.append(f"the {self.name} has {after.tasks - before.tasks} tasks more")
        return faults


async def soak(given: argparse.Namespace, stack: ExitStack) -> int:
    loop = asyncio.get_running_loop()
    target = stack.enter_context(Program(python(Path(traffic.__file__))))
    tcp = int(target.wait_for("port ").rpartition(" ")[2])
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    udp = echo.get_extra_info("sockname")[1]
    local = ("127.0.0.0/8",)
    server = stack.enter_context(
        OurServer(
            allowed_tcp=local,
            allowed_udp=local,
            # A cut link's sessions live on at the server until it gives the link up too.
            options=("--max-sessions", "5000"),
            runner=(str(Path(__file__).with_name("observed.py")),),
        )
    )
    host, _, port = server.address.rpartition(":")
    line, cable = await loop.create_datagram_endpoint(
        lambda: Cable((host, int(port))), local_addr=("127.0.0.1", 0)
    )
    address = f"127.0.0.1:{line.get_extra_info('sockname')[1]}"
    tunnels = [
        *("-s", f"tcp://127.0.0.1:{tcp}", "-t", "127.0.0.1:0"),
        *("-s", f"udp://127.0.0.1:{udp}", "-t", "127.0.0.1:0"),
    ]
    client = stack.enter_context(
        await asyncio.to_thread(lambda: server.client(*tunnels, address=address))
    )
    ports = await asyncio.to_thread(lambda: [listening(client) for _ in range(2)])
    load = Load(ports[0], ports[1], cable)
    watched = [Observed("client", client), Observed("server", server.program)]
    try:
        await run(given, load, watched)
    finally:
        line.close()
        echo.close()
    return tell(given, load, watched)


async def run(given: argparse.Namespace, load: Load, watched: list[Observed]) -> None:
    # Once through everything first: what is made once and kept is no leak.
    for exchange in (load.connection, load.connection, load.flow):
        async with asyncio.timeout(BACK_WITHIN):
            await exchange()
    for each in watched:
        each.idle_before = await quiet(each, None)
    began = time.monotonic()
    end = began + given.minutes * 60
    next_cut = began + given.outage
    async with asyncio.TaskGroup() as group:
        for _ in range(given.connections):
            group.create_task(load.keep(load.connection))
        for _ in range(given.flows):
            group.create_task(load.keep(load.flow))
        while (now := time.monotonic()) < end:
            if now >= next_cut and now + BACK_WITHIN < end:
                group.create_task(cut(load))
                next_cut += given.outage
            for each in watched:
                each.samples.append(await asyncio.to_thread(each.look, now - began))
            await asyncio.sleep(SAMPLE_EVERY)
        load.running = False
    for each in watched:
        each.idle_after = await quiet(each, each.idle_before)


async def cut(load: Load) -> None:
    """Swallow everything for a while, then see that the tunnel comes back."""
    load.cable.cut = True
    load.cut_began, load.cut_over = time.monotonic(), math.inf
    await asyncio.sleep(CUT)
    load.cable.cut = False
    back_again = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(BACK_WITHIN):
                await load.connection()
        except EXPECTED:
            if time.monotonic() > back_again + BACK_WITHIN:
                load.wrong.append(f"no tunnel {BACK_WITHIN:.0f} s after a cut")
                return
            await asyncio.sleep(0.5)
        else:
            load.done["reconnect"] += 1
            load.cut_over = time.monotonic()
            return


async def quiet(each: Observed, like: Sample | None) -> Sample:
    """A look at an idle program, once it has let go as much as `like` (else: stopped changing)."""
    began = time.monotonic()
    previous = await asyncio.to_thread(each.look, 0.0)
    while time.monotonic() < began + QUIET_WITHIN:
        await asyncio.sleep(2)
        sample = await asyncio.to_thread(each.look, time.monotonic() - began)
        settled = (sample.fds, sample.tasks) == (previous.fds, previous.tasks)
        if like is None and settled and time.monotonic() > began + 70:
            return sample
        if like is not None and sample.fds <= like.fds and sample.tasks <= like.tasks:
            return sample
        previous = sample
    return previous


def tell(given: argparse.Namespace, load: Load, watched: list[Observed]) -> int:
    faults = sorted(set(load.wrong))
    rows = []
    for each in watched:
        faults += each.judge()
        rows.append(_row(each))
    report.print_table(
        ("side", "RSS MB 2nd / last quarter", "growth MB", "fds idle", "tasks idle", "most fds"),
        rows,
    )
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(load.done.items()))
    print(f"\n{given.minutes:g} minutes: {counts}, {load.interrupted} interrupted by a cut link")
    figures = {
        "minutes": given.minutes,
        "done": load.done,
        "interrupted": load.interrupted,
        "faults": faults,
        "samples": {each.name: [asdict(sample) for sample in each.samples] for each in watched},
    }
    print(report.save("soak", figures))
    for fault in faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _row(each: Observed) -> list[str]:
    before, after = each.idle_before, each.idle_after
    assert before is not None and after is not None and each.samples
    quarter = max(len(each.samples) // 4, 1)
    late = sum(sample.rss for sample in each.samples[-quarter:]) / quarter
    return [
        each.name,
        f"{(late - each.growth()) / 1e6:.1f} / {late / 1e6:.1f}",
        f"{each.growth() / 1e6:+.1f}",
        f"{before.fds} -> {after.fds}",
        f"{before.tasks} -> {after.tasks}",
        f"{max(sample.fds for sample in each.samples)}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--flows", type=int, default=20)
    parser.add_argument("--outage", type=float, default=60, help="seconds between cuts")
    given = parser.parse_args()
    with ExitStack() as stack:
        try:
            return asyncio.run(soak(given, stack))
        except BenchError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
