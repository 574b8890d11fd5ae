"""Write constraints.txt and constraints-dev.txt: exact versions and sha256 hashes.

Run through `make lock`, which puts `uv` on the path. Resolves once for Python 3.11 and later and
for every platform, so the same two files serve Linux, macOS and Windows. `constraints.txt` holds
what running needs and what builds the package; `constraints-dev.txt` includes it and adds what
tests, checks and benches need. Nothing is written unless both resolve.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "constraints.txt"
DEVELOPMENT = ROOT / "constraints-dev.txt"
# An editable install asks its build backend for this one; it is declared nowhere else.
EDITABLE = "editables"

HEADER = """\
# {what}
# Written by `make lock` from the ranges in pyproject.toml; do not edit.
# Why each one: docs/DEPENDENCIES.md
"""


def entries(lock_text: str) -> dict[str, str]:
    """Split a lock into one text block per package, keyed by the line that pins it."""
    blocks = re.split(r"(?m)^(?=\S)", lock_text)
    return {block.splitlines()[0]: block for block in blocks if "==" in block}


def package(pin: str) -> str:
    return pin.split("==")[0]


def resolve(requirements: list[str], pins: str) -> dict[str, str]:
    """Resolve `requirements`, keeping to the versions named in `pins`."""
    held = ROOT / ".venv" / "lock-pins.txt"
    held.write_text(pins)
    command = [
        *("uv", "pip", "compile", "-", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-header", "--no-annotate", "--upgrade"),
        *("--constraint", str(held)),
    ]
    answer = subprocess.run(
        command, input="\n".join(requirements), capture_output=True, text=True, check=False
    )
    held.unlink()
    if answer.returncode:
        sys.exit(f"lock: uv could not resolve the requirements\n{answer.stderr.strip()}")
    return entries(answer.stdout)


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    runtime = [*project["project"]["dependencies"], *project["build-system"]["requires"], EDITABLE]
    running = resolve(runtime, "")
    everything = resolve(
        [*runtime, *(line for extra in extras.values() for line in extra)],
        "\n".join(pin.removesuffix("\\").strip() for pin in running),
    )
    # A package that both need may be needed on more platforms for development: take that line.
    names = {package(pin) for pin in running}
    running = {pin: block for pin, block in everything.items() if package(pin) in names}
    added = {pin: block for pin, block in everything.items() if pin not in running}
    texts = {
        RUNTIME: HEADER.format(what="What running tunnel-rs needs, and what builds it.")
        + "".join(running.values()),
        DEVELOPMENT: HEADER.format(what="What testing, checking and measuring need on top.")
        + "-r constraints.txt\n"
        + "".join(added.values()),
    }
    if any("://" in text for text in texts.values()):
        sys.exit("lock: an address got into the lock; nothing written")
    for path, text in texts.items():
        path.write_text(text)
        print(f"{path.name}: {len(entries(text))} packages")


if __name__ == "__main__":
    main()
