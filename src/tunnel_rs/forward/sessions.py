"""The forwarded connections and UDP flows that are open: numbered, limited, reported, ended."""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import count
from types import TracebackType
from typing import Protocol, Self

from tunnel_rs.forward.accounts import Client
from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.reports import Reporter, SessionClosed, SessionOpened, SessionStatus
from tunnel_rs.values import EndpointId, SocketAddr, SourceUrl


class Carrier(Protocol):
    """What moves the bytes of a session: a splice or a UDP flow."""

    sent: int
    received: int

    def abort(self, reason: str) -> None: ...


class Session:
    """One slot of a `Sessions` table.

    As a context manager it covers the setting up: the slot is free again when that fails.
    """

    def __init__(
        self, sessions: "Sessions", number: int, source: SourceUrl, client: Client | None
    ) -> None:
        self.number = number
        self.source = source
        self.client = client
        """On a server, who asked for it."""
        self.target: SocketAddr | None = None
        """On a server, the address that was dialled."""
        self._sessions = sessions
        self._since = sessions.now()
        self.carrier: Carrier | None = None
        """None until bytes can flow."""
        self._aborted: str | None = None
        self._reported = False

    def carried_by(self, carrier: Carrier) -> None:
        """Bytes flow from now on, and `abort` has something to end."""
        self.carrier = carrier
        if self._aborted is not None:
            carrier.abort(self._aborted)

    def abort(self, reason: str) -> None:
        """End the session at once, or as soon as it has been set up."""
        self._aborted = reason
        if self.carrier is not None:
            self.carrier.abort(reason)

    def opened(self) -> None:
        """The target is connected: from now on the end is reported, too."""
        self._reported = True
        self._sessions.report(SessionOpened(self.number, self.source, *self._who))

    def ended(self, end: SpliceEnd) -> None:
        """The local side is closed. Idempotent."""
        if not self._sessions.free(self, end):
            return
        if self.client is not None:
            self.client.ended(end.sent, end.received)
        if self._reported:
            self._sessions.report(
                SessionClosed(
                    self.number,
                    self.source,
                    end.sent,
                    end.received,
                    end.reason,
                    *self._who,
                    round(self.age, 3),
                )
            )

    @property
    def _who(self) -> tuple[EndpointId | None, str, str]:
        client, target = self.client, str(self.target or "")
        return (client.peer, client.name, target) if client else (None, "", target)

    @property
    def age(self) -> float:
        """Seconds."""
        return self._sessions.now() - self._since

    @property
    def counters(self) -> tuple[int, int]:
        """Payload bytes sent and received so far, as seen by the local socket."""
        carrier = self.carrier
        return (0, 0) if carrier is None else (carrier.sent, carrier.received)

    @property
    def status(self) -> SessionStatus:
        age = round(self.age, 3)
        return SessionStatus(self.number, self.source, str(self.target or ""), *self.counters, age)

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


class Sessions:
    """All sessions of one program. `limit` bounds how many there are at a time."""

    def __init__(
        self, report: Reporter, *, limit: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.report = report
        self.limit = limit
        self.now = now
        self.begun = 0
        """How many there have been."""
        self._sent = self._received = 0  # of those that have ended
        self._open: dict[int, Session] = {}
        self._numbers = count(1)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open.values()))

    def take(self, source: SourceUrl, client: Client | None = None) -> Session | None:
        """A slot for a session on `source`, or None at a limit: ours, or the client's own."""
        if len(self._open) >= self.limit:
            return None
        if client is not None and not client.begin():
            return None
        self.begun += 1
        session = Session(self, next(self._numbers), source, client)
        self._open[session.number] = session
        self._empty.clear()
        return session

    def free(self, session: Session, end: SpliceEnd) -> bool:
        """Give the slot back; False when it was free already."""
        if self._open.pop(session.number, None) is None:
            return False
        self._sent += end.sent
        self._received += end.received
        if not self._open:
            self._empty.set()
        return True

    @property
    def totals(self) -> tuple[int, int]:
        """Payload bytes sent and received over all sessions there have been."""
        sent, received = self._sent, self._received
        for session in self._open.values():  # asked for every second: no copy, no calls
            if (carrier := session.carrier) is not None:
                sent += carrier.sent
                received += carrier.received
        return sent, received

    def add_to(self, moved: dict[Client, list[int]]) -> None:
        """Add the bytes sent and received of open sessions to those of their clients that are in
        `moved`."""
        for session in self._open.values():
            carrier = session.carrier
            if carrier is not None and session.client in moved:
                counts = moved[session.client]
                counts[0] += carrier.sent
                counts[1] += carrier.received

    def abort(self, number: int, reason: str) -> bool:
        """End one session; False when there is none with this number."""
        session = self._open.get(number)
        if session is not None:
            session.abort(reason)
        return session is not None

    def abort_all(self, reason: str) -> None:
        for session in self:
            session.abort(reason)

    async def wait_empty(self) -> None:
        """Wait until no session is open."""
        await self._empty.wait()
