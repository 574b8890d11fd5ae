"""A soak as a picture: memory, descriptors, tasks and latency over time.

    python bench/soak_plot.py [SOAK.json] [--out bench/results/soak.png]

Takes the newest JSON that `bench/soak.py` has saved. Needs matplotlib, which is no dependency of
the project: without it one line says so, and the status is 0.
"""

import argparse
import importlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import soak_figures
from bench.report import RESULTS

COLOURS = {"client": "#4477aa", "server": "#cc6677"}
OUTAGE = "#dddddd"
TICKS = [step * 10.0**power for power in range(-2, 5) for step in (1, 2, 5)]
"""Milliseconds."""


def draw(pyplot: Any, document: Mapping[str, Any], out: Path) -> None:
    """Four panels, minutes along each; grey where the link was out, until it was back."""
    figures, made = document["figures"], document["on"]
    figure, panels = pyplot.subplots(2, 2, figsize=(10, 6), sharex=True)
    (memory, descriptors), (tasks, latency) = panels
    for axis in panels.flat:
        for began, back in figures["cuts"]:
            axis.axvspan(began / 60, back / 60, color=OUTAGE, linewidth=0)
        axis.grid(axis="y", linewidth=0.4, alpha=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for axis, title, key, unit in (
        (memory, "resident memory, MB", "rss", 1e6),
        (descriptors, "open descriptors", "fds", 1),
        (tasks, "asyncio tasks", "tasks", 1),
    ):
        for name, samples in figures["samples"].items():
            minutes = [sample["at"] / 60 for sample in samples]
            values = [sample[key] / unit for sample in samples]
            axis.plot(minutes, values, color=COLOURS[name], linewidth=1, label=name)
        axis.set_title(title, fontsize=10)
        most = max(sample[key] for each in figures["samples"].values() for sample in each)
        axis.set_ylim(0, 1.15 * most / unit)
        axis.yaxis.get_major_locator().set_params(integer=True)
    _latency(latency, figures["pulses"])
    memory.legend(frameon=False, loc="lower right", fontsize=9)
    for axis in panels[1]:
        axis.set_xlabel("minutes", fontsize=9)
    figure.suptitle(
        soak_figures.caption(figures, made["commit"], made["cores"]), fontsize=9, linespacing=1.4
    )
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def _latency(axis: Any, pulses: list[Mapping[str, Any]]) -> None:
    minutes = [pulse["at"] / 60 for pulse in pulses]
    for key, colour in (("p50", "#228833"), ("p99", "#aa3377")):
        # No line across the time in which there was no link.
        values = [math.nan if pulse[key] is None else pulse[key] * 1e3 for pulse in pulses]
        axis.plot(minutes, values, color=colour, linewidth=1, label=key)
    axis.set_yscale("log")
    told = [pulse[key] * 1e3 for pulse in pulses for key in ("p50", "p99") if pulse[key]]
    axis.set_ylim(min(told) / 1.3, max(told) * 2.5)
    axis.set_yticks([tick for tick in TICKS if min(told) <= tick <= max(told) * 2])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_title("connect, 64 bytes there and back: ms", fontsize=10)
    axis.legend(frameon=False, loc="upper right", fontsize=9, ncols=2)


def picture(source: Path, out: Path) -> str:
    """Draw the JSON file `source`; what to tell the user."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return "no picture: matplotlib is not installed (pip install matplotlib)"
    draw(pyplot, json.loads(source.read_text()), out)
    return str(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", help="default: the newest")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.png")
    given = parser.parse_args()
    saved = sorted(RESULTS.glob("soak-*.json"))
    if given.source is None and not saved:
        parser.error("there are no figures yet: run bench/soak.py first")
    print(picture(given.source or saved[-1], given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
