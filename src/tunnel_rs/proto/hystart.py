"""HyStart++ (RFC 9406): leave slow start when the round trip grows, before packets are lost."""

_MIN_THRESHOLD = 0.004
_MAX_THRESHOLD = 0.016
_DIVISOR = 8
_SAMPLES = 8
_CSS_GROWTH = 1 / 4
_CSS_ROUNDS = 5


class HyStart:
    """Feed round-trip samples in seconds; `growth` scales slow start's growth."""

    __slots__ = ("_baseline", "_css_rounds", "_last_min", "_round_min", "_samples")

    def __init__(self) -> None:
        self._last_min = self._round_min = float("inf")
        self._samples = 0
        self._baseline: float | None = None
        self._css_rounds = 0

    @property
    def growth(self) -> float:
        """1 in slow start, less in conservative slow start (RFC 9406 section 4.2)."""
        return 1.0 if self._baseline is None else _CSS_GROWTH

    def start_round(self) -> None:
        """A round trip has passed."""
        self._last_min, self._round_min = self._round_min, float("inf")
        self._samples = 0
        if self._baseline is not None:
            self._css_rounds += 1

    def sample(self, rtt: float) -> bool:
        """Take a round-trip sample. True when slow start should end."""
        self._round_min = min(self._round_min, rtt)
        self._samples += 1
        if self._samples < _SAMPLES:
            return False
        if self._baseline is not None:
            if self._round_min < self._baseline:
                self._baseline, self._css_rounds = None, 0  # it was no lasting growth
            return self._baseline is not None and self._css_rounds >= _CSS_ROUNDS
        if self._last_min < float("inf"):
            threshold = min(max(self._last_min / _DIVISOR, _MIN_THRESHOLD), _MAX_THRESHOLD)
            if self._round_min >= self._last_min + threshold:
                self._baseline = self._round_min
                self._css_rounds = 0
        return False
