"""Mixed load for a long time: does anything grow?  `make soak`.

    python bench/soak.py [--minutes 30] [--connections 100] [--rate 0] [--flows 20]
                         [--ping-every 0.1] [--outage 60]

All the time 100 connections open, exchange bytes that are checked, and close, some by a reset, some
by halves; with `--rate` only so many a second, and the others wait, open. UDP flows come and go
beside them, and small exchanges whose time is taken. Every `--outage` seconds the link between
client and server is either cut for a while (a relay of ours in between swallows everything), and
has to go on, or closed by the server's `tunnel-rs kill`, and the client has to make a new one.
Sampled every few seconds: memory, descriptors, tasks
and counters of both programs. Fails when a byte is wrong, when the tunnel does not come back, when
memory grows by more than 5 MB from the second quarter of the time to the last, or when descriptors,
tasks or sessions of the idle programs are more at the end than at the beginning. Writes JSON to
bench/results, and draws it where matplotlib is installed (`bench/soak_plot.py`).
"""

import argparse
import asyncio
import itertools
import os
import signal
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report, soak_figures, traffic
from bench.lines import OurServer, free_port, listening
from bench.processes import BenchError, Program, printed, python, usage
from bench.soak_figures import Pace, Pulse, Sample
from bench.soak_load import BACK_WITHIN, Cable, Echo, Load, cut, outage
from bench.soak_plot import picture

SAMPLE_EVERY = 5.0
LOOK_WITHIN = 30.0
"""Seconds a program may take to answer a look: this machine may be busy."""
MOST_WAIT = 30.0
"""Seconds a connection may wait for its turn: well below the time an exchange may take."""
QUIET_WITHIN = 120.0
"""Seconds for idle programs to let everything go: UDP flows stay for 60."""


class Observed:
    """A program under observation."""

    def __init__(self, name: str, program: Program, metrics_port: int) -> None:
        self.name = name
        self.program = program
        self._metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self.samples: list[Sample] = []
        self.idle_before: Sample | None = None
        self.idle_after: Sample | None = None

    def look(self, at: float) -> Sample:
        if self.program.ended:
            raise BenchError(f"the {self.name} has ended")
        used = usage([self.program.pid])
        os.kill(self.program.pid, signal.SIGUSR2)
        tasks = int(self.program.wait_for("tasks ", within=LOOK_WITHIN).rpartition(" ")[2])
        # After the rest, so that this request is in no figure.
        told = soak_figures.counters(self._metrics())
        sessions = int(told["tunnel_rs_sessions"])
        up, lost = (
            int(told[f'tunnel_rs_events_total{{kind="{kind}"}}'])
            for kind in ("tunnel_up", "tunnel_lost")
        )
        return Sample(at, used.rss, used.fds, used.threads, tasks, sessions, up, lost)

    def _metrics(self) -> str:
        with urllib.request.urlopen(self._metrics_url, timeout=LOOK_WITHIN) as answer:
            return bytes(answer.read()).decode()

    def hang_up(self) -> None:
        """Close the links to all its peers."""
        for peer in soak_figures.peers(self._metrics()):
            printed("-m", "tunnel_rs", "kill", "--pid", str(self.program.pid), peer)

    @property
    def seen(self) -> tuple[str, list[Sample], Sample, Sample]:
        """All of it, once it has been looked at idle again."""
        assert self.idle_before is not None and self.idle_after is not None
        return self.name, self.samples, self.idle_before, self.idle_after


async def soak(given: argparse.Namespace, stack: ExitStack) -> int:
    loop = asyncio.get_running_loop()
    target = stack.enter_context(Program(python(Path(traffic.__file__))))
    tcp = int(target.wait_for("port ").rpartition(" ")[2])
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    udp = echo.get_extra_info("sockname")[1]
    local = ("127.0.0.0/8",)
    metrics = free_port(), free_port()
    server = stack.enter_context(
        OurServer(
            allowed_tcp=local,
            allowed_udp=local,
            # A cut link's sessions live on at the server until it gives the link up too.
            options=("--max-sessions", "5000", *_metrics(metrics[1])),
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
        *_metrics(metrics[0]),
    ]
    client = stack.enter_context(
        await asyncio.to_thread(lambda: server.client(*tunnels, address=address))
    )
    ports = await asyncio.to_thread(lambda: [listening(client) for _ in range(2)])
    load = Load(ports[0], ports[1], cable, Pace(given.rate), given.ping_every)
    watched = [
        Observed("client", client, metrics[0]),
        Observed("server", server.program, metrics[1]),
    ]
    try:
        pulses = await run(given, load, watched)
    finally:
        line.close()
        echo.close()
    return tell(given, load, pulses, watched)


def _metrics(port: int) -> tuple[str, str]:
    return "--metrics-bind", f"127.0.0.1:{port}"


async def run(given: argparse.Namespace, load: Load, watched: list[Observed]) -> list[Pulse]:
    # Once through everything first: what is made once and kept is no leak.
    for exchange in (load.connection, load.connection, load.flow, load.ping):
        async with asyncio.timeout(BACK_WITHIN):
            await exchange()
    load.times.clear()
    before = await asyncio.gather(*(quiet(each, None) for each in watched))
    pulses = await _loaded(given, load, watched)
    after = await asyncio.gather(
        *(quiet(each, like) for each, like in zip(watched, before, strict=True))
    )
    for each, first, last in zip(watched, before, after, strict=True):
        each.idle_before, each.idle_after = first, last
    return pulses


async def _loaded(given: argparse.Namespace, load: Load, watched: list[Observed]) -> list[Pulse]:
    """All the traffic for its time, and looks at it."""
    began = time.monotonic()
    end = began + given.minutes * 60
    next_outage = began + given.outage
    outages = itertools.cycle(
        (
            ("hang-up", lambda: asyncio.to_thread(watched[1].hang_up)),
            ("cut", lambda: cut(load.cable)),
        )
    )
    pulses = []
    async with asyncio.TaskGroup() as group:
        for _ in range(given.connections):
            group.create_task(load.keep(load.connection))
        for _ in range(given.flows):
            group.create_task(load.keep(load.flow))
        group.create_task(load.keep(load.ping))
        while (now := time.monotonic()) < end:
            if now >= next_outage and now + BACK_WITHIN < end:
                group.create_task(outage(load, *next(outages)))
                next_outage += given.outage
            for each in watched:
                each.samples.append(await asyncio.to_thread(each.look, now - began))
            pulses.append(load.pulse(now - began))
            await asyncio.sleep(SAMPLE_EVERY)
        load.running = False
    load.cuts = [(first - began, back - began) for first, back in load.cuts]
    return pulses


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
        if like is not None and _within(sample, like):
            return sample
        previous = sample
    return previous


def _within(sample: Sample, like: Sample) -> bool:
    """Whether it holds no more than it did before the load."""
    return (
        sample.fds <= like.fds and sample.tasks <= like.tasks and sample.sessions <= like.sessions
    )


def tell(
    given: argparse.Namespace, load: Load, pulses: list[Pulse], watched: list[Observed]
) -> int:
    faults = sorted(set(load.wrong))
    faults += [fault for each in watched for fault in soak_figures.faults(*each.seen)]
    _, _, before, after = watched[0].seen
    faults += soak_figures.lost_reconnects(before, after, load.done["hang-up"])
    report.print_table(soak_figures.COLUMNS, [soak_figures.row(*each.seen) for each in watched])
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(load.done.items()))
    print(f"\n{given.minutes:g} minutes: {counts}, {load.interrupted} interrupted by an outage")
    print(f"small exchanges: {soak_figures.latency(pulses)}")
    print("a / b: second and last quarter of the time")
    figures = {
        "given": vars(given),
        "nice": os.nice(0),
        "done": load.done,
        "interrupted": load.interrupted,
        "faults": faults,
        "cuts": load.cuts,
        "pulses": [asdict(pulse) for pulse in pulses],
        "samples": {each.name: [asdict(sample) for sample in each.samples] for each in watched},
        "idle": {each.name: [asdict(sample) for sample in each.seen[2:]] for each in watched},
    }
    saved = report.save("soak", figures)
    print(saved)
    print(picture(saved, saved.with_suffix(".png")))
    for fault in faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument(
        "--rate",
        type=float,
        default=0,
        help="connections begun a second, all together; 0: no limit",
    )
    parser.add_argument("--flows", type=int, default=20)
    parser.add_argument("--ping-every", type=float, default=0.1, help="seconds between two")
    parser.add_argument("--outage", type=float, default=60, help="seconds between outages")
    given = parser.parse_args()
    if given.rate and given.connections / given.rate > MOST_WAIT:
        parser.error(f"each connection would wait more than {MOST_WAIT:g} s: raise --rate")
    with ExitStack() as stack:
        try:
            return asyncio.run(soak(given, stack))
        except BenchError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
