from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.commands import FakeRun

from tunnel_rs.cli.service_host import State, host_for
from tunnel_rs.cli.service_plan import KINDS, Plan, Scope
from tunnel_rs.errors import UsageError

NAME = "tunnel-rs-server"
SHOWN = """\
ActiveState=active
SubState=running
UnitFileState=enabled
MainPID=77
StatusText=Waiting for clients = good
"""
PRINTED = "gui/7/x = {\n\tstate = running\n\tpid = 88\n\tsub = {\n\t\tstate = other\n\t}\n}\n"
PLAN = Plan(KINDS["server"], Scope.SYSTEM, Path("/etc/s.toml"), ("/bin/true", "server"))


@pytest.mark.parametrize(
    ("scope", "systemctl"), [(Scope.SYSTEM, "systemctl"), (Scope.USER, "systemctl --user")]
)
async def test_systemd_is_asked_and_told_by_systemctl(scope: Scope, systemctl: str) -> None:
    run = FakeRun({f"{systemctl} show": SHOWN})
    host = host_for("linux", scope, {}, run)
    await host.files_changed()
    await host.stop(NAME)
    state = await host.state(NAME)
    assert state == State(NAME, True, True, 77, "active (running): Waiting for clients = good")
    assert run.lines()[:2] == [
        f"{systemctl} daemon-reload",
        f"{systemctl} disable --now {NAME}.service",
    ]
    assert host.start_command(NAME) == f"{systemctl} enable --now {NAME}"


async def test_a_service_that_failed_is_not_active() -> None:
    shown = "ActiveState=failed\nSubState=failed\nUnitFileState=disabled\nMainPID=0\nStatusText=\n"
    host = host_for("linux", Scope.SYSTEM, {}, FakeRun({"systemctl show": shown}))
    assert await host.state(NAME) == State(NAME, False, False, None, "failed (failed)")


def test_systemds_files_are_where_it_looks(tmp_path: Path) -> None:
    host = host_for("linux", Scope.SYSTEM, {}, FakeRun())
    assert host.path(NAME) == Path("/etc/systemd/system/tunnel-rs-server.service")
    host = host_for("linux", Scope.USER, {"XDG_CONFIG_HOME": str(tmp_path)}, FakeRun())
    path = host.path(NAME)
    assert path == tmp_path / "systemd" / "user" / "tunnel-rs-server.service"
    path.parent.mkdir(parents=True)
    for name in ("tunnel-rs-b.service", "tunnel-rs-a.service", "other.service"):
        (path.parent / name).write_text("")
    assert host.installed() == ("tunnel-rs-a", "tunnel-rs-b")


@pytest.mark.parametrize(("scope", "domain"), [(Scope.SYSTEM, "system"), (Scope.USER, "gui/")])
async def test_launchd_is_asked_by_launchctl(scope: Scope, domain: str) -> None:
    run = FakeRun({"launchctl print": PRINTED})
    host = host_for("darwin", scope, {}, run)
    state = await host.state(NAME)
    assert (state.active, state.pid, state.text) == (True, 88, "running")
    await host.stop(NAME)
    assert run.lines()[1].startswith(f"launchctl bootout {domain}")
    assert host.start_command(NAME).startswith(f"launchctl bootstrap {domain}")
    assert host.path(NAME).name == "rs.tunnel.tunnel-rs-server.plist"


async def test_what_launchd_does_not_know_is_not_loaded() -> None:
    host = host_for("darwin", Scope.USER, {}, FakeRun(failing=["launchctl print"]))
    assert await host.state(NAME) == State(NAME, False, False, None, "not loaded")


def test_launchd_runs_nothing_as_root_but_the_vpn() -> None:
    host = host_for("darwin", Scope.SYSTEM, {}, FakeRun())
    with pytest.raises(UsageError, match="--run-as"):
        host.text(PLAN)
    assert "<string>somebody</string>" in host.text(replace(PLAN, run_as="somebody"))
    assert "UserName" not in host.text(replace(PLAN, kind=KINDS["vpn-server"]))


def test_other_systems_have_none_that_we_know() -> None:
    with pytest.raises(UsageError, match="INSTALL"):
        host_for("win32", Scope.USER, {}, FakeRun())
