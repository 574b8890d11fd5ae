"""The time of day. What measures durations uses the event loop's clock."""

import time
from datetime import UTC, datetime


def wall_clock() -> float:
    """Seconds since 1970."""
    return time.time_ns() / 1e9


def timestamp(wall: float) -> str:
    """RFC 3339, UTC, milliseconds: `2026-11-28T09:21:31.123Z`. `wall` is in seconds since 1970."""
    text = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
