"""The running programs of this user, found by their control sockets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel_rs.errors import LocalError, TunnelError, UsageError
from tunnel_rs.net.control_socket import STATUS, Request, ask, find, runtime_directory

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

    def find_all(self, environ: Mapping[str, str]) -> list[Program]:
        """All that answer and fit. Raises LocalError when the socket that was named does not."""
        if self.socket is not None:
            try:
                return [Program(self.socket, ask(self.socket, STATUS))]
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise LocalError(f"{self.socket}: no program answers there: {reason}") from None
        found = [_asked(path) for path in find(runtime_directory(environ), PATTERN)]
        fitting = (p for p in found if p is not None and self.pid in (None, p.pid))
        return sorted(fitting, key=lambda program: (program.role != "server", program.pid))

    def find_one(self, environ: Mapping[str, str], roles: Sequence[str]) -> Program:
        """The one program of one of `roles`. Raises LocalError when there is none, UsageError when
        there are several."""
        found = [program for program in self.find_all(environ) if program.role in roles]
        wanted = " or ".join(map(kind, roles))
        if not found:
            which = f" with process id {self.pid}" if self.pid is not None else " of this user"
            raise LocalError(f"no {wanted}{which} is running")
        if len(found) > 1:
            names = ", ".join(program.name for program in found)
            raise UsageError(f"{len(found)} programs are running ({names}); choose one with --pid")
        return found[0]


def _asked(path: Path) -> Program | None:
    try:
        return Program(path, ask(path, STATUS))
    except (OSError, ValueError, TunnelError):
        return None  # of a program that was killed, or that ends just now
