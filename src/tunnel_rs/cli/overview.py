"""What a running program is doing: kept up from its reports, put together when asked for."""

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from tunnel_rs import __version__, reports
from tunnel_rs.cli import wording
from tunnel_rs.net.clock import timestamp, wall_clock
from tunnel_rs.proto.rates import SLOT, Rates
from tunnel_rs.reports import (
    PacketStatus,
    PeerStatus,
    Penalties,
    Problem,
    ProgramStatus,
    Report,
    TunnelStatus,
)
from tunnel_rs.values import EndpointId

MAX_PROBLEMS = 50
"""The newest are kept."""

SAMPLE_EVERY = SLOT
"""Seconds over which rates are measured while something moves, or somebody looks."""

SAMPLE_IDLE = 4.0
"""Most seconds over which they are measured else: an idle program is to wake rarely."""

_COUNTED: Mapping[type[Report], str] = {
    reports.ClientAuthenticated: "clients_admitted",
    reports.VpnClientJoined: "clients_admitted",
    reports.ClientRefused: "clients_refused",
    reports.SessionOpened: "sessions_opened",
    reports.SessionClosed: "sessions_closed",
    reports.SessionRefused: "sessions_refused",
    reports.TunnelUp: "tunnel_up",
    reports.TunnelLost: "tunnel_lost",
    reports.RelayOnline: "relay_online",
    reports.RelayLost: "relay_lost",
    reports.PathChanged: "path_changed",
}
_PROBLEMS = frozenset(
    {"clients_refused", "sessions_refused", "sessions_failed", "tunnel_lost", "relay_lost"}
)
COUNTS = (*dict.fromkeys(_COUNTED.values()), "sessions_failed", "warnings")
"""All kinds there are."""


class Sessions(Protocol):
    """`forward.sessions.Sessions`, as far as it is looked at."""

    @property
    def begun(self) -> int: ...

    def __len__(self) -> int: ...

    @property
    def totals(self) -> tuple[int, int]: ...


class Observed(Protocol):
    """A server or client."""

    @property
    def sessions(self) -> Sessions: ...

    @property
    def peers(self) -> tuple[PeerStatus, ...]: ...

    @property
    def tunnels(self) -> tuple[TunnelStatus, ...]: ...

    @property
    def penalties(self) -> Penalties:
        """Who has to wait for answers after wrong tokens."""

    @property
    def packets(self) -> PacketStatus | None:
        """Of a VPN."""

    @property
    def moved(self) -> Mapping[int, tuple[int, int]]:
        """Bytes sent and received by each link; asked for often."""


class Overview:
    """Give every report to `report`, and call `sample` again and again, when it says so."""

    def __init__(
        self,
        program: str,
        role: str,
        *,
        wall: Callable[[], float] = wall_clock,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.program = program
        self.role = role
        self.state, self.reason = "starting", ""
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self._wall = wall
        self._now = now or asyncio.get_running_loop().time
        self._started = wall()
        self._since = self._now()
        self._problems: deque[Problem] = deque(maxlen=MAX_PROBLEMS)
        self._rates = Rates()
        self._sampled_at: float | None = None
        self._sample_gap = SAMPLE_EVERY
        self._endpoint_id: EndpointId | None = None
        self._observed: Observed | None = None

    def observe(self, endpoint_id: EndpointId | None, observed: Observed) -> None:
        """Whom it is about."""
        self._endpoint_id = endpoint_id
        self._observed = observed

    @property
    def is_ready(self) -> bool:
        """Whether the program does what it is for: a server can be reached, a client has its
        tunnel."""
        return self.state == "ready"

    def report(self, report: Report) -> None:
        """A `Reporter`."""
        for kind in _kinds(report):
            self.counts[kind] += 1
            if kind in _PROBLEMS or kind == "warnings":
                text = wording.line(report).text.removeprefix("warning: ")
                self._problems.append(Problem(timestamp(self._wall()), kind, text))
        if self.state == "stopping":
            return
        match report:
            case reports.ServerReady() | reports.TunnelUp():
                self.state, self.reason = "ready", ""
            case reports.Stopping():
                self.state, self.reason = "stopping", ""
            case reports.Trying() if self.state == "starting":
                self.state = "connecting"
            case reports.TunnelLost(reason=reason):
                self.state, self.reason = "connecting", reason

    def sample(self) -> float:
        """Measure rates since the last call; the seconds until the next should come. They get more
        while nothing moves."""
        observed, now = self._observed, self._now()
        if observed is None or self._was_sampled(now, SAMPLE_EVERY / 2):
            return SAMPLE_EVERY
        self._sampled_at = now
        self._rates.sample(observed.moved, observed.sessions.totals, now)
        moves = self._rates.now is None or any(self._rates.now)
        self._sample_gap = SAMPLE_EVERY if moves else min(2 * self._sample_gap, SAMPLE_IDLE)
        return self._sample_gap

    def _was_sampled(self, now: float, within: float) -> bool:
        return self._sampled_at is not None and now - self._sampled_at < within

    def status(self) -> ProgramStatus:
        """All of it, as of now."""
        if self._sampled_at is not None and not self._was_sampled(self._now(), SAMPLE_EVERY):
            self.sample()
        observed = self._observed
        sent, received = observed.sessions.totals if observed else (0, 0)
        send_rate, receive_rate = self._rates.now or (None, None)
        return ProgramStatus(
            self.program,
            self.role,
            __version__,
            os.getpid(),
            self._endpoint_id,
            self.state,
            self.reason,
            timestamp(self._started),
            round(self._now() - self._since, 3),
            tuple(map(self._with_rate, observed.peers)) if observed else (),
            observed.tunnels if observed else (),
            len(observed.sessions) if observed else 0,
            observed.sessions.begun if observed else 0,
            sent,
            received,
            _rounded(send_rate),
            _rounded(receive_rate),
            dict(self.counts),
            tuple(self._problems),
            observed.penalties if observed else Penalties(),
            tuple((round(up, 1), round(down, 1)) for up, down in self._rates.history),
            observed.packets if observed else None,
        )

    def _with_rate(self, peer: PeerStatus) -> PeerStatus:
        up, down = self._rates.of(peer.link) or (None, None)
        return replace(peer, send_rate=_rounded(up), receive_rate=_rounded(down))


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1)


def _kinds(report: Report) -> tuple[str, ...]:
    """What a report counts as."""
    if isinstance(report, reports.Notice):
        return ("warnings",) if report.level == "warning" else ()
    kind = _COUNTED.get(type(report))
    failed = isinstance(report, reports.SessionClosed) and report.reason
    return ((kind,) if kind else ()) + (("sessions_failed",) if failed else ())
