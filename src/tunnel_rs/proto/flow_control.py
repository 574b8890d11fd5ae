"""Receive windows that open when the application has consumed, not when bytes arrive.

RFC 9000 section 4 leaves the policy open. A window starts small and doubles each time the
application has kept up with a whole one, so that a stalled reader holds little memory and a fast
one soon has a window of the path's size.
"""

INITIAL_STREAM_WINDOW = 1_048_576
DIALLED_WINDOW = 262_144
"""Connection window of a peer we dialled, until the application knows that it is welcome."""
STALL = 0.020
"""Seconds that a socket's buffer has to bridge while the process does other things."""
HELD_LIMIT = 67_108_864
"""Most unconsumed bytes of all streams of one connection, 64 MiB."""


def window_for(wanted: int, granted: int, rtt: float) -> int:
    """`wanted` bytes of connection window, or less: no more than the `granted` bytes of socket
    buffer must ever arrive within `STALL`. All of a window can be on its way; on a path shorter
    than that it can arrive at once, on a longer one (round trip `rtt` seconds) it is spread."""
    return min(wanted, max(granted, int(granted * rtt / STALL)))


class StreamWindow:
    """Credit of one stream's receiving side. Sizes in bytes, offsets from the stream's start."""

    __slots__ = ("consumed", "limit", "maximum", "size")

    def __init__(self, initial: int, maximum: int) -> None:
        self.size = self.limit = initial
        self.maximum = maximum
        self.consumed = 0

    def consume(self, n: int) -> bool:
        """Count n bytes as passed on. True when the peer should be told a new `limit`."""
        self.consumed += n
        if self.limit - self.consumed > self.size // 2:
            return False
        self.size = min(self.maximum, 2 * self.size)
        self.limit = self.consumed + self.size
        return True


class ConnectionWindow:
    """Credit of a connection: the sum over its streams.

    Bytes held for slow readers do not count against the others until they reach `held_limit`: so
    one stalled stream cannot stop its siblings, and all stalled streams together stay bounded.
    """

    __slots__ = ("_initial", "consumed", "held_limit", "limit", "size")

    def __init__(self, initial: int) -> None:
        self.size = self.limit = self.held_limit = self._initial = initial
        self.consumed = 0

    def update(self, received: int) -> bool:
        """Recompute after bytes arrived or were consumed; `received` counts from the start.
        True when the peer should be told a new `limit`."""
        held = min(received - self.consumed, self.held_limit - self.size)
        wanted = self.consumed + self.size + max(0, held)
        if wanted - self.limit < self.size // 2:
            return False
        self.limit = wanted
        return True

    def trust(self, size: int) -> None:
        """Grant a trusted peer a window of `size`, never less than it had as a stranger, and the
        full allowance for held bytes. A smaller size than before takes nothing back."""
        self.size = max(self._initial, size)
        self.held_limit = max(HELD_LIMIT, 2 * self.size)
