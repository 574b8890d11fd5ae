"""ACK frames beside data, read and written without a buffer object (RFC 9000 section 19.3).

Both work behind the frame's type: PATH_ACK frames go on like ACK frames after the path's id.
"""

from aioquic.quic.rangeset import RangeSet

from tunnel_rs.proto import varint

MAX_RANGES = 4
"""Ranges of packet numbers that are read here; more come after much loss, and are rare."""


def read(frames: bytes, at: int) -> tuple[RangeSet, int, int] | None:
    """What the frame whose first field begins at `at` acknowledges, its delay as it is written, and
    where it ends. None for one that is malformed, or has more than `MAX_RANGES`."""
    try:
        largest, at = varint.decode(frames, at)
        delay, at = varint.decode(frames, at)
        gaps, at = varint.decode(frames, at)
        length, at = varint.decode(frames, at)
        start = largest - length
        if gaps >= MAX_RANGES or start < 0:
            return None
        acknowledged = RangeSet([range(start, largest + 1)])
        for _ in range(gaps):
            gap, at = varint.decode(frames, at)
            length, at = varint.decode(frames, at)
            stop = start - gap - 1
            start = stop - length - 1
            if start < 0:
                return None
            acknowledged.add(start, stop)
    except ValueError:
        return None
    return acknowledged, delay, at


def write(head: bytes, ranges: RangeSet, delay: int) -> bytes:
    """`head` (type, and path id where there is one) and an acknowledgement of `ranges`, of which
    there must be one; `delay` as it is written."""
    newest = ranges[-1]
    start = newest.start
    parts = [
        head,
        varint.encode(newest.stop - 1),
        varint.encode(delay),
        varint.encode(len(ranges) - 1),
        varint.encode(newest.stop - start - 1),
    ]
    for index in range(len(ranges) - 2, -1, -1):
        older = ranges[index]
        parts.append(varint.encode(start - older.stop - 1))
        parts.append(varint.encode(older.stop - older.start - 1))
        start = older.start
    return b"".join(parts)
