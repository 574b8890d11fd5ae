"""Asking the peer to acknowledge less often (draft-ietf-quic-ack-frequency-07; spec `multipath.md`
sections 1 and 2).

A peer that acknowledges every second packet costs a sender more than the packets do. Those that
take ACK_FREQUENCY frames say so by the transport parameter min_ack_delay; noq, iroh's QUIC, does.
"""

from aioquic._buffer import Buffer, BufferReadError

from tunnel_rs.proto import varint

MIN_ACK_DELAY = 0xFF04DE1B
ACK_FREQUENCY = 0xAF

SPARSE = 20
"""Packets per acknowledgement while the window is large."""
_DENSE = 2
_MAX_DELAY = 0.010
_REORDERING = 3  # as the packet threshold of loss detection
_LARGE_WINDOW, _SMALL_WINDOW = 128, 64


def min_ack_delay(parameters: bytes) -> float | None:
    """The peer's min_ack_delay in seconds, out of its encoded transport parameters; None when it
    takes no ACK_FREQUENCY frames."""
    buf = Buffer(data=parameters)
    try:
        while not buf.eof():
            kind, length = buf.pull_uint_var(), buf.pull_uint_var()
            value = buf.pull_bytes(length)
            if kind == MIN_ACK_DELAY:
                return Buffer(data=value).pull_uint_var() / 1_000_000
    except BufferReadError:
        pass
    return None


class AckFrequency:
    """What to ask of a peer, as our window grows and shrinks: a small window needs its
    acknowledgements, a large one does not."""

    __slots__ = ("_asked", "_delay", "_sequence", "is_due")

    def __init__(self, min_delay: float) -> None:
        self._delay = max(min_delay, _MAX_DELAY)
        self._asked = _DENSE  # what it does unasked (RFC 9000 section 13.2.2)
        self._sequence = 0
        self.is_due = False
        """A frame should be sent."""

    def window_is(self, packets: int) -> None:
        """The congestion window, in packets."""
        if self._asked == _DENSE and packets >= _LARGE_WINDOW:
            self._asked, self.is_due = SPARSE, True
        elif self._asked == SPARSE and packets < _SMALL_WINDOW:
            self._asked, self.is_due = _DENSE, True

    def next_frame(self) -> bytes:
        """The frame to send, without its type; the next one supersedes it."""
        self.is_due = False
        self._sequence += 1
        return b"".join(
            (
                varint.encode(self._sequence - 1),
                varint.encode(self._asked - 1),  # packets that may come unacknowledged
                varint.encode(int(self._delay * 1_000_000)),
                varint.encode(_REORDERING),
            )
        )
