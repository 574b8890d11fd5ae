"""Bytes a second, from totals that are looked at now and then."""

from collections import deque
from collections.abc import Mapping
from itertools import repeat

Totals = tuple[int, int]
"""Bytes sent and received since the beginning."""

Rate = tuple[float, float]
"""Bytes a second, sent and received."""

HISTORY = 300
"""Rates over all that are remembered."""

SLOT = 1.0
"""Seconds that each of them stands for."""


class Rates:
    """Call `sample` every `SLOT`, or less often while nothing moves. Holds as much as the last
    sample had, and the history."""

    def __init__(self) -> None:
        self.history: deque[Rate] = deque(maxlen=HISTORY)
        """Over all, the newest last."""
        self.now: Rate | None = None
        """Over all, between the last two samples."""
        self._at: float | None = None
        self._all: Totals = (0, 0)
        self._totals: dict[int, Totals] = {}
        self._rates: dict[int, Rate] = {}

    def sample(self, totals: Mapping[int, Totals], everything: Totals, now: float) -> None:
        """`totals` of the links by their numbers, and `everything`, which includes what has gone
        since. `now` is in seconds."""
        seconds = None if self._at is None else now - self._at
        if seconds is not None and seconds > 0:
            self.now = _rate(self._all, everything, seconds)
            slots = min(max(1, round(seconds / SLOT)), HISTORY)
            self.history.extend(repeat(self.now, slots))
            begun = self._totals
            self._rates = {k: _rate(begun.get(k, (0, 0)), t, seconds) for k, t in totals.items()}
        self._at, self._all, self._totals = now, everything, dict(totals)

    def of(self, key: int) -> Rate | None:
        """None: not measured yet."""
        return self._rates.get(key)


def _rate(before: Totals, after: Totals, seconds: float) -> Rate:
    sent, received = after[0] - before[0], after[1] - before[1]
    return max(0.0, sent / seconds), max(0.0, received / seconds)
