"""The workflows of `.github/`: what runs where, with which rights."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)


def said_by(program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    found = shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"needs {program}, which is not installed here")
    command = [found, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(workflow.read_text())["jobs"])


@each
def test_it_follows_the_schema_of_workflows(workflow: Path) -> None:
    done = said_by("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_no_way_in() -> None:
    done = said_by("zizmor", "--offline", "--min-severity", "medium", ROOT / ".github")
    assert done.returncode == 0, done.stdout + done.stderr


@each
def test_every_action_is_pinned_by_its_hash_and_says_of_which_version_it_is(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)$", workflow.read_text(), re.M)
    for line in used:
        assert line.startswith("./") or re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", line), line


@each
def test_a_job_has_no_more_rights_than_it_is_given(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
    writing = {name for name, job in jobs(workflow).items() if "permissions" in job}
    assert writing <= {"attest", "publish", "announce", "images"}


@each
def test_every_job_ends(workflow: Path) -> None:
    assert all("timeout-minutes" in job or "uses" in job for job in jobs(workflow).values())


def test_nothing_is_published_that_was_not_checked_built_and_tried() -> None:
    release = jobs(ROOT / ".github" / "workflows" / "release.yml")
    order, job = ["publish"], "publish"
    while needed := release[job].get("needs"):
        order.append(job := needed)
    assert order == ["publish", "attest", "try", "build", "check"]
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert "password" not in str(release["publish"])


@pytest.mark.parametrize(("name", "job"), [("check", "tests"), ("release", "try")])
def test_every_system_and_supported_python_is_tried(name: str, job: str) -> None:
    matrix = jobs(ROOT / ".github" / "workflows" / f"{name}.yml")[job]["strategy"]["matrix"]
    systems = {system.partition("-")[0] for system in matrix["system"]}
    assert systems == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f">={matrix['python'][0]}" == project["requires-python"]
