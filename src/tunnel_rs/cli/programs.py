"""The running programs of this user, found by their control sockets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel_rs.errors import LocalError, UsageError
from tunnel_rs.net.control_socket import (
    ALL_TIMEOUT,
    STATUS,
    Request,
    ask,
    ask_all,
    runtime_directory,
)

PATTERN = "tunnel-rs-*"

VPN_SERVER, VPN_CLIENT = "vpnserver", "vpnclient"
"""Roles, as `tunnel-rs-vpn` tells them."""

_WORDS = {VPN_SERVER: "VPN server", VPN_CLIENT: "VPN client"}


def kind(role: object) -> str:
    """A role for people."""
    return _WORDS.get(str(role), str(role))


@dataclass(frozen=True, slots=True)
class Program:
    """One that answers. `status` is what it told: docs/STATUS-JSON.md."""

    path: Path
    status: Mapping[str, Any]

    @property
    def role(self) -> str:
        return str(self.status.get("role"))

    @property
    def pid(self) -> int:
        return int(self.status.get("pid", 0))

    @property
    def name(self) -> str:
        """For people."""
        return f"{kind(self.role)} {self.pid}"

    def put(self, request: Request) -> Mapping[str, Any]:
        """Its answer. Raises LocalError with what it finds wrong, or when it has gone."""
        try:
            return ask(self.path, request)
        except (OSError, ValueError) as error:
            raise LocalError(f"{self.name} does not answer: {error}") from None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the programs is meant: by socket, by process id, or whichever there is."""

    socket: Path | None = None
    pid: int | None = None

    def find_all(
        self,
        environ: Mapping[str, str],
        roles: Sequence[str] = (),
        tell: Callable[[str], None] = lambda _: None,
    ) -> list[Program]:
        """All that answer and fit, of any role or one of `roles`; `tell` hears of those that fit
        and do not answer. Raises LocalError when the socket that was named does not."""
        if self.socket is not None:
            try:
                program = Program(self.socket, ask(self.socket, STATUS, timeout=ALL_TIMEOUT))
                return [program] if not roles or program.role in roles else []
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise LocalError(f"{self.socket}: no program answers there: {reason}") from None
        answers = ask_all(runtime_directory(environ), PATTERN)
        for path in answers.silent:
            role, pid = path.stem.split("-")[-2:]  # as they are named
            if self._fits(role, pid, roles):
                tell(silence(path))
        found = (Program(path, status) for path, status in answers.given.items())
        fitting = [each for each in found if self._fits(each.role, str(each.pid), roles)]
        return sorted(fitting, key=lambda program: (program.role != "server", program.pid))

    def _fits(self, role: str, pid: str, roles: Sequence[str]) -> bool:
        return (not roles or role in roles) and (self.pid is None or pid == str(self.pid))

    def find_one(self, environ: Mapping[str, str], roles: Sequence[str]) -> Program:
        """The one program of one of `roles`. Raises LocalError when there is none, UsageError when
        there are several."""
        silent: list[str] = []
        found = self.find_all(environ, roles, silent.append)
        wanted = " or ".join(map(kind, roles))
        if not found:
            which = f" with process id {self.pid}" if self.pid is not None else " of this user"
            verb = "answers" if silent else "is running"
            raise LocalError("; ".join([f"no {wanted}{which} {verb}", *silent]))
        if len(found) > 1:
            names = ", ".join(program.name for program in found)
            raise UsageError(f"{len(found)} programs are running ({names}); choose one with --pid")
        return found[0]


def silence(path: Path) -> str:
    """What to tell of a program that is there and does not answer on its socket."""
    return f"{path.stem} does not answer; it may be stopped, or very busy"
