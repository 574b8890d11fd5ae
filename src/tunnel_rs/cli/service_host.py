"""The service managers of Linux and macOS: where their files are, and how they are spoken to."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunnel_rs.cli import launchd_plist, systemd_unit
from tunnel_rs.cli.service_plan import Plan, Scope
from tunnel_rs.errors import LocalError, UsageError
from tunnel_rs.net import commands

MARK = "tunnel-rs-"
"""How the names of all our services begin."""


@dataclass(frozen=True, slots=True)
class State:
    """How a service stands. `active`: it runs; `text` is the manager's word for it, and what the
    program last said of itself."""

    name: str
    active: bool
    enabled: bool
    pid: int | None
    text: str


class Host(Protocol):
    """A service manager."""

    def path(self, name: str) -> Path:
        """The file of a service."""

    def text(self, plan: Plan) -> str:
        """Its content. Raises UsageError when such a service cannot be."""

    def installed(self) -> tuple[str, ...]:
        """Names of our services that there are files of."""

    def start_command(self, name: str) -> str:
        """What starts it now, and with every boot or log-in."""

    async def files_changed(self) -> None:
        """Raises LocalError."""

    async def stop(self, name: str) -> None:
        """Stop it, also for the future. Raises LocalError."""

    async def state(self, name: str) -> State:
        """Raises LocalError."""


class Systemd:
    """Linux's."""

    def __init__(self, scope: Scope, environ: Mapping[str, str], run: commands.Run) -> None:
        self._run = run
        self._systemctl = ("systemctl",) if scope is Scope.SYSTEM else ("systemctl", "--user")
        if scope is Scope.SYSTEM:
            self._directory = Path("/etc/systemd/system")
        else:
            base = environ.get("XDG_CONFIG_HOME", "")
            home = Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()
            self._directory = home / "systemd" / "user"

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.service"

    def text(self, plan: Plan) -> str:
        systemd_unit.check_visible(plan)
        return systemd_unit.unit_text(plan)

    def installed(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self._directory.glob(f"{MARK}*.service")))

    def start_command(self, name: str) -> str:
        return " ".join((*self._systemctl, "enable", "--now", name))

    async def files_changed(self) -> None:
        await self._run((*self._systemctl, "daemon-reload"), "")

    async def stop(self, name: str) -> None:
        await self._run((*self._systemctl, "disable", "--now", f"{name}.service"), "")

    async def state(self, name: str) -> State:
        wanted = "--property=ActiveState,SubState,UnitFileState,MainPID,StatusText"
        answer = await self._run((*self._systemctl, "show", wanted, f"{name}.service"), "")
        values = dict(line.partition("=")[::2] for line in answer.splitlines())
        active = values.get("ActiveState", "unknown")
        said = f": {values['StatusText']}" if values.get("StatusText") else ""
        pid = values.get("MainPID", "0")
        return State(
            name,
            active in ("active", "reloading"),
            values.get("UnitFileState") == "enabled",
            int(pid) if pid.isdecimal() and pid != "0" else None,
            f"{active} ({values.get('SubState', 'unknown')}){said}",
        )


class Launchd:
    """That of macOS. A service is enabled by its file alone."""

    def __init__(self, scope: Scope, uid: int, run: commands.Run) -> None:
        self._run = run
        self._scope = scope
        self._domain = "system" if scope is Scope.SYSTEM else f"gui/{uid}"
        library = Path("/Library") if scope is Scope.SYSTEM else Path("~/Library").expanduser()
        self._directory = library / ("LaunchDaemons" if scope is Scope.SYSTEM else "LaunchAgents")
        self._logs = library / "Logs"

    def path(self, name: str) -> Path:
        return self._directory / f"{launchd_plist.label(name)}.plist"

    def log(self, name: str) -> Path:
        """What gets all that a service prints."""
        return self._logs / f"{name}.log"

    def text(self, plan: Plan) -> str:
        if self._scope is Scope.SYSTEM and plan.run_as is None and not plan.kind.is_vpn:
            raise UsageError("--system needs --run-as USER here: a service needs no root")
        return launchd_plist.plist_text(plan, self.log(plan.name))

    def installed(self) -> tuple[str, ...]:
        head = launchd_plist.label("")
        found = self._directory.glob(f"{head}{MARK}*.plist")
        return tuple(sorted(path.stem.removeprefix(head) for path in found))

    def start_command(self, name: str) -> str:
        return f"launchctl bootstrap {self._domain} {self.path(name)}"

    async def files_changed(self) -> None:
        """launchd reads the file when it is told to start it."""

    async def stop(self, name: str) -> None:
        await self._run(("launchctl", "bootout", self._target(name)), "")

    async def state(self, name: str) -> State:
        try:
            answer = await self._run(("launchctl", "print", self._target(name)), "")
        except LocalError:
            return State(name, False, False, None, "not loaded")
        word = re.search(r"^\s*state = (.+)$", answer, re.M)
        pid = re.search(r"^\s*pid = (\d+)$", answer, re.M)
        text = word[1] if word else "unknown"
        return State(name, text == "running", True, int(pid[1]) if pid else None, text)

    def _target(self, name: str) -> str:
        return f"{self._domain}/{launchd_plist.label(name)}"


def host_for(
    platform: str, scope: Scope, environ: Mapping[str, str], run: commands.Run = commands.run
) -> Host:
    """The manager of this system. Raises UsageError where there is none that we know."""
    if platform == "linux":
        return Systemd(scope, environ, run)
    if platform == "darwin":
        return Launchd(scope, os.getuid(), run)
    raise UsageError(f"services are not managed on {platform}; docs/INSTALL.md says what to do")
