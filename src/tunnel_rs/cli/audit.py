"""The audit log of a server: who came in and reached what, when, and how many bytes went.

One JSON object a line, each written with one call to the end of the file, so that lines of several
programs do not mix. Fields: docs/OPERATIONS.md.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tunnel_rs import reports
from tunnel_rs.cli.plain import plain
from tunnel_rs.errors import LocalError
from tunnel_rs.net.clock import timestamp, wall_clock
from tunnel_rs.reports import Notice, Report, Reporter

_EVENTS: Mapping[type[Report], str] = {
    reports.ClientAuthenticated: "client_admitted",
    reports.VpnClientJoined: "client_admitted",
    reports.ClientRefused: "client_denied",
    reports.ClientGone: "client_gone",
    reports.SessionOpened: "opened",
    reports.SessionClosed: "closed",
    reports.SessionRefused: "denied",
}
"""The reports that are kept, and what they are called."""


class AuditLog:
    """Open from the start; give every report to `report`, and `reopen` when the file may have been
    moved away."""

    def __init__(
        self, path: Path, warn: Reporter, *, wall: Callable[[], float] = wall_clock
    ) -> None:
        """Raises LocalError when the file cannot be opened. `warn` is told when a line could not
        be written; the program goes on."""
        self._path = path
        self._warn = warn
        self._wall = wall
        self._failing = False
        self._descriptor = self._open()

    def report(self, report: Report) -> None:
        """A `Reporter`."""
        event = _EVENTS.get(type(report))
        if event is None:
            return
        values = {name: plain(getattr(report, name)) for name in report.__dataclass_fields__}
        if not values.get("addresses", True):
            del values["addresses"]  # they are of a VPN
        self._write({"time": timestamp(self._wall()), "event": event, **values})

    def reopen(self) -> None:
        """Go on in the file that has the name now. When it cannot be opened the old one is kept,
        and it is told."""
        try:
            descriptor = self._open()
        except LocalError as error:
            self._warn(Notice("warning", f"{error}; the audit log goes on in the old file"))
            return
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LocalError(f"cannot open the audit log {self._path}: {reason}") from None

    def _write(self, values: Mapping[str, object]) -> None:
        line = json.dumps(values, separators=(",", ":")).encode() + b"\n"
        try:
            whole = os.write(self._descriptor, line) == len(line)
            problem = "" if whole else "the disk is full"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem and not self._failing:
            text = f"cannot write the audit log {self._path}: {problem}; lines are missing there"
            self._warn(Notice("warning", text))
        self._failing = bool(problem)
