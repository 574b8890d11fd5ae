"""The manual pages are those of the commands, and formatters understand them."""

import subprocess

from tools import man_pages

from tests.support.servers import find


def test_the_pages_are_what_the_commands_say_now() -> None:
    written = {path.name: path.read_text() for path in man_pages.DIRECTORY.iterdir()}
    assert written == man_pages.pages(), "run: make man"


def test_a_formatter_has_nothing_to_complain_of() -> None:
    pages = sorted(map(str, man_pages.DIRECTORY.iterdir()))
    command = [find("mandoc"), "-T", "lint", "-W", "warning", *pages]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert complaints == []
