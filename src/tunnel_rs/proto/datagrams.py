"""Payloads in QUIC DATAGRAM frames (RFC 9221): what waits to be sent, and what has come.

Each frame belongs to a *flow* and begins with its number, a variable-length integer: that of the
client's bidirectional stream it accompanies, divided by four (the quarter stream id of RFC 9297
section 2.1). Nothing here is sent again, and nothing waits for room: what is too much is dropped.
"""

from collections import deque
from collections.abc import Sequence

from tunnel_rs.proto import varint
from tunnel_rs.values import Buffer

MAX_FRAME = 65_535
"""The max_datagram_frame_size we announce: any frame that fits a packet."""

MIN_QUEUE, MAX_QUEUE = 128 * 1024, 1024 * 1024
"""Bounds of the bytes that wait for the window and the pacer. Between them it is one congestion
window, so that what is sent is about one round trip late at most."""

MAX_ARRIVED = 8192
"""Payloads of one batch, against peers that send empty ones: a datagram of 1452 bytes holds 480."""

DATAGRAM_HEAD = b"\x31"
"""Type of a DATAGRAM frame with a length, the only ones we write."""
HEAD = 1 + 2 + 8
"""Most bytes of a frame before its payload: type, length, flow."""

_LENGTH = 2  # bytes of the lengths we write
_MAX_LENGTH = (1 << 14) - 1  # what they can tell
_Flows = dict[int, list[bytes]]


class OutgoingDatagrams:
    """Frames that wait to be sent, oldest first. Beyond a limit the oldest are dropped, since late
    datagrams are worth least."""

    __slots__ = ("_frames", "dropped", "octets")

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self.octets = 0
        self.dropped = 0
        """Payloads that were not sent, since the beginning."""

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, flow: int, payloads: Sequence[Buffer], window: int) -> int:
        """Queue `payloads`, each at most `largest_payload` bytes, under a congestion window of
        `window` bytes. Returns how many (older ones perhaps) were dropped to make room."""
        number = varint.encode(flow)
        extra = len(number)
        frames = self._frames
        for payload in payloads:
            length = extra + len(payload)
            frame = b"".join(
                (DATAGRAM_HEAD, (length | 0x4000).to_bytes(_LENGTH, "big"), number, payload)
            )
            frames.append(frame)
            self.octets += len(frame)
        before = self.dropped
        limit = max(MIN_QUEUE, min(window, MAX_QUEUE))
        while self.octets > limit:
            self._drop_oldest()
        return self.dropped - before

    def take(self, room: int) -> bytes:
        """Remove and return whole frames, together at most `room` bytes: the contents of a packet.
        Empty when there is none that fits; one that fits no packet is dropped by `fit`."""
        frames = self._frames
        parts: list[bytes] = []
        while frames and len(frames[0]) <= room:
            frame = frames.popleft()
            room -= len(frame)
            parts.append(frame)
        taken = b"".join(parts)
        self.octets -= len(taken)
        return taken

    def fit(self, room: int) -> None:
        """Packets have become smaller: drop the frames that are longer than `room`."""
        kept = [frame for frame in self._frames if len(frame) <= room]
        self.dropped += len(self._frames) - len(kept)
        self._frames = deque(kept)
        self.octets = sum(map(len, kept))

    def _drop_oldest(self) -> None:
        self.octets -= len(self._frames.popleft())
        self.dropped += 1


def largest_payload(room: int, peer_limit: int, flow: int) -> int:
    """Most bytes of a payload of `flow` when a packet has `room` bytes for frames and the peer
    takes frames of `peer_limit` bytes (RFC 9221 section 3); 0 when none."""
    largest = min(room, peer_limit) - 1 - _LENGTH
    return max(0, min(largest, _MAX_LENGTH) - len(varint.encode(flow)))


class ArrivedDatagrams:
    """Payloads of one batch, by flow."""

    __slots__ = ("_count", "_flows", "dropped")

    def __init__(self) -> None:
        self._flows: _Flows = {}
        self._count = 0
        self.dropped = 0
        """Payloads that were too many or had no flow, since the beginning."""

    def add(self, content: bytes) -> None:
        """One frame's content: flow and payload."""
        try:
            flow, start = varint.decode(content, 0)
        except ValueError:
            self.dropped += 1
            return
        self._put(flow, content[start:])

    def add_frames(self, frames: bytes) -> int:
        """Take in the DATAGRAM frames with a length at the beginning of a packet's `frames`.
        Returns where something else begins, or a frame that is cut off."""
        position, size, head = 0, len(frames), DATAGRAM_HEAD[0]
        while position + 4 <= size and frames[position] == head:
            start = position + 1
            length = frames[start]
            if length < 0x40:
                start += 1
            elif length < 0x80:
                length = (length & 0x3F) << 8 | frames[start + 1]
                start += 2
            else:
                break
            end = start + length
            if end > size:
                break
            if not length or frames[start] >= 0x40:
                self.add(frames[start:end])
            else:
                self._put(frames[start], frames[start + 1 : end])
            position = end
        return position

    def take(self) -> _Flows:
        """Everything that has come since the last call, in order for each flow."""
        flows, self._flows, self._count = self._flows, {}, 0
        return flows

    def _put(self, flow: int, payload: bytes) -> None:
        if self._count >= MAX_ARRIVED:
            self.dropped += 1
            return
        self._count += 1
        payloads = self._flows.get(flow)
        if payloads is None:
            self._flows[flow] = [payload]
        else:
            payloads.append(payload)
