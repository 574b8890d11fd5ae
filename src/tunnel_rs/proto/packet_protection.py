"""1-RTT packet protection for whole trains (RFC 9001 section 5).

The AEAD works packet by packet; header protection of a train is one AES-ECB call over all samples,
where aioquic makes one call and several copies for each packet. The two loops are written out: a
function call per packet would cost as much as the cipher.
"""

from collections.abc import Sequence

from aioquic.quic.crypto import CryptoContext
from cryptography.exceptions import InvalidTag

from tunnel_rs.proto.path_keys import PATH_ID_SHIFT

TAG_SIZE = 16
SAMPLE_SIZE = 16
PACKET_NUMBER_SIZE = 2
"""Bytes of the packet numbers we write; enough for 32,767 packets in flight."""

MAX_PACKETS_PER_KEY = 1 << 22
"""Packets sealed with one key before it is updated: half of AES-GCM's confidentiality limit
(RFC 9001 section 6.6)."""

_SAMPLE_OFFSET = 4  # from the packet number's first byte, RFC 9001 section 5.4.2
_SHORT_HEADER_MASK = 0x1F


def is_supported(context: CryptoContext) -> bool:
    """Whether trains can be sealed and opened with these keys: they are there, and not ChaCha20,
    whose header protection cannot be batched."""
    return context.aead is not None and context.hp is not None and not context.hp._is_chacha20


class TrainSealer:
    """Seals trains of packets of one path."""

    __slots__ = ("_encrypt", "_id_size", "_iv", "_mask", "_prefix", "overhead")

    def __init__(
        self,
        context: CryptoContext,
        *,
        key_phase: int,
        spin: bool,
        peer_id: bytes,
        path_id: int = 0,
    ) -> None:
        assert context.aead is not None and context.hp is not None
        self._encrypt = context.aead._aead.encrypt_into
        self._iv = context.aead._iv ^ path_id << PATH_ID_SHIFT
        self._mask = context.hp._encryptor.update
        first = 0x40 | spin << 5 | key_phase << 2 | PACKET_NUMBER_SIZE - 1
        self._prefix = bytes([first]) + peer_id
        self._id_size = len(peer_id)
        self.overhead = 1 + len(peer_id) + PACKET_NUMBER_SIZE + TAG_SIZE
        """Bytes of a packet that are not frames."""

    def seal(
        self,
        into: memoryview,
        number: int,
        frame: bytes,
        offset: int,
        data: memoryview,
        step: int,
        last_frame: bytes,
    ) -> int:
        """Write packets `number`, `number + 1`, ... of one STREAM frame each into the buffer and
        return where they end.

        Each holds `frame` (type and stream id), the stream offset as an 8-byte varint and `step`
        bytes of `data`; the last one `last_frame` and the rest, which may be empty.
        """
        encrypt, iv, prefix = self._encrypt, self._iv, self._prefix
        header_size = len(prefix) + PACKET_NUMBER_SIZE
        starts = []
        end = position = 0
        size = len(data)
        while True:
            rest = size - position
            if rest <= step:
                frame, length = last_frame, rest
            else:
                length = step
            stop = position + length
            payload = b"".join(
                (frame, (offset | 0xC000000000000000).to_bytes(8, "big"), data[position:stop])
            )
            header = prefix + (number & 0xFFFF).to_bytes(PACKET_NUMBER_SIZE, "big")
            starts.append(end)
            body = end + header_size
            into[end:body] = header
            end = body + len(payload) + TAG_SIZE
            encrypt((iv ^ number).to_bytes(12, "big"), payload, header, into[body:end])
            if stop == size:
                break
            number += 1
            offset += length
            position = stop
        self._protect(into, starts)
        return end

    def seal_each(self, into: memoryview, number: int, packets: Sequence[bytes]) -> int:
        """Write packets `number`, `number + 1`, ... of the frames in `packets` (at least 3 bytes
        each, RFC 9001 section 5.4.2) into the buffer and return where they end."""
        encrypt, iv, prefix = self._encrypt, self._iv, self._prefix
        header_size = len(prefix) + PACKET_NUMBER_SIZE
        starts = []
        end = 0
        for payload in packets:
            header = prefix + (number & 0xFFFF).to_bytes(PACKET_NUMBER_SIZE, "big")
            starts.append(end)
            body = end + header_size
            into[end:body] = header
            end = body + len(payload) + TAG_SIZE
            encrypt((iv ^ number).to_bytes(12, "big"), payload, header, into[body:end])
            number += 1
        self._protect(into, starts)
        return end

    def _protect(self, into: memoryview, starts: Sequence[int]) -> None:
        at = 1 + self._id_size
        sample = at + _SAMPLE_OFFSET
        masks = self._mask(b"".join([into[s + sample : s + sample + SAMPLE_SIZE] for s in starts]))
        offset = 0
        for start in starts:
            into[start] ^= masks[offset] & _SHORT_HEADER_MASK
            into[start + at] ^= masks[offset + 1]
            into[start + at + 1] ^= masks[offset + 2]
            offset += SAMPLE_SIZE


class TrainOpener:
    """Opens trains of short-header packets with one destination id and one key phase."""

    __slots__ = ("_at", "_bits", "_decrypt", "_iv", "_mask")

    def __init__(self, context: CryptoContext, id_size: int, path_id: int = 0) -> None:
        assert context.aead is not None and context.hp is not None
        self._decrypt = context.aead._aead.decrypt
        self._iv = context.aead._iv ^ path_id << PATH_ID_SHIFT
        self._mask = context.hp._encryptor.update
        self._at = 1 + id_size
        # Reserved bits clear and our key phase: all else is for the slow path.
        self._bits = context.key_phase << 2

    def open(
        self, train: memoryview, segment_size: int, expected: int
    ) -> tuple[list[tuple[int, bytes]], int]:
        """Open packets until one is not plain (long header, other id, other key phase, too short).

        Returns (packet number, frames) of the authentic ones and the offset where it stopped.
        `expected` is the largest packet number received so far plus one.
        """
        decrypt, iv, bits, at = self._decrypt, self._iv, self._bits, self._at
        sample = at + _SAMPLE_OFFSET
        size = len(train)
        starts = range(0, size - sample - SAMPLE_SIZE + 1, segment_size)
        masks = self._mask(b"".join([train[s + sample : s + sample + SAMPLE_SIZE] for s in starts]))
        peer_id = bytes(train[1:at])
        opened: list[tuple[int, bytes]] = []
        offset = -SAMPLE_SIZE
        for start in starts:
            offset += SAMPLE_SIZE
            first = train[start] ^ (masks[offset] & _SHORT_HEADER_MASK)
            if first & 0x9C != bits or train[start + 1 : start + at] != peer_id:
                return opened, start
            length = (first & 3) + 1
            body = start + at + length
            number = int.from_bytes(train[start + at : body], "big") ^ int.from_bytes(
                masks[offset + 1 : offset + 1 + length], "big"
            )
            header = b"%c%b%b" % (first, peer_id, number.to_bytes(length, "big"))
            number = full_number(number, length, expected)
            end = min(start + segment_size, size)
            try:
                frames = decrypt((iv ^ number).to_bytes(12, "big"), train[body:end], header)
            except InvalidTag:
                continue
            if number >= expected:
                expected = number + 1
            opened.append((number, frames))
        stopped = len(starts) * segment_size
        return opened, min(stopped, size)


def full_number(truncated: int, size: int, expected: int) -> int:
    """The packet number that `size` received bytes stand for (RFC 9000 appendix A.3)."""
    window = 1 << (8 * size)
    number = (expected & ~(window - 1)) | truncated
    if number <= expected - window // 2:
        return number + window
    if number > expected + window // 2 and number >= window:
        return number - window
    return number
