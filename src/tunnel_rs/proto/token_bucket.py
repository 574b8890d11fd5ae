"""A token bucket: a rate with room for bursts. Times are seconds of one monotonic clock."""


class TokenBucket:
    """Allows `rate` tokens a second on average and `burst` at once."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Starts full. Raises ValueError unless both are above zero."""
        if rate <= 0 or burst <= 0:
            raise ValueError("rate and burst must be above zero")
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def set_rate(self, rate: float, burst: float, now: float) -> None:
        """Another rate from now on; debts stay."""
        self._refill(now)
        self._rate, self._burst = rate, burst
        self._level = min(self._level, burst)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._level = min(self._burst, self._level + elapsed * self._rate)
        self._at = now

    def spend(self, tokens: float, now: float) -> float:
        """Take tokens, into debt if need be. Returns the seconds to wait before spending again."""
        self._refill(now)
        self._level -= tokens
        return max(0.0, -self._level / self._rate)

    def try_spend(self, tokens: float, now: float) -> bool:
        """Take tokens only if that many are there."""
        self._refill(now)
        if self._level < tokens:
            return False
        self._level -= tokens
        return True
