"""When to ping, and when to believe that the other side is gone (spec `vpn.md` section 1.4)."""

PING_INTERVAL = 10.0
"""Seconds between the client's pings."""

CLIENT_PATIENCE = 30.0
"""Seconds without a sign of the server after which the client gives up."""

SERVER_PATIENCE = 35.0
"""Seconds without a sign of a client after which the server gives up: three pings lost."""


class Heartbeat:
    """The signs of life of one peer. `interval` is None on the side that only answers."""

    def __init__(self, now: float, *, patience: float, interval: float | None = None) -> None:
        self._patience = patience
        self._interval = interval
        self._heard = now
        self._next_ping = now

    def heard(self, now: float) -> None:
        """Anything came from the peer."""
        self._heard = now

    def is_lost(self, now: float) -> bool:
        return now - self._heard > self._patience

    def ping_due(self, now: float) -> bool:
        """Whether to send a ping now; asking counts as having sent it. The first one is due at
        once: it makes the stream visible to the peer."""
        if self._interval is None or now < self._next_ping:
            return False
        self._next_ping = now + self._interval
        return True

    def next_look(self, now: float) -> float:
        """Seconds until `is_lost` or `ping_due` may say something else."""
        lost = self._heard + self._patience
        due = lost if self._interval is None else min(lost, self._next_ping)
        return max(due - now, 0.0) + 0.01
