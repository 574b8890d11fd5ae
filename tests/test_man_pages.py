"""The manual pages are those of the commands, and formatters understand them."""

import subprocess
import sys
from pathlib import Path

from tools import man_pages

from tests.support.servers import find


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_the_pages_are_what_the_commands_say_now(tmp_path: Path) -> None:
    # In a process of its own: click keeps the help option that a command was first asked for,
    # which may have been in another test.
    subprocess.run([sys.executable, man_pages.__file__, tmp_path], check=True, timeout=60)
    assert texts(tmp_path) == texts(man_pages.DIRECTORY), "run: make man"


def test_a_formatter_has_nothing_to_complain_of() -> None:
    pages = sorted(map(str, man_pages.DIRECTORY.iterdir()))
    command = [find("mandoc"), "-T", "lint", "-W", "warning", *pages]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert complaints == []
