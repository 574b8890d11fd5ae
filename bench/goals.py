"""The figures to reach, and what came of them: pure functions of what was measured.

Every value is made inside one run (a ratio to stock aioquic of that run, CPU seconds per GB); of
several runs the median counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench import compared
from bench.forward import Bulk
from bench.traffic import Times

START, END = "<!-- figures -->", "<!-- /figures -->"
LINE_RATE = 200.0
"""Mbit/s of the emulated path."""


@dataclass(frozen=True)
class Measured:
    """One line in one run. None: not asked of this line."""

    up: Bulk
    down: Bulk
    intact: bool
    round_trip: Times | None = None
    many_up: Bulk | None = None
    many_down: Bulk | None = None


Run = Mapping[str, Measured]


@dataclass(frozen=True)
class Goal:
    """One row: `value` of a run, which must be at least (or at most) `bound`."""

    label: str
    lines: tuple[str, ...]
    value: Callable[[Run], float]
    bound: float
    unit: str
    detail: Callable[[Run], tuple[float, ...]]
    """Absolute numbers behind the value."""
    detail_unit: str
    at_least: bool = True


@dataclass(frozen=True)
class Verdict:
    """A row as it is shown. `met` is None when nothing was measured; `reason` is then the line that
    did not work, or says that none was asked for."""

    label: str
    target: str
    measured: str
    absolute: str
    met: bool | None
    reason: str = ""

    def cells(self) -> list[str]:
        words = {True: "met", False: "**missed**", None: f"not measured: {self.reason}"}
        return [self.label, self.target, self.measured, self.absolute, words[self.met]]


HEADER = ("figure", "target", "measured (lowest to highest)", "absolute", "verdict")


def judge(goal: Goal, runs: Sequence[Run], problems: Mapping[str, str]) -> Verdict:
    """The median over those runs that have all the lines it takes."""
    complete = [run for run in runs if all(name in run for name in goal.lines)]
    missing = next((name for name in goal.lines if name in problems), "")
    values = [goal.value(run) for run in complete]
    if not values:
        target = bound_text(goal.bound, goal.unit, at_least=goal.at_least)
        return Verdict(goal.label, target, "-", "-", None, missing or "left out")
    details = zip(*(goal.detail(run) for run in complete), strict=True)
    numbers = " / ".join(number(median(each)) for each in details)
    return verdict(
        goal.label, values, goal.bound, goal.unit, f"{numbers} {goal.detail_unit}", goal.at_least
    )


def verdict(
    label: str, values: Sequence[float], bound: float, unit: str, absolute: str, at_least: bool
) -> Verdict:
    """The median of `values` (at least one) against `bound`."""
    middle = median(values)
    spread = f" ({number(min(values))} to {number(max(values))})" if len(values) > 1 else ""
    return Verdict(
        label=label,
        target=bound_text(bound, unit, at_least=at_least),
        measured=f"{number(middle)}{unit}{spread}",
        absolute=absolute,
        met=middle >= bound if at_least else middle <= bound,
    )


def bound_text(bound: float, unit: str, *, at_least: bool) -> str:
    return f"at {'least' if at_least else 'most'} {number(bound)}{unit}"


def number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _speed(name: str, way: str, bound: float, label: str, base: str = compared.STOCK) -> Goal:
    """`name` against `base` in one direction."""

    def speeds(run: Run) -> tuple[float, float]:
        return _bulk(run[name], way).mbit_per_second, _bulk(run[base], way).mbit_per_second

    def ratio(run: Run) -> float:
        ours, theirs = speeds(run)
        return ours / theirs

    return Goal(f"{label}, {way}", (name, base), ratio, bound, "x", speeds, "Mbit/s")


def _cpu(name: str, way: str, bound: float, label: str) -> Goal:
    """The dearer side of `name` in one direction."""

    def sides(run: Run) -> tuple[float, float]:
        bulk = _bulk(run[name], way)
        return bulk.cpu_client, bulk.cpu_server

    return Goal(
        label=f"{label}, {way}, CPU of the dearer side",
        lines=(name,),
        value=lambda run: max(sides(run)),
        bound=bound,
        unit=" s/GB",
        detail=sides,
        detail_unit="s/GB, client / server",
        at_least=False,
    )


def _bulk(measured: Measured, way: str) -> Bulk:
    return measured.up if way == "up" else measured.down


def _many(way: str) -> Goal:
    def speeds(run: Run) -> tuple[float, float]:
        ours = run[compared.OURS]
        many = ours.many_up if way == "up" else ours.many_down
        assert many is not None
        return many.mbit_per_second, _bulk(ours, way).mbit_per_second

    def ratio(run: Run) -> float:
        fifty, one = speeds(run)
        return fifty / one

    label = f"50 streams beside one, {way}"
    return Goal(label, (compared.OURS,), ratio, 0.7, "x", speeds, "Mbit/s")


def _trip(run: Run, name: str) -> Times:
    times = run[name].round_trip
    assert times is not None
    return times


def _round_trip() -> list[Goal]:
    ours, stock = compared.OURS, compared.STOCK

    def medians(run: Run) -> tuple[float, float]:
        return _trip(run, ours).p50 * 1e6, _trip(run, stock).p50 * 1e6

    def own(run: Run) -> tuple[float, float]:
        return _trip(run, ours).p99 * 1e6, _trip(run, ours).p50 * 1e6

    def divide(pair: tuple[float, float]) -> float:
        return pair[0] / pair[1]

    trip = "round trip of 64 bytes"
    return [
        Goal(
            label=f"{trip}, p50 beside stock's",
            lines=(ours, stock),
            value=lambda run: divide(medians(run)),
            bound=0.8,
            unit="x",
            detail=medians,
            detail_unit="us",
            at_least=False,
        ),
        Goal(
            label=f"{trip}, p99 beside p50",
            lines=(ours,),
            value=lambda run: divide(own(run)),
            bound=2.0,
            unit="x",
            detail=own,
            detail_unit="us",
            at_least=False,
        ),
    ]


def _line_share(way: str) -> Goal:
    def speed(run: Run) -> tuple[float]:
        return (_bulk(run[compared.WIRE], way).mbit_per_second,)

    return Goal(
        label=f"emulated {compared.WIRE} path, {way}",
        lines=(compared.WIRE,),
        value=lambda run: speed(run)[0] / LINE_RATE * 100,
        bound=92,
        unit=" %",
        detail=speed,
        detail_unit="Mbit/s",
    )


def all_goals() -> list[Goal]:
    """The table of the speed issue, but for UDP and memory, which are measured in their own way."""
    ways = ("up", "down")
    loss, reorder = (f"emulated path with {what}, beside aioquic's recovery" for what in _TROUBLES)
    return [
        *(_speed(compared.OURS, way, 12, "TCP, one stream, GSO/GRO") for way in ways),
        *(_cpu(compared.OURS, way, 4, "TCP, one stream, GSO/GRO") for way in ways),
        *(_speed(compared.NO_OFFLOAD, way, 5, "the same without GSO/GRO") for way in ways),
        *(_cpu(compared.NO_OFFLOAD, way, 8, "the same without GSO/GRO") for way in ways),
        *(_speed(compared.SMALL, way, 12, _SMALL) for way in ways),
        *(_cpu(compared.SMALL, way, 4, _SMALL) for way in ways),
        *(_speed(compared.SMALL_NO_OFFLOAD, way, 5, _SMALL_ALONE) for way in ways),
        *(_cpu(compared.SMALL_NO_OFFLOAD, way, 8, _SMALL_ALONE) for way in ways),
        _speed(compared.IROH, "up", 12, "to a real iroh endpoint"),
        _speed(compared.IROH, "down", 8, "from a real iroh endpoint"),
        *(_many(way) for way in ways),
        *_round_trip(),
        *(_line_share(way) for way in ways),
        *(_cpu(compared.WIRE, way, 12, "emulated path") for way in ways),
        *(_speed(compared.LOSS, way, 1, loss, compared.LOSS_STOCK) for way in ways),
        *(_speed(compared.REORDER, way, 1, reorder, compared.REORDER_STOCK) for way in ways),
        *(_speed(compared.OURS, way, 1, "beside pproxy's pair", compared.PPROXY) for way in ways),
    ]


_SMALL, _SMALL_ALONE = "1452-byte datagrams, GSO/GRO", "1452-byte datagrams without GSO/GRO"
_TROUBLES = ("1 % loss", "0.5 % reordering")


def udp_verdicts(figures: Sequence[Mapping[str, float | str]]) -> list[Verdict]:
    """Two rows for each entry that `bench/udp.py` has saved."""
    rows = []
    for entry in figures:
        label = f"UDP, {entry['line']}, {entry['mode']}"
        delivered = float(entry["delivered"]) * 100
        sides = float(entry["cpu_client"]) * 1e6, float(entry["cpu_server"]) * 1e6
        sent = f"of {entry['sent']} datagrams"
        both = f"{number(sides[0])} / {number(sides[1])} us, client / server"
        dearer = f"{label}, CPU of the dearer side per frame"
        rows.append(verdict(f"{label}, delivered", [delivered], 99, " %", sent, at_least=True))
        rows.append(verdict(dearer, [max(sides)], 15, " us", both, at_least=False))
    return rows


def memory_verdict(grown: Sequence[int], rss: Sequence[int], carried: float) -> Verdict:
    """`grown` and `rss`: bytes of each side; `carried`: GB of payload."""
    sides = " / ".join(number(each / 1e6) for each in grown)
    held = " / ".join(number(each / 1e6) for each in rss)
    label = f"growth of RSS over {number(carried)} GB, worse side"
    absolute = f"{sides} MB, from {held} MB"
    return verdict(label, [max(grown) / 1e6], 5, " MB", absolute, at_least=False)


BESIDE = ("line", "up Mbit/s", "CPU A / B s/GB", "down Mbit/s", "CPU A / B s/GB", "p50 / p99 us")


def beside(name: str, runs: Sequence[Run]) -> list[str]:
    """A row of the table of all lines."""
    found = [run[name] for run in runs if name in run]
    if not found:
        return [name, *("-" for _ in BESIDE[1:])]

    def bulk(bulks: Sequence[Bulk]) -> list[str]:
        sides = [[b.cpu_client for b in bulks], [b.cpu_server for b in bulks]]
        speed = median(b.mbit_per_second for b in bulks)
        return [f"{speed:.0f}", " / ".join(number(median(side)) for side in sides)]

    times = [each.round_trip for each in found if each.round_trip is not None]
    trip = "-"
    if times:
        p50, p99 = median(t.p50 for t in times), median(t.p99 for t in times)
        trip = f"{p50 * 1e6:.0f} / {p99 * 1e6:.0f}"
    return [name, *bulk([m.up for m in found]), *bulk([m.down for m in found]), trip]


def filled(page: str, text: str) -> str:
    """`page` with `text` between its marks. Raises ValueError when they are not there."""
    head, start, rest = page.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ValueError(f"it has no place marked {START} ... {END}")
    return f"{head}{START}\n{text.strip()}\n{END}{tail}"
