import sys
from pathlib import Path

import pytest
from tests.support.program import Ended, tunnel_rs

from tunnel_rs.cli.service import next_steps, state_line
from tunnel_rs.cli.service_host import State, host_for
from tunnel_rs.cli.service_plan import KINDS, Plan, Scope
from tunnel_rs.cli.systemd_unit import unit_text
from tunnel_rs.errors import ExitStatus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about systemd")

UNIT = "systemd/user/tunnel-rs-relay.service"


class User:
    """A user with a relay's configuration, and a `systemctl` that notes what it is told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "relay.toml"
        self.config.write_text('http_bind_addr = "127.0.0.1:0"\n')
        self.told = home / "told"
        systemctl = home / "systemctl"
        systemctl.write_text(
            f'#!/bin/sh\necho "$@" >>{self.told}\n'
            "[ $2 = show ] && echo ActiveState=active && echo SubState=running\nexit 0\n"
        )
        systemctl.chmod(0o755)

    def service(self, *arguments: str) -> Ended:
        environ = {"XDG_CONFIG_HOME": str(self.home), "PATH": f"{self.home}:/usr/bin:/bin"}
        return tunnel_rs("service", *arguments, environ=environ)

    def install(self, *more: str) -> Ended:
        return self.service("install", "relay", "-c", str(self.config), *more)

    @property
    def unit(self) -> Path:
        return self.home / UNIT


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    return User(tmp_path)


def test_it_writes_the_unit_and_says_what_is_next(user: User) -> None:
    ended = user.install()
    assert ended.status == 0 and ended.out == ""
    assert ended.err.splitlines() == [
        f"wrote {user.unit}",
        "next: loginctl enable-linger me    (to run while you are logged out)",
        "next: systemctl --user enable --now tunnel-rs-relay",
    ]
    assert f"relay --config-path {user.config}" in user.unit.read_text()
    assert user.unit.stat().st_mode & 0o777 == 0o644
    assert user.told.read_text() == "--user daemon-reload\n"
    assert [path.name for path in user.unit.parent.iterdir()] == [user.unit.name]


def test_to_print_it_changes_nothing(user: User) -> None:
    ended = user.install("--print")
    assert ended.status == 0 and ended.out.startswith("# Written by `tunnel-rs service install")
    assert not user.unit.exists() and not user.told.exists()


def test_a_file_that_differs_is_kept(user: User) -> None:
    user.install()
    assert "unchanged: " in user.install().err
    user.unit.write_text("mine")
    ended = user.install()
    assert ended.status == ExitStatus.FAILURE
    assert ended.err == f"error: {user.unit} is there and differs; --force replaces it\n"
    assert user.unit.read_text() == "mine"
    assert user.install("--force").status == 0
    assert "Type=notify" in user.unit.read_text()


def test_a_second_one_has_a_name_of_its_own(user: User) -> None:
    assert user.install("--name", "b").status == 0
    assert (user.home / "systemd/user/tunnel-rs-relay-b.service").exists()


def test_a_mistake_in_the_configuration_is_found_before_anything_is_written(user: User) -> None:
    user.config.write_text("nonsense = 1\n")
    ended = user.install()
    assert ended.status == ExitStatus.INVALID_CONFIG and "nonsense: unknown key" in ended.err
    assert not user.unit.exists()


def test_uninstall_stops_it_and_removes_the_file_alone(user: User) -> None:
    user.install()
    ended = user.service("uninstall", "relay")
    assert ended.status == 0 and ended.err == f"removed {user.unit}\n"
    assert not user.unit.exists() and user.config.exists()
    assert "--user disable --now tunnel-rs-relay.service" in user.told.read_text()
    again = user.service("uninstall", "relay")
    assert again.status == ExitStatus.FAILURE and "is not installed" in again.err


def test_a_file_of_somebody_else_is_not_removed(user: User) -> None:
    user.unit.parent.mkdir(parents=True)
    user.unit.write_text("[Service]\nExecStart=/usr/bin/tunnel-rs relay\n")
    ended = user.service("uninstall", "relay")
    assert ended.status == ExitStatus.FAILURE and "remove it by hand" in ended.err
    assert user.unit.exists()


def test_without_a_manager_that_listens_it_says_so(user: User) -> None:
    (user.home / "systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    ended = user.install()
    assert ended.status == 0
    assert "warning: the service manager was not told of it: `systemctl --user" in ended.err


def test_status_shows_all_of_them_and_fails_when_there_is_none(user: User) -> None:
    ended = user.service("status")
    assert ended.status == ExitStatus.FAILURE
    assert ended.err == "no user service of tunnel-rs is installed\n"
    user.install()
    user.install("--name", "b")
    ended = user.service("status")
    assert ended.status == 0
    assert ended.out.splitlines() == [
        "tunnel-rs-relay: active (running); does not start by itself",
        "tunnel-rs-relay-b: active (running); does not start by itself",
    ]
    first = user.service("status", "--json").out.splitlines()[0]
    assert first.startswith('{"event":"service","scope":"user","name":"tunnel-rs-relay",')


def test_a_state_in_words() -> None:
    state = State("tunnel-rs-relay", True, True, 7, "active (running): ready")
    assert state_line(state) == "tunnel-rs-relay: active (running): ready, pid 7; starts by itself"


def test_a_system_service_wants_its_user_first() -> None:
    plan = Plan(KINDS["relay"], Scope.SYSTEM, Path(__file__), ("/bin/true", "relay"), "no-such")
    host = host_for("linux", Scope.SYSTEM, {})
    steps = list(next_steps(plan, host, "linux", "me"))
    assert steps[0].startswith("next: useradd --system") and steps[0].endswith(" no-such")
    assert steps[-1] == "next: systemctl enable --now tunnel-rs-relay"
    assert "User=no-such" in unit_text(plan)


def test_a_mac_s_service_can_write_to_its_log() -> None:
    """launchd opens it as the user, who cannot make files in /Library/Logs."""
    host = host_for("darwin", Scope.SYSTEM, {})
    plan = Plan(KINDS["relay"], Scope.SYSTEM, Path("/etc/x"), ("/bin/true", "relay"), "somebody")
    log = "/Library/Logs/tunnel-rs-relay.log"
    assert list(next_steps(plan, host, "darwin", "me")) == [
        f"next: touch {log} && chown somebody {log} && chmod 600 {log}",
        "next: launchctl bootstrap system /Library/LaunchDaemons/rs.tunnel.tunnel-rs-relay.plist",
    ]
