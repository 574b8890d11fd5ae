"""When a client that has no server tries again, and what of that is worth telling. No I/O.

Nobody tells a client that its server, or the network to it, is there again. An attempt costs a
packet every two seconds while it lasts, so for a while they follow each other closely: who comes
back is found within seconds. After that they are far between, unless somebody wants the tunnel.
Whom the server has sent away comes back less and less often in any case.
"""

from collections.abc import Callable

from tunnel_rs.errors import LinkClosedError, TunnelError
from tunnel_rs.proto.backoff import Backoff

EAGER_LIMIT, EAGER_TIME = 2.0, 900.0
"""Most seconds between attempts while the server has not been away for longer than this, or while
somebody wants the tunnel."""

PATIENT_LIMIT = 20.0
"""Most seconds between attempts after that."""

REFUSED_LIMIT = 60.0
"""Most seconds between attempts of whom the server sends away."""

TELL_AGAIN = 60.0
"""Seconds after which it is told again that the tunnel is down for the same reason."""

_EAGER_SPREAD = 0.5


class Retries:
    """Of one client. Times are seconds of one monotonic clock."""

    def __init__(self, *, random: Callable[[], float], eager: bool = True) -> None:
        """`random` gives numbers from 0 to 1. Without `eager` all attempts become as rare as those
        of whom the server sends away: for those that bother others than the server."""
        self._eager = Backoff(limit=EAGER_LIMIT, jitter=_EAGER_SPREAD, random=random)
        self._patient = Backoff(limit=PATIENT_LIMIT, jitter=_EAGER_SPREAD, random=random)
        self._refused = Backoff(limit=REFUSED_LIMIT, random=random)
        self._is_eager = eager
        self._missing_since: float | None = None
        self._told: tuple[str, float] | None = None
        self.hurries = False
        """Whether the next attempt should be made at once when somebody wants the tunnel."""

    def up(self) -> None:
        """There is a tunnel."""
        for each in (self._eager, self._patient, self._refused):
            each.reset()
        self._missing_since = self._told = None
        self.hurries = False

    def after(self, error: TunnelError, now: float, *, was_up: bool, wanted: bool = False) -> float:
        """Seconds until the next attempt, after `error` ended the last one or, if it `was_up`, the
        tunnel. `wanted`: somebody waits for it."""
        if isinstance(error, LinkClosedError) and error.by_peer and not was_up:
            return self.refused()
        return self.missed(now, wanted=wanted)

    def missed(self, now: float, *, wanted: bool = False) -> float:
        """Nobody has answered, or a tunnel that was up was lost: seconds until the next attempt.
        `wanted`: somebody waits for the tunnel."""
        if not self._is_eager:
            return self.refused()
        self.hurries = True
        if self._missing_since is None:
            self._missing_since = now
        if wanted or now - self._missing_since < EAGER_TIME:
            return self._eager.next_delay()
        return self._patient.next_delay()

    def refused(self) -> float:
        """The server has sent us away: seconds until the next attempt."""
        self.hurries = False
        return self._refused.next_delay()

    def is_news(self, reason: str, now: float) -> bool:
        """Whether to tell people that there is no tunnel for that reason; it counts as told."""
        if self._told is not None and self._told[0] == reason and now < self._told[1] + TELL_AGAIN:
            return False
        self._told = reason, now
        return True
