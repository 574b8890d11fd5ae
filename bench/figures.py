"""The figures of the speed issue, with target and verdict: `python bench/figures.py`.

    [--runs 5] [--seconds 4] [--gigabytes 10] [--lines "a; b"] [--quick]
    [--write docs/PERFORMANCE.md] [--from bench/results/figures-....json ...]

A run measures every line once, so that ratios are made of neighbours in time; of all runs the
median counts. Writes JSON to bench/results/ and prints Markdown; `--write` puts that into a page
between its marks, `--from` takes what earlier runs have saved instead of measuring: all lines take
about 45 minutes of a machine that does nothing else, and may be measured a few at a time, each with
the lines it is compared to. The status is 1 when a figure was missed or a line failed.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import compared, goals, report, traffic
from bench.compared import Compared
from bench.forward import GB, Bulk, bulk, sides
from bench.goals import Measured, Verdict
from bench.lines import HERE, Line, ours
from bench.processes import BenchError, Program, python

STREAMS = 50
WARM_UP = 20_000_000
SLOWER, LONGER = 10, 3
"""For slow lines: the divisor of their warm-up, the factor of their time."""
MOST, LEAST = 1_000_000_000, 1_000_000
"""Bytes of one bulk transfer; between them it takes the time asked for."""
QUICK_SECONDS, QUICK_WARM_UP, QUICK_GIGABYTES = 0.5, 3_000_000, 0.1


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    runs: int
    seconds: float
    gigabytes: float
    warm_up: int
    round_trips: int
    quick: bool


@dataclass
class Results:
    runs: list[dict[str, Measured]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    """Lines that did not work, and why."""
    memory: dict[str, Any] | None = None
    udp: list[dict[str, Any]] = field(default_factory=list)


def measure(line: Line, wanted: Compared, extent: Extent) -> Measured:
    if wanted.slow:
        warm_up, seconds = extent.warm_up // SLOWER, extent.seconds * LONGER
        extent = replace(extent, warm_up=warm_up, seconds=seconds)
    up_amount = _amount(extent.warm_up / traffic.upload(line.port, extent.warm_up), extent)
    down_amount = _amount(extent.warm_up / traffic.download(line.port, extent.warm_up), extent)
    if not traffic.echo_intact(line.port, extent.warm_up):
        raise BenchError("it changed or lost what it carried")
    up = bulk(line, up_amount, traffic.upload)
    down = bulk(line, down_amount, traffic.download)
    trips = traffic.round_trips(line.port, extent.round_trips) if wanted.small else None
    many_up = many_down = None
    if wanted.many:
        many_up = bulk(line, up_amount, _fifty_up)
        many_down = bulk(line, down_amount, _fifty_down)
    line.settle()
    return Measured(up, down, True, trips, many_up, many_down)


def _amount(speed: float, extent: Extent) -> int:
    """Bytes that take about the time asked for, at `speed` bytes/s; the same for each stream."""
    return int(min(max(speed * extent.seconds, LEAST), MOST)) // STREAMS * STREAMS


def _fifty_up(port: int, count: int) -> float:
    return traffic.at_once(traffic.upload, port, count, STREAMS)


def _fifty_down(port: int, count: int) -> float:
    return traffic.at_once(traffic.download, port, count, STREAMS)


def measure_all(names: Sequence[str], target: int, extent: Extent, results: Results) -> None:
    for number in range(extent.runs):
        run: dict[str, Measured] = {}
        results.runs.append(run)
        for name in names:
            if name in results.problems:
                continue
            tell(f"run {number + 1} of {extent.runs}: {name}")
            with noted(name, results.problems), compared.ALL[name].begin(target, number) as line:
                measured = measure(line, compared.ALL[name], extent)
            # Not inside: what comes to light when a line is taken down counts against it too.
            if name not in results.problems:
                run[name] = measured


@contextlib.contextmanager
def noted(name: str, problems: dict[str, str]) -> Iterator[None]:
    """A line that fails is left out from then on, with its reason; the others go on."""
    try:
        yield
    except (BenchError, OSError, EOFError, ValueError, subprocess.SubprocessError) as error:
        problems[name] = " ".join(str(error).split())[-300:]
        tell(f"{name}: {error}")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def memory(target: int, extent: Extent) -> dict[str, Any]:
    """RSS of both sides after a warm-up both ways, and how much more after `gigabytes`."""
    tell(f"memory over {extent.gigabytes:g} GB")
    part = int(extent.gigabytes * GB / 10)
    with ours(target) as line:
        for transfer in (traffic.upload, traffic.download):
            transfer(line.port, 10 * extent.warm_up)
        before = [each.rss for each in sides(line)]
        for _ in range(5):
            traffic.upload(line.port, part)
            traffic.download(line.port, part)
        after = [each.rss for each in sides(line)]
    grown = [late - early for early, late in zip(before, after, strict=True)]
    return {"rss": before, "grown": grown, "gigabytes": part * 10 / GB}


def udp(extent: Extent) -> list[dict[str, Any]]:
    """What `bench/udp.py` has measured and saved. Raises BenchError."""
    script = HERE / "udp.py"
    if not script.exists():
        raise BenchError("there is no bench/udp.py")
    tell("UDP")
    options = ["--quick"] if extent.quick else ["--runs", str(extent.runs)]
    command = [str(part) for part in python(script, *options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    saved = done.stdout.strip().rpartition("\n")[2]
    if not saved.endswith(".json"):
        raise BenchError(f"bench/udp.py saved nothing (status {done.returncode})")
    return list(json.loads(Path(saved).read_text())["figures"])


def judged(results: Results) -> list[Verdict]:
    problems = results.problems
    rows = [goals.judge(goal, results.runs, problems) for goal in goals.all_goals()]
    rows += goals.udp_verdicts(results.udp)
    if not results.udp:
        rows.append(Verdict("UDP", "-", "-", "-", None, "UDP" if "UDP" in problems else "left out"))
    if results.memory is not None:
        grown, rss = results.memory["grown"], results.memory["rss"]
        rows.append(goals.memory_verdict(grown, rss, results.memory["gigabytes"]))
    else:
        rows.append(
            Verdict("memory", "-", "-", "-", None, "memory" if "memory" in problems else "left out")
        )
    return rows


def page(results: Results, verdicts: Sequence[Verdict], extent: Extent) -> str:
    """The Markdown that goes into the document."""
    made = report.machine()
    packages: Mapping[str, Any] = made["packages"]  # type: ignore[assignment]
    versions = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        print(
            f"Median of {_counts(results, extent)}, {extent.seconds:g} s for each "
            f"transfer; {made['cores']} cores ({made['processor'] or 'unnamed'}), "
            f"Linux {made['kernel']}, Python {made['python']}, {versions}; "
            f"commit {made['commit']}.\n"
        )
        report.print_table(goals.HEADER, [verdict.cells() for verdict in verdicts])
        print("\nAll lines; A is the client's side, B the server's:\n")
        named = [name for name in compared.ALL if name in results.problems or _has(results, name)]
        rows = [goals.beside(name, results.runs) for name in named]
        report.print_table(goals.BESIDE, rows)
        if results.problems:
            print("\nNot measured:\n")
        for name, reason in results.problems.items():
            print(f"- {name}: {reason}")
    return output.getvalue()


def _counts(results: Results, extent: Extent) -> str:
    """How often a line was measured, in words."""
    counts = {sum(name in run for run in results.runs) for name in compared.ALL} - {0}
    least, most = min(counts, default=extent.runs), max(counts, default=extent.runs)
    return f"{least} to {most} runs" if least < most else f"{most} run{'s' * (most > 1)}"


def _has(results: Results, name: str) -> bool:
    return any(name in run for run in results.runs)


def main() -> int:
    given = _arguments()
    if given.source:
        results, extent = together(given.source)
    else:
        extent = _extent(given)
        results = _measured(given.lines, extent)
    verdicts = judged(results)
    text = page(results, verdicts, extent)
    if len(given.source) != 1:
        saved = {**asdict(results), "verdicts": [asdict(each) for each in verdicts], "page": text}
        path = report.save("figures", {"extent": asdict(extent), **saved})
        tell(f"saved {path}")
    failed = bool(results.problems) or any(each.met is False for each in verdicts)
    print(text)
    if given.write is not None:
        given.write.write_text(goals.filled(given.write.read_text(), text))
    return 1 if failed else 0


def together(files: Sequence[Path]) -> tuple[Results, Extent]:
    """What several runs have saved (of `udp.py` too), as one; the extent of the largest."""
    results = Results()
    extents: list[Extent] = []
    for file in files:
        saved = json.loads(file.read_text())["figures"]
        if isinstance(saved, list):
            results.udp += saved
            continue
        if saved["runs"] or not extents:
            extents.append(Extent(**saved["extent"]))
        results.runs += [
            {name: restored(line) for name, line in run.items()} for run in saved["runs"]
        ]
        results.problems |= saved["problems"]
        results.memory = saved["memory"] or results.memory
        results.udp += saved["udp"]
    if not extents:
        raise SystemExit("none of these files is of figures.py")
    return results, max(extents, key=lambda each: (each.runs, each.seconds))


def restored(line: Mapping[str, Any]) -> Measured:
    """Back from JSON."""
    bulks = {
        name: Bulk(**line[name])
        for name in ("up", "down", "many_up", "many_down")
        if line[name] is not None
    }
    trips = line["round_trip"]
    times = None if trips is None else traffic.Times(**trips)
    return Measured(intact=line["intact"], round_trip=times, **bulks)


def _measured(names: Sequence[str], extent: Extent) -> Results:
    """Ctrl-C ends it early; what has been measured by then counts."""
    results = Results()
    try:
        _measure(names, extent, results)
    except KeyboardInterrupt:
        results.problems["the rest"] = "interrupted"
    return results


def _measure(names: Sequence[str], extent: Extent, results: Results) -> None:
    with Program(python(Path(traffic.__file__))) as tool:
        target = int(tool.wait_for("port ").rpartition(" ")[2])
        measure_all([name for name in names if name in compared.ALL], target, extent, results)
        if "memory" in names:
            with noted("memory", results.problems):
                results.memory = memory(target, extent)
    if "UDP" in names:
        with noted("UDP", results.problems):
            results.udp = udp(extent)


def _extent(given: argparse.Namespace) -> Extent:
    if given.quick:
        return Extent(1, QUICK_SECONDS, QUICK_GIGABYTES, QUICK_WARM_UP, 300, quick=True)
    return Extent(given.runs, given.seconds, given.gigabytes, WARM_UP, 1000, quick=False)


def _arguments() -> argparse.Namespace:
    everything = [*compared.ALL, "memory", "UDP"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="the median of so many counts")
    parser.add_argument("--seconds", type=float, default=4, help="of one bulk transfer, about")
    parser.add_argument("--gigabytes", type=float, default=10, help="for the growth of memory")
    names = "; ".join(everything)
    parser.add_argument("--lines", default=names, help=f"some of: {names.replace('%', '%%')}")
    parser.add_argument("--quick", action="store_true", help="one short run, to see that all works")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="fill in its marked place")
    parser.add_argument(
        "--from",
        type=Path,
        nargs="+",
        default=[],
        dest="source",
        metavar="JSON",
        help="do not measure",
    )
    given = parser.parse_args()
    given.lines = [name.strip() for name in given.lines.split(";")]
    if unknown := [name for name in given.lines if name not in everything]:
        parser.error(f"no such line: {', '.join(unknown)}")
    if given.runs < 1:
        parser.error("--runs: at least 1")
    if given.quick and given.write is not None:
        parser.error("--write: the numbers of a quick run mean nothing")
    if given.write is not None and goals.START not in given.write.read_text():
        parser.error(f"{given.write}: it has no place marked {goals.START}")
    return given


if __name__ == "__main__":
    sys.exit(main())
