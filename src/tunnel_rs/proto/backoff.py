"""local stand-in"""

from collections.abc import Callable


class Backoff:
    def __init__(
        self,
        first: float = 1.0,
        limit: float = 60.0,
        jitter: float = 0.2,
        *,
        random: Callable[[], float],
    ) -> None:
        self.first, self.limit, self.jitter, self.random = first, limit, jitter, random
        self.n = 0

    def next_delay(self) -> float:
        delay = min(self.limit, self.first * 2**self.n)
        self.n += 1
        return delay * (1 - self.jitter * self.random())

    def reset(self) -> None:
        self.n = 0
