"""Packet pacing with a burst that coarse timers can serve (RFC 9002 section 7.7).

aioquic's own pacer hands out at most 16 datagrams per wake-up, which halves throughput where timers
tick in milliseconds; this one allows two milliseconds' worth.
"""

_MIN_BURST_PACKETS = 16
_BURST_TIME = 0.002
_MIN_RTT = 0.000_001
_ROUNDING = 1.0
"""A byte: what is missing for less than a tick of the clock is not waited for."""
_GAIN = 1.25
"""RFC 9002 section 7.7: a little above cwnd/RTT, so that pacing itself is never the limit."""


class Pacer:
    """A token bucket in bytes. Has the surface aioquic expects of its `QuicPacketPacer`."""

    __slots__ = ("_burst", "_datagram_size", "_tokens", "_updated_at", "rate")

    def __init__(self, *, max_datagram_size: int) -> None:
        self._datagram_size = max_datagram_size
        self._burst = float(_MIN_BURST_PACKETS * max_datagram_size)
        self._tokens = self._burst
        self._updated_at = 0.0
        self.rate: float | None = None
        """Bytes per second; None before the first round-trip sample: not paced."""

    def _refill(self, now: float) -> None:
        if now > self._updated_at:
            assert self.rate is not None
            earned = (now - self._updated_at) * self.rate
            self._tokens = min(self._burst, self._tokens + earned)
            self._updated_at = now

    def available(self, now: float) -> int:
        """Whole datagrams that may leave now."""
        if self.rate is None:
            return 1 << 30
        self._refill(now)
        return max(0, int((self._tokens + _ROUNDING) // self._datagram_size))

    def next_send_time(self, now: float) -> float | None:
        """None when a datagram may leave now, else when one, or a millisecond's worth, may."""
        if self.rate is None:
            return None
        self._refill(now)
        if self._tokens + _ROUNDING >= self._datagram_size:
            return None
        worth = min(max(self._datagram_size, self.rate * 0.001), self._burst)
        return now + (worth - self._tokens) / self.rate

    def update_after_send(self, now: float) -> None:
        """Account for one full datagram."""
        if self.rate is not None:
            self._refill(now)
            self._tokens -= self._datagram_size

    def spend(self, n: int) -> None:
        """Account for n bytes that have just left."""
        if self.rate is not None:
            self._tokens -= n

    def set_datagram_size(self, size: int) -> None:
        """Bursts are counted in datagrams of `size` bytes from now on."""
        self._datagram_size = size
        self._burst = max(self._burst, float(_MIN_BURST_PACKETS * size))

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Follow the congestion window."""
        self.rate = _GAIN * congestion_window / max(smoothed_rtt, _MIN_RTT)
        self._burst = max(_MIN_BURST_PACKETS * self._datagram_size, self.rate * _BURST_TIME)
        self._tokens = min(self._tokens, self._burst)
