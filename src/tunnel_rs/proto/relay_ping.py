"""When a relay connection is pinged, and when it counts as dead (spec `relay.md` section 3).

The same rule on both sides: a ping after a time in which nothing was received, and a pong within
a few round trips. Times are seconds of one monotonic clock.
"""

IDLE_BEFORE_PING = 15.0
FIRST_PONG_DEADLINE = 5.0
_MIN_DEADLINE, _MAX_DEADLINE = 0.5, 5.0
_ROUND_TRIPS = 3


class PingClock:
    """Tells when to ping. After each call, `get_timer` says when `handle_timer` is next due."""

    def __init__(self, now: float, idle: float = IDLE_BEFORE_PING, *, ping_at_once: bool) -> None:
        """`idle`: seconds without a received frame before a ping."""
        self._idle = idle
        self._ping_at = now if ping_at_once else now + idle
        self._deadline = FIRST_PONG_DEADLINE
        self._outstanding: bytes | None = None
        self._sent_at = 0.0
        self.round_trip: float | None = None
        """Latest measured round trip; None until a pong has come."""

    def frame_received(self, now: float) -> None:
        """To be called for every frame; a ping that is out still wants its pong."""
        if self._outstanding is None:
            self._ping_at = now + self._idle

    def pong_received(self, data: bytes, now: float) -> None:
        """A pong that answers no ping of ours changes nothing."""
        if data != self._outstanding:
            return
        self._outstanding = None
        self._ping_at = now + self._idle
        self.round_trip = now - self._sent_at
        self._deadline = min(max(_ROUND_TRIPS * self.round_trip, _MIN_DEADLINE), _MAX_DEADLINE)

    def get_timer(self) -> float:
        if self._outstanding is not None:
            return self._sent_at + self._deadline
        return self._ping_at

    def is_dead(self, now: float) -> bool:
        """Whether the pong is overdue."""
        return self._outstanding is not None and now >= self._sent_at + self._deadline

    def due(self, now: float) -> bool:
        """Whether a ping is to be sent now; then call `ping_sent`."""
        return self._outstanding is None and now >= self._ping_at

    def ask(self, now: float) -> None:
        """Something has happened to the network: ping at once, whoever was heard lately."""
        if self._outstanding is None:
            self._ping_at = now

    def ping_sent(self, data: bytes, now: float) -> None:
        """`data`: the 8 random bytes of the ping frame."""
        self._outstanding, self._sent_at = data, now
