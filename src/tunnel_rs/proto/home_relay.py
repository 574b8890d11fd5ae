"""Which relay is our home, the one where peers find us (spec `relay.md` section 4).

Feed it what each measurement found. The nearest relay wins, but the present one is kept unless
the new one is clearly nearer, so that the home does not flap. Times are seconds.
"""

from collections import deque
from collections.abc import Callable, Mapping

MEMORY = 300.0
"""A latency counts for this long: the best of this time is what is compared."""

REPORT_EVERY = (20.0, 26.0)
"""A measurement is made after a random time between these."""

_CLEARLY_BETTER = 2 / 3
_MAX_SAMPLES = 64


class HomeRelayChoice:
    """The home among a fixed set of relay URLs."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        """`urls` in the order of preference among relays that were never measured."""
        self._samples: dict[str, deque[tuple[float, float]]] = {
            url: deque(maxlen=_MAX_SAMPLES) for url in urls
        }
        self._failed: set[str] = set()
        self.home: str | None = None

    def measured(self, latencies: Mapping[str, float | None], now: float) -> str | None:
        """Take one measurement of all relays: seconds, or None where a relay did not answer.

        Returns the home: a relay that answered now, or, if none did, the one we had.
        """
        answered: dict[str, float] = {}
        for url, latency in latencies.items():
            samples = self._samples.get(url)
            if samples is not None and latency is not None:
                samples.append((now, latency))
                answered[url] = latency
                self._failed.discard(url)
        if answered:
            self.home = self._choose(answered, now)
        return self.home

    def lost(self, url: str) -> str | None:
        """The connection to `url` broke and cannot be made again. Returns the home from now on:
        the nearest of the others that have not failed, or the same when there is none."""
        self._failed.add(url)
        if url == self.home or self.home is None:
            others = [other for other in self._samples if other not in self._failed]
            if others:
                self.home = min(others, key=self._last_latency)
        return self.home

    def connected(self, url: str) -> str | None:
        """A connection to `url` was made. When the home has failed, this one takes its place."""
        self._failed.discard(url)
        if url in self._samples and (self.home is None or self.home in self._failed):
            self.home = url
        return self.home

    def _choose(self, answered: Mapping[str, float], now: float) -> str:
        best = {url: self._best(url, now) for url in answered}
        nearest = min(best, key=lambda url: best[url])
        present = self.home
        if present is None or present not in answered:
            return nearest
        return nearest if best[nearest] < answered[present] * _CLEARLY_BETTER else present

    def _best(self, url: str, now: float) -> float:
        return min(latency for when, latency in self._samples[url] if now - when <= MEMORY)

    def _last_latency(self, url: str) -> float:
        samples = self._samples[url]
        return samples[-1][1] if samples else float("inf")


def next_report_delay(random: Callable[[], float]) -> float:
    """Seconds until the next measurement; `random` gives numbers in [0, 1)."""
    low, high = REPORT_EVERY
    return low + (high - low) * random()
