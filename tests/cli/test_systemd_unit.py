import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.cli.service_plan import KINDS, NamedFile, Plan, Scope
from tunnel_rs.cli.systemd_unit import check_visible, unit_text, word
from tunnel_rs.errors import UsageError

KEY = NamedFile("--secret-file", "secret_file", Path("/etc/tunnel-rs/server.key"), True)
TOKENS = NamedFile("--auth-tokens-file", "auth_tokens_file", Path("/etc/tunnel-rs/t"), False)
EXPOSURE = {True: 3.5, False: 2.0}
"""The most that `systemd-analyze security` may find, of 10, for a VPN and for all else."""

PLANS = [
    Plan(kind, scope, Path(f"/etc/tunnel-rs/{name} 1%.toml"), ("/bin/true", kind.words[1]))
    for name, kind in KINDS.items()
    for scope in Scope
    if not (kind.is_vpn and scope is Scope.USER)
]
each = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.name} {plan.scope}")


def settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(name, []).append(value)
    return found


def test_the_key_is_handed_over_and_what_is_read_again_is_named() -> None:
    plan = replace(PLANS[1], config=Path("/etc/tunnel-rs/s.toml"), files=(TOKENS, KEY))
    found = settings(unit_text(plan))
    assert found["ExecStart"] == [
        "/bin/true server --config /etc/tunnel-rs/s.toml "
        "--auth-tokens-file /etc/tunnel-rs/t --secret-file %d/secret_file"
    ]
    assert found["LoadCredential"] == ["secret_file:/etc/tunnel-rs/server.key"]
    assert found["WorkingDirectory"] == ["/etc/tunnel-rs"]


@each
def test_every_unit_tells_when_it_is_ready_and_is_watched(plan: Plan) -> None:
    found = settings(unit_text(plan))
    assert found["Type"] == ["notify"] and found["NotifyAccess"] == ["main"]
    assert found["WatchdogSec"] == ["30"] and found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == ["2 3 6"]
    assert ("ExecReload" in found) == plan.kind.reloads
    target = "multi-user.target" if plan.scope is Scope.SYSTEM else "default.target"
    assert found["WantedBy"] == [target]


@each
def test_nobody_is_root_but_the_vpn(plan: Plan) -> None:
    found = settings(unit_text(plan))
    is_system = plan.scope is Scope.SYSTEM
    assert ("User" in found) == (is_system and not plan.kind.is_vpn)
    named = settings(unit_text(replace(plan, run_as="somebody"))).get("User")
    assert named == (["somebody"] if "User" in found else None)


@each
def test_systemd_accepts_the_unit(plan: Plan, tmp_path: Path) -> None:
    unit = tmp_path / f"{plan.name}.service"
    unit.write_text(unit_text(plan))
    done = analyze("verify", f"--{plan.scope}", "--man=no", str(unit), runtime=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.scope is Scope.SYSTEM])
def test_systemd_finds_it_hardened(plan: Plan, tmp_path: Path) -> None:
    unit = tmp_path / f"{plan.name}.service"
    unit.write_text(unit_text(plan))
    command = ("security", "--offline=true", "--no-pager", str(unit))
    done = analyze(*command, runtime=tmp_path)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE[plan.kind.is_vpn]


def analyze(*arguments: str, runtime: Path) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze, which is not installed here")
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime)}
    command = [program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def unquoted(text: str) -> str:
    """What systemd makes of a word (systemd.syntax(7), specifiers and variables included)."""
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return text.replace("$$", "$").replace("%%", "%")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_any_path_is_one_word_and_stays_what_it_is(text: str) -> None:
    assert unquoted(word(text)) == text
    if not word(text).startswith('"'):
        assert not set(word(text)) & set(" \t\"'\\;")


@pytest.mark.parametrize("place", ["/home", "/root", "/tmp", "/run/user"])
def test_a_system_service_would_not_see_a_users_files(place: str) -> None:
    plan = replace(PLANS[1], config=Path(place) / "me" / "server.toml")
    assert plan.scope is Scope.SYSTEM
    with pytest.raises(UsageError, match=f"does not see what is below {place}"):
        check_visible(plan)
    check_visible(replace(plan, scope=Scope.USER))
    check_visible(replace(PLANS[1], files=(replace(KEY, path=Path("/root/key")),)))
    with pytest.raises(UsageError, match="does not see"):
        check_visible(replace(PLANS[1], program=(f"{place}/bin/tunnel-rs", "server")))
