"""What a soak has seen, and what follows from it: no program and no clock in here."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

MOST_GROWTH = 5_000_000
"""Bytes of memory that may be more in the last quarter of the time than in the second."""


@dataclass(frozen=True)
class Sample:
    """One look at a program, `at` seconds after the load began."""

    at: float
    rss: int
    """Resident bytes."""
    fds: int
    threads: int
    tasks: int
    sessions: int
    tunnels_up: int
    """Links that came up so far, the first one and every one after a loss."""
    tunnels_lost: int


@dataclass(frozen=True)
class Pulse:
    """What the load has seen since the look before: seconds of small exchanges, and counts of all
    so far. The times are None when the link was out all the while."""

    at: float
    p50: float | None
    p99: float | None
    done: int
    interrupted: int
    machine_load: float
    """The load average of one minute: what else the machine had to do."""


class Pace:
    """Shares out `rate` turns a second among all who ask; without a rate nobody waits."""

    def __init__(self, rate: float) -> None:
        self._between = 1 / rate if rate else 0.0
        self._next = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until the caller's turn. Turns that nobody asked for in time are gone."""
        turn = max(self._next, now)
        self._next = turn + self._between
        return turn - now


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def counters(exposition: str) -> dict[str, float]:
    """The values in Prometheus' text format by name and labels, as written there."""
    lines = (line for line in exposition.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def peers(exposition: str) -> list[str]:
    """Whom the links are to, each by the ten characters that `tunnel-rs kill` takes."""
    return sorted(set(re.findall(r'^tunnel_rs_peer_bytes_total.*peer="(\w+)"', exposition, re.M)))


def quarters(values: Sequence[float]) -> tuple[float, float]:
    """The means of the second and of the last quarter: the first is the time to warm up."""
    early, late = _second_and_last(values)
    return fmean(early), fmean(late)


def middles(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the second and of the last quarter: one bad moment does not move them."""
    early, late = _second_and_last(values)
    return median(early), median(late)


def _second_and_last(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    if len(values) < 2:
        raise ValueError("there are too few samples for quarters")
    quarter = max(len(values) // 4, 1)
    return values[quarter : 2 * quarter], values[-quarter:]


def growth(samples: Sequence[Sample]) -> float:
    """Bytes of memory from the second quarter to the last."""
    early, late = quarters([sample.rss for sample in samples])
    return late - early


def faults(name: str, samples: Sequence[Sample], before: Sample, after: Sample) -> list[str]:
    """What is wrong with a program that was looked at `before` and `after` the load, idle."""
    found = []
    if (grown := growth(samples)) > MOST_GROWTH:
        found.append(f"the {name}'s memory grew by {grown / 1e6:.1f} MB")
    for what, more in (
        ("descriptors", after.fds - before.fds),
        ("tasks", after.tasks - before.tasks),
        ("open sessions", after.sessions - before.sessions),
    ):
        if more > 0:
            found.append(f"the {name} has {more} {what} more")
    return found


def lost_reconnects(before: Sample, after: Sample, hang_ups: int) -> list[str]:
    """What is wrong when the client's links were closed `hang_ups` times."""
    begun = after.tunnels_up - before.tunnels_up
    return [f"{hang_ups} links closed, but {begun} begun anew"] if begun < hang_ups else []


def row(name: str, samples: Sequence[Sample], before: Sample, after: Sample) -> list[str]:
    """A program's line in the table `COLUMNS`."""
    early, late = quarters([sample.rss for sample in samples])
    return [
        name,
        f"{early / 1e6:.1f} / {late / 1e6:.1f}",
        f"{(late - early) / 1e6:+.1f}",
        *(
            "{:.0f} / {:.0f}".format(*quarters(values))
            for values in ([each.fds for each in samples], [each.tasks for each in samples])
        ),
        f"{before.fds} -> {after.fds}",
        f"{before.tasks} -> {after.tasks}",
    ]


COLUMNS = ("side", "RSS MB", "growth MB", "fds", "tasks", "fds idle", "tasks idle")
"""`a / b`: the mean of the second and of the last quarter. `a -> b`: before and after the load."""


def latency(pulses: Iterable[Pulse]) -> str:
    """The times of small exchanges, second and last quarter: medians over the looks."""
    told = [pulse for pulse in pulses if pulse.p50 is not None]
    parts = []
    for name, values in (
        ("p50", [pulse.p50 for pulse in told if pulse.p50 is not None]),
        ("p99", [pulse.p99 for pulse in told if pulse.p99 is not None]),
    ):
        early, late = middles(values)
        parts.append(f"{name} {early * 1e3:.1f} / {late * 1e3:.1f} ms")
    return ", ".join(parts)


def caption(figures: Mapping[str, object], commit: object, cores: object) -> str:
    """What a reader has to know of the load, above the picture."""
    given = figures["given"]
    pulses = figures["pulses"]
    assert isinstance(given, Mapping) and isinstance(pulses, Sequence)
    busy = median(pulse["machine_load"] for pulse in pulses)
    rate = f"{given['rate']:g} connections/s" if given["rate"] else "as fast as they go"
    return (
        f"{given['minutes']:g} minutes, {given['connections']} connections, {rate}, "
        f"{given['flows']} UDP flows; outage every {given['outage']:g} s (grey)\n"
        f"{cores} cores with a load average of {busy:.0f} (median), commit {commit}"
    )
