"""Frames of the iroh relay protocol, versions 1 and 2 (spec `relay.md` sections 2 and 3).

One frame is one binary WebSocket message: a type (QUIC varint, RFC 9000 section 16) and a body.
Decoders take one whole message and raise `FrameError` for everything the protocol does not allow.
"""

from enum import IntEnum
from typing import NamedTuple

from tunnel_rs.errors import ProtocolError

ID_SIZE = 32
CHALLENGE_SIZE = 16
SIGNATURE_SIZE = 64
PING_SIZE = 8

MAX_BODY = 65_536
"""Most bytes after the type that a decoder accepts."""

MAX_MESSAGE = MAX_BODY + 8
"""Longest WebSocket message that can hold a valid frame: the type takes up to 8 bytes."""

MAX_DATAGRAM = 65_502
"""Longest payload of a single-datagram frame that we send (the frame is at most 65,536 bytes)."""

MAX_BATCH = 65_500
"""Most payload bytes of a batch frame that we send."""

MAX_REASON = 1024
"""Longest denial reason or health text that is kept, in characters; the rest is cut off."""


class FrameError(ProtocolError):
    """A relay frame that the protocol does not allow; the connection cannot go on."""


class FrameType(IntEnum):
    """First number of every frame."""

    SERVER_CHALLENGE = 0
    CLIENT_AUTH = 1
    SERVER_CONFIRMS_AUTH = 2
    SERVER_DENIES_AUTH = 3
    DATAGRAM_TO_RELAY = 4
    BATCH_TO_RELAY = 5
    DATAGRAM_FROM_RELAY = 6
    BATCH_FROM_RELAY = 7
    ENDPOINT_GONE = 8
    PING = 9
    PONG = 10
    HEALTH = 11
    RESTARTING = 12
    STATUS = 13


class StatusCode(IntEnum):
    """Values of a status frame; a relay may send others, which mean nothing to us."""

    HEALTHY = 0
    SAME_ID_ELSEWHERE = 1
    RATE_LIMITED = 2


class ServerChallenge(NamedTuple):
    challenge: bytes


class ClientAuth(NamedTuple):
    endpoint_id: bytes
    signature: bytes


class ServerConfirmsAuth(NamedTuple):
    pass


class ServerDeniesAuth(NamedTuple):
    reason: str


class Forward(NamedTuple):
    """Datagrams on their way to the relay. `tail` (ECN, segment size, payload) passes untouched."""

    destination: bytes
    is_batch: bool
    tail: bytes

    @property
    def has_payload(self) -> bool:
        return len(self.tail) > (3 if self.is_batch else 1)


class Datagrams(NamedTuple):
    """Datagrams from the relay: `segment_size` bytes each, the last may be shorter."""

    source: bytes
    ecn: int
    segment_size: int
    contents: memoryview


class EndpointGone(NamedTuple):
    endpoint_id: bytes


class Ping(NamedTuple):
    data: bytes


class Pong(NamedTuple):
    data: bytes


class Health(NamedTuple):
    """Version 1 only: a problem in words, empty when it is over."""

    text: str


class Restarting(NamedTuple):
    """The relay is about to restart; both times are milliseconds."""

    reconnect_in: int
    try_for: int


class Status(NamedTuple):
    """Version 2 only; see `StatusCode`."""

    code: int


HandshakeFrame = ServerChallenge | ServerConfirmsAuth | ServerDeniesAuth
FromClient = Forward | Ping | Pong
FromRelay = Datagrams | EndpointGone | Ping | Pong | Health | Restarting | Status


def _split_type(message: bytes) -> tuple[int, int]:
    """The frame type and the offset of the body; a type written longer than needed is allowed."""
    if not message:
        raise FrameError("empty frame from the relay connection")
    first = message[0]
    if first < 0x40:
        kind, offset = first, 1
    else:
        offset = 1 << (first >> 6)
        if len(message) < offset:
            raise FrameError("relay frame cut off in its type")
        kind = int.from_bytes(message[:offset], "big") & ((1 << (8 * offset - 2)) - 1)
    if len(message) - offset > MAX_BODY:
        raise FrameError(
            f"relay frame of {len(message)} bytes, more than {MAX_BODY} are never sent"
        )
    return kind, offset


def _exact(body: bytes, size: int, what: str) -> bytes:
    if len(body) != size:
        raise FrameError(f"relay {what} frame with {len(body)} bytes instead of {size}")
    return body


def _read_postcard_bytes(body: bytes, what: str) -> bytes:
    """A byte string behind its LEB128 length, filling the body exactly."""
    length = shift = 0
    for index, byte in enumerate(body[:3]):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return _exact(body[index + 1 :], length, what)
    raise FrameError(f"relay {what} frame without a valid length")


def _postcard_bytes(value: bytes) -> bytes:
    length, prefix = len(value), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + value


def _text(body: bytes, what: str) -> str:
    try:
        return body.decode()[:MAX_REASON]
    except UnicodeDecodeError:
        raise FrameError(f"relay {what} frame that is not UTF-8") from None


def decode_handshake(message: bytes) -> HandshakeFrame:
    """Client side: a frame before authentication has ended. Raises FrameError."""
    kind, offset = _split_type(message)
    body = message[offset:]
    if kind == FrameType.SERVER_CHALLENGE:
        return ServerChallenge(_exact(body, CHALLENGE_SIZE, "challenge"))
    if kind == FrameType.SERVER_CONFIRMS_AUTH:
        _exact(body, 0, "confirmation")
        return ServerConfirmsAuth()
    if kind == FrameType.SERVER_DENIES_AUTH:
        return ServerDeniesAuth(_text(_read_postcard_bytes(body, "denial"), "denial"))
    raise FrameError(f"relay frame of type {kind} before authentication")


def decode_client_auth(message: bytes) -> ClientAuth:
    """Server side: the one frame a client may send before it is admitted. Raises FrameError."""
    kind, offset = _split_type(message)
    if kind != FrameType.CLIENT_AUTH:
        raise FrameError(f"relay frame of type {kind} before authentication")
    body = message[offset:]
    return ClientAuth(body[:ID_SIZE], _read_signature(body[ID_SIZE:]))


def _read_signature(body: bytes) -> bytes:
    return _exact(_read_postcard_bytes(body, "authentication"), SIGNATURE_SIZE, "authentication")


def decode_from_client(message: bytes) -> FromClient:
    """Server side: a frame from an admitted client. Raises FrameError."""
    kind, offset = _split_type(message)
    if kind == FrameType.DATAGRAM_TO_RELAY or kind == FrameType.BATCH_TO_RELAY:
        is_batch = kind == FrameType.BATCH_TO_RELAY
        end = offset + ID_SIZE
        if len(message) < end + (3 if is_batch else 1):
            raise FrameError("relay datagram frame that is cut off")
        return Forward(message[offset:end], is_batch, message[end:])
    if kind == FrameType.PING:
        return Ping(_exact(message[offset:], PING_SIZE, "ping"))
    if kind == FrameType.PONG:
        return Pong(_exact(message[offset:], PING_SIZE, "pong"))
    raise FrameError(f"relay frame of type {kind}, which no client sends")


def _decode_datagrams(message: bytes, offset: int, is_batch: bool) -> Datagrams:
    start = offset + ID_SIZE + (3 if is_batch else 1)
    if len(message) < start:
        raise FrameError("relay datagram frame that is cut off")
    contents = memoryview(message)[start:]
    segment_size = int.from_bytes(message[start - 2 : start], "big") if is_batch else 0
    source = message[offset : offset + ID_SIZE]
    return Datagrams(source, message[offset + ID_SIZE], segment_size or len(contents), contents)


def decode_from_relay(message: bytes, version: int) -> FromRelay:
    """Client side: a frame after authentication. Raises FrameError."""
    kind, offset = _split_type(message)
    if kind == FrameType.DATAGRAM_FROM_RELAY or kind == FrameType.BATCH_FROM_RELAY:
        return _decode_datagrams(message, offset, kind == FrameType.BATCH_FROM_RELAY)
    return _decode_control(kind, message[offset:], version)


def _decode_control(kind: int, body: bytes, version: int) -> FromRelay:
    if kind == FrameType.PING:
        return Ping(_exact(body, PING_SIZE, "ping"))
    if kind == FrameType.PONG:
        return Pong(_exact(body, PING_SIZE, "pong"))
    if kind == FrameType.ENDPOINT_GONE:
        return EndpointGone(_exact(body, ID_SIZE, "endpoint-gone"))
    if kind == FrameType.RESTARTING:
        _exact(body, 8, "restarting")
        return Restarting(int.from_bytes(body[:4], "big"), int.from_bytes(body[4:], "big"))
    if kind == FrameType.STATUS and version >= 2:
        return Status(_exact(body, 1, "status")[0])
    if kind == FrameType.HEALTH and version == 1:
        return Health(_text(body, "health"))
    raise FrameError(f"relay frame of type {kind}, which version {version} does not send")


def encode_challenge(challenge: bytes) -> bytes:
    return b"\x00" + challenge


def encode_client_auth(auth: ClientAuth) -> bytes:
    return b"\x01" + auth.endpoint_id + _postcard_bytes(auth.signature)


def encode_confirmation() -> bytes:
    return b"\x02"


def encode_denial(reason: str) -> bytes:
    return b"\x03" + _postcard_bytes(reason[:MAX_REASON].encode())


def encode_to_relay(
    destination: bytes, contents: bytes | memoryview, segment_size: int = 0, ecn: int = 0
) -> bytes:
    """Datagrams for `destination`: a batch when `contents` is longer than `segment_size`, which
    is then the size of all datagrams but the last. Raises ValueError for what must not be sent."""
    head = _datagrams_head(FrameType.DATAGRAM_TO_RELAY, len(contents), segment_size, ecn)
    return b"".join((head[:1], destination, head[1:], contents))


def encode_from_relay(
    source: bytes, contents: bytes | memoryview, segment_size: int = 0, ecn: int = 0
) -> bytes:
    """Datagrams from `source`, as a relay sends them. See `encode_to_relay`."""
    head = _datagrams_head(FrameType.DATAGRAM_FROM_RELAY, len(contents), segment_size, ecn)
    return b"".join((head[:1], source, head[1:], contents))


def _datagrams_head(single: FrameType, length: int, segment_size: int, ecn: int) -> bytes:
    is_batch = 0 < segment_size < length
    if not 0 < length <= (MAX_BATCH if is_batch else MAX_DATAGRAM):
        raise ValueError(f"a relay frame cannot carry {length} bytes of datagrams")
    if is_batch:
        return bytes((single + 1, ecn, segment_size >> 8, segment_size & 0xFF))
    return bytes((single, ecn))


def forwarded(frame: Forward, source: bytes) -> bytes:
    """The frame a relay sends on to the destination."""
    return b"".join((b"\x07" if frame.is_batch else b"\x06", source, frame.tail))


def encode_endpoint_gone(endpoint_id: bytes) -> bytes:
    return b"\x08" + endpoint_id


def encode_ping(data: bytes) -> bytes:
    return b"\x09" + data


def encode_pong(data: bytes) -> bytes:
    return b"\x0a" + data


def encode_health(text: str) -> bytes:
    return b"\x0b" + text[:MAX_REASON].encode()


def encode_restarting(reconnect_in: int, try_for: int) -> bytes:
    return b"\x0c" + reconnect_in.to_bytes(4, "big") + try_for.to_bytes(4, "big")


def encode_status(code: int) -> bytes:
    return bytes((FrameType.STATUS, code))
