"""Throughput and CPU per engine setting, as a picture: `python bench/plot.py`.

    python bench/plot.py [FIGURES.json] [--out bench/results/figures.png]

Takes the newest JSON that `bench/figures.py` has saved. Needs matplotlib, which is no dependency of
the project: without it one line says so, and the status is 0.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import compared
from bench.goals import number
from bench.report import RESULTS

UP, DOWN = "#4477aa", "#cc6677"
WIDTH = 0.38


@dataclass(frozen=True)
class Bars:
    """One setting: medians of all runs. Mbit/s, and CPU seconds per GB of both sides together."""

    setting: str
    speed: tuple[float, float]
    cpu: tuple[float, float]


def bars(runs: Sequence[Mapping[str, Any]]) -> list[Bars]:
    """Those lines that stand for a setting, in their order; up and down."""
    found = []
    for name, line in compared.ALL.items():
        measured = [run[name] for run in runs if name in run]
        if line.setting and measured:
            up, down = ([each[way] for each in measured] for way in ("up", "down"))
            found.append(Bars(line.setting, (_speed(up), _speed(down)), (_cpu(up), _cpu(down))))
    return found


def _speed(bulks: Sequence[Mapping[str, float]]) -> float:
    return median(bulk["mbit_per_second"] for bulk in bulks)


def _cpu(bulks: Sequence[Mapping[str, float]]) -> float:
    return median(bulk["cpu_client"] + bulk["cpu_server"] for bulk in bulks)


def draw(pyplot: Any, found: Sequence[Bars], title: str, out: Path) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.6 * len(found) + 1.8), sharey=True)
    names = ("throughput, Mbit/s", "CPU, s/GB, both sides together")
    for axis, name, pairs in zip(
        axes, names, ([each.speed for each in found], [each.cpu for each in found]), strict=True
    ):
        for way, (label, colour) in enumerate((("up", UP), ("down", DOWN))):
            places = [index + (way - 0.5) * WIDTH for index in range(len(pairs))]
            values = [pair[way] for pair in pairs]
            drawn = axis.barh(places, values, WIDTH, label=label, color=colour)
            axis.bar_label(drawn, labels=list(map(number, values)), padding=3, fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(found)), [each.setting for each in found])
    axes[0].invert_yaxis()
    axes[1].legend(frameon=False, loc="lower right")
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", help="default: the newest")
    parser.add_argument("--out", type=Path, default=RESULTS / "figures.png")
    given = parser.parse_args()
    saved = sorted(RESULTS.glob("figures-*.json"))
    if given.source is None and not saved:
        parser.error("there are no figures yet: run bench/figures.py first")
    document = json.loads((given.source or saved[-1]).read_text())
    found = bars(document["figures"]["runs"])
    if not found:
        parser.error("no line in there stands for a setting")
    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("no picture: matplotlib is not installed (pip install matplotlib)")
        return 0
    made = document["on"]
    title = f"one TCP stream over loopback; {made['cores']} cores, Python {made['python']}"
    draw(pyplot, found, f"{title}, commit {made['commit']}", given.out)
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
