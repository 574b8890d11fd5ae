"""Tables for people and JSON for later, with the machine they were made on."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.processes import ROOT

PACKAGES = ("aioquic", "cryptography", "uvloop", "iroh", "asyncssh", "pproxy")
RESULTS = ROOT / "bench" / "results"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table with padded columns; the first column is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def show(cells: Sequence[str]) -> None:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print("| " + " | ".join(padded) + " |")

    show(header)
    show(["-" * width for width in widths])
    for row in rows:
        show(row)


def save(name: str, figures: object) -> Path:
    """Write `figures` (plain data) and what they were measured on; the file's path."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    document = {"made": now.isoformat(timespec="seconds"), "on": machine(), "figures": figures}
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def machine() -> Mapping[str, object]:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if "model name" in line), "")
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit or None,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
