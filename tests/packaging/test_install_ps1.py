"""`install.ps1`, as far as it can be looked at without PowerShell: its syntax, and that it offers
what `install.sh` does. `.github/workflows/check.yml` lints it and has `tools/try_install.ps1` run
it on Windows.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "install.ps1"


def faults(script: bytes) -> Iterator[int]:
    """Lines that a parser of PowerShell cannot make sense of."""
    language = tree_sitter.Language(tree_sitter_powershell.language())
    waiting = [tree_sitter.Parser(language).parse(script).root_node]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            yield node.start_point[0] + 1
        waiting.extend(node.children)


@pytest.mark.parametrize("script", ["install.ps1", "tools/try_install.ps1"])
def test_it_can_be_parsed(script: str) -> None:
    assert not list(faults((ROOT / script).read_bytes()))


def test_a_bracket_too_few_would_be_found() -> None:
    assert list(faults(SCRIPT.read_bytes().replace(b"{", b"", 1)))
    assert list(faults(b"if ($x) { exit 1"))


def test_it_is_plain_text_that_every_powershell_reads_alike() -> None:
    assert SCRIPT.read_bytes().isascii()


def test_no_path_is_taken_for_a_pattern() -> None:
    """A user's directory may have a [ in its name."""
    cmdlets = r"\b(Test-Path|Remove-Item|Get-ChildItem|Copy-Item|Move-Item|Get-FileHash) (\S+)"
    calls = re.findall(cmdlets, SCRIPT.read_text())
    assert len(calls) > 10
    # The one that gets its files from the pipeline has no path.
    assert {first for _, first in calls} == {"-LiteralPath", "-Force"}


def test_it_takes_the_same_options_as_the_script_for_other_systems() -> None:
    usage = (ROOT / "install.sh").read_text().partition("<<'END'")[2].partition("\nEND\n")[0]
    shell = {flag.replace("-", "") for flag in re.findall(r"--([a-z0-9-]+)", usage)} - {"help"}
    declared = re.findall(r"^ {4}\[(?:string|switch)\] \$(\w+)", SCRIPT.read_text(), re.M)
    assert shell == {name.lower() for name in declared} - {"version"}


def test_both_name_the_three_programs() -> None:
    text = SCRIPT.read_text()
    programs = re.findall(
        r"'(tunnel-rs[a-z-]*)'", text.partition("$Programs = ")[2].splitlines()[0]
    )
    shell = re.findall(r"^PROGRAMS='(.*)'$", (ROOT / "install.sh").read_text(), re.M)
    assert shell == [" ".join(programs)]
