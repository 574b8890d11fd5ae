"""The forwarded connections and UDP flows that are open: numbered, limited, reported, ended."""

import asyncio
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Self

from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.reports import Reporter, SessionClosed, SessionOpened
from tunnel_rs.values import SourceUrl


class Session:
    """One slot of a `Sessions` table.

    As a context manager it covers the setting up: the slot is free again when that fails.
    """

    def __init__(self, sessions: "Sessions", number: int, source: SourceUrl) -> None:
        self.number = number
        self.source = source
        self.abort: Callable[[str], None] = _nothing_to_abort
        """Ends the session at once with a reason; set once bytes can flow."""
        self._sessions = sessions
        self._reported = False

    def opened(self) -> None:
        """The target is connected: from now on the end is reported, too."""
        self._reported = True
        self._sessions.report(SessionOpened(self.number, self.source))

    def ended(self, end: SpliceEnd) -> None:
        """The local side is closed. Idempotent."""
        if self._sessions.free(self) and self._reported:
            self._sessions.report(
                SessionClosed(self.number, self.source, end.sent, end.received, end.reason)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.ended(SpliceEnd(0, 0, str(exc) or "cancelled"))


def _nothing_to_abort(_reason: str) -> None:
    """Stands in until there is something to abort."""


class Sessions:
    """All sessions of one program. `limit` bounds how many there are at a time."""

    def __init__(self, report: Reporter, *, limit: int) -> None:
        self.report = report
        self.limit = limit
        self._open: dict[int, Session] = {}
        self._numbers = count(1)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, source: SourceUrl) -> Session | None:
        """A slot for a session on `source`, or None at the limit."""
        if len(self._open) >= self.limit:
            return None
        session = Session(self, next(self._numbers), source)
        self._open[session.number] = session
        self._empty.clear()
        return session

    def free(self, session: Session) -> bool:
        """Give the slot back; False when it was free already."""
        if self._open.pop(session.number, None) is None:
            return False
        if not self._open:
            self._empty.set()
        return True

    def abort_all(self, reason: str) -> None:
        for session in list(self._open.values()):
            session.abort(reason)

    async def wait_empty(self) -> None:
        """Wait until no session is open."""
        await self._empty.wait()
