"""Links of nine qualities, from a good one to one that is hardly of use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """Of a link, both ways alike: Mbit/s, share of lost datagrams, seconds one way."""

    rate: float
    loss: float
    delay: float

    @property
    def queue(self) -> int:
        """Bytes of its drop-tail queue: a quarter of a second, as access routers have."""
        return max(16_000, int(self.rate * 1e6 / 8 / 4))

    @property
    def size(self) -> int:
        """Bytes to transfer for some seconds of work."""
        return max(40_000, min(4_000_000, int(self.rate * 100_000)))

    @property
    def text(self) -> str:
        return f"{self.rate:g} Mbit/s, {self.loss:.1%} loss, {2000 * self.delay:g} ms"


QUALITIES = (
    Quality(100, 0.001, 0.005),
    Quality(50, 0.005, 0.010),
    Quality(20, 0.01, 0.020),
    Quality(10, 0.02, 0.020),
    Quality(5, 0.03, 0.030),
    Quality(2, 0.05, 0.050),
    Quality(1, 0.10, 0.050),
    Quality(0.5, 0.15, 0.075),
    Quality(0.25, 0.25, 0.100),
)
