from datetime import UTC, datetime

from tunnel_rs.net.clock import timestamp, wall_clock


def test_the_wall_clock_tells_the_time_of_day() -> None:
    assert abs(wall_clock() - datetime.now(UTC).timestamp()) < 5


def test_a_timestamp_is_utc_with_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_764_321_691.1239) == "2025-11-28T09:21:31.123Z"
