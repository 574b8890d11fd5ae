"""How long to wait before trying again."""

from collections.abc import Callable


class Backoff:
    """Delays that double from `first` to `limit` seconds, each spread upwards by up to the
    fraction `jitter`, so that many clients of one server do not return in step.

    `random` gives numbers from 0 to 1, for example `random.random`. No delay is below `first` or
    above `limit`, jitter included.
    """

    def __init__(
        self,
        first: float = 1.0,
        limit: float = 60.0,
        jitter: float = 0.2,
        *,
        random: Callable[[], float],
    ) -> None:
        if not 0.0 < first <= limit or jitter < 0.0:
            raise ValueError("a backoff needs 0 < first <= limit and jitter >= 0")
        self._first = first
        self._limit = limit
        self._jitter = jitter
        self._random = random
        self._base = first

    def next_delay(self) -> float:
        """Seconds to wait now; the next one is longer."""
        highest = max(self._first, self._limit / (1.0 + self._jitter))
        base = min(self._base, highest)
        self._base = min(self._base * 2.0, highest)
        return min(base * (1.0 + self._jitter * self._random()), self._limit)

    def reset(self) -> None:
        """Begin again with `first`: the last attempt succeeded."""
        self._base = self._first
