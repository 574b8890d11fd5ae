"""Datagram size by probing (RFC 8899; RFC 9000 section 14.3): what to try, and what is known.

The largest size is tried first, since most paths carry it; after three losses the range between
what works and what does not is halved until it is not worth another probe.
"""

MIN_SIZE = 1200
"""Every QUIC path carries this (RFC 9000 section 14)."""

_ATTEMPTS = 3
_WORTH = 20
_AGAIN_AFTER = 600.0
_BLACK_HOLE_PROBES = 3


class MtuDiscovery:
    """Sizes are UDP payload bytes. Ask `next_probe`, send a packet of that size, tell its fate."""

    __slots__ = ("_attempts", "_failed", "_probe", "_resume_at", "_upper", "size")

    def __init__(self, upper: int = MIN_SIZE) -> None:
        self.size = MIN_SIZE
        """What is known to pass."""
        self._upper = max(upper, MIN_SIZE)
        self._failed = self._upper + 1
        self._probe: int | None = None
        self._attempts = 0
        self._resume_at = float("-inf")

    def restart(self, upper: int) -> None:
        """Begin anew: another path, or a peer's limit learnt."""
        self.__init__(upper)  # type: ignore[misc]

    def next_probe(self, now: float) -> int | None:
        """The size of the probe to send now; None while one is under way or nothing is left."""
        if self._probe is not None or now < self._resume_at:
            return None
        if self._resume_at > float("-inf"):
            self._failed, self._resume_at = self._upper + 1, float("-inf")
        wanted = self._upper if self._failed > self._upper else (self.size + self._failed) // 2
        if wanted - self.size < (1 if wanted == self._upper else _WORTH):
            if self.size < self._upper:
                self._resume_at = now + _AGAIN_AFTER
            return None
        self._probe = wanted
        return wanted

    def acknowledged(self, size: int) -> bool:
        """A probe of `size` arrived. True when `size` is now larger."""
        if size == self._probe:
            self._probe, self._attempts = None, 0
        if size <= self.size or size >= self._failed:
            return False
        self.size = size
        return True

    def lost(self, size: int) -> None:
        """A probe of `size` did not arrive."""
        if size != self._probe:
            return
        self._probe = None
        self._attempts += 1
        if self._attempts >= _ATTEMPTS:
            self._attempts, self._failed = 0, size

    def timed_out(self, probes: int, now: float) -> bool:
        """`probes` probe timeouts in a row: perhaps the path carries less now than it did. True
        when the size has been taken back to the minimum."""
        if probes < _BLACK_HOLE_PROBES or self.size == MIN_SIZE:
            return False
        self.size, self._probe, self._attempts = MIN_SIZE, None, 0
        self._resume_at = now + _AGAIN_AFTER
        return True
