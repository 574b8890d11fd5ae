"""When to look at a busy socket a little later, so that more datagrams wait there.

On a path whose packets arrive one by one, evenly spaced, each costs a wake-up; looking once a
millisecond instead halves the receiver's work. Batches that are large already (loopback, bursts)
and lone datagrams (a question and its answer) gain nothing and are left alone.
"""

PAUSE = 0.001
"""Seconds to look away."""

_SMALL_BATCH = 1.5
_LARGE_BATCH = 16.0
_BUSY_INTERVAL = 0.004


class ReceiveModeration:
    """Tell it of each batch; it answers whether to look away for `PAUSE`."""

    __slots__ = ("_batch", "_last")

    def __init__(self) -> None:
        self._batch = 0.0
        self._last = float("-inf")

    def pause_after(self, datagrams: int, now: float) -> bool:
        """`datagrams` have just been read at `now` (seconds)."""
        quiet = now - self._last > _BUSY_INTERVAL
        self._last = now
        self._batch = float(datagrams > 1) if quiet else (3 * self._batch + datagrams) / 4
        return _SMALL_BATCH < self._batch <= _LARGE_BATCH
