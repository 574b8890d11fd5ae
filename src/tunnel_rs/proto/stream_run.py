"""Packets of one train that continue one stream: told apart from others by their first bytes.

In a bulk transfer each packet's frame begins with the type, the stream id and just the offset where
the packet before it ended. Comparing those bytes costs a tenth of reading them.
"""

from aioquic.quic.connection import Limit
from aioquic.quic.stream import QuicStream


class StreamRun:
    """Begins with one STREAM frame that has been read and found in order; `take` the packets after
    it, then `commit`. Nothing is changed before that."""

    __slots__ = (
        "_credit",
        "_head",
        "_limit",
        "_mark",
        "_offset",
        "_prefix",
        "_width",
        "is_within_limits",
        "pieces",
        "stream",
    )

    def __init__(
        self,
        stream: QuicStream,
        credit: Limit,
        frames: bytes,
        *,
        offset_at: int,
        width: int,
        data_at: int,
    ) -> None:
        """`frames` is a packet's payload whose offset field of `width` bytes is at `offset_at` and
        whose data goes from `data_at` to its end."""
        self.stream = stream
        self._credit = credit
        self._prefix = frames[:offset_at]
        self._width = width
        self._mark = (frames[offset_at] & 0xC0) << (8 * (width - 1))
        data = frames[data_at:]
        self.pieces = [data]
        self._offset = stop = stream.receiver.highest_offset + len(data)
        held = credit.value - credit.used + stream.receiver.highest_offset
        limit = min(stream.max_stream_data_local, held)
        self.is_within_limits = stop <= limit
        """Whether the first packet keeps to flow control."""
        widest = (1 << (8 * width - 2)) - 1  # what the offset's field can hold
        self._limit = min(limit, widest)
        self._head = b""
        if data_at == offset_at + width and stop <= widest:  # there is no length: others may follow
            self._head = self._prefix + (stop | self._mark).to_bytes(width, "big")

    def take(self, frames: bytes) -> bool:
        """Take a packet that continues the stream; False, and nothing done, for any other."""
        at = len(self._head)
        if not at or not frames.startswith(self._head) or len(frames) == at:
            return False
        stop = self._offset + len(frames) - at
        if stop > self._limit:
            return False
        self.pieces.append(frames[at:])
        self._offset = stop
        self._head = self._prefix + (stop | self._mark).to_bytes(self._width, "big")
        return True

    def commit(self) -> None:
        """Account for what has been taken."""
        receiver = self.stream.receiver
        self._credit.used += self._offset - receiver.highest_offset
        receiver._buffer_start = receiver.highest_offset = self._offset
