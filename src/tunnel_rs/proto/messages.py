"""The JSON messages that open every stream (spec `tunnel-protocol.md`, "Port forwarding").

On the wire: 4-byte big-endian length, then that many bytes of UTF-8 JSON. One message opens each
direction of a stream; what follows it is payload (source streams) or nothing (the auth stream).
"""

import json
from dataclasses import dataclass

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.json_fields import JsonFields, is_unicode
from tunnel_rs.values import Buffer, Secret

VERSION = 3
MAX_MESSAGE = 16_384
"""Most bytes of JSON in one message; the length prefix is not counted."""

MAX_REASON = 512
"""Most bytes of UTF-8 in a `reason`."""

_PREFIX = 4
_DATAGRAMS = "quic_datagrams"
"""A field of ours. Another program may mean something else by it: all but `true` is no."""
_CUT = "..."


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """Client to server, alone on the first stream. The token is any text until it is compared."""

    auth_token: Secret[str]


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """Server to client: whether the token was accepted."""

    accepted: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """Client to server, first on a stream: what to connect to. `source` is what the peer wrote,
    not yet judged: see `values.SourceUrl.parse`. `datagrams`: the client can take UDP payloads in
    DATAGRAM frames beside the stream. Programs that do not know the field ignore it."""

    source: str
    datagrams: bool = False


@dataclass(frozen=True, slots=True)
class SourceResponse:
    """Server to client: whether payload may follow on this stream, and with `datagrams` beside it:
    true only when the client has offered it."""

    accepted: bool
    reason: str | None = None
    datagrams: bool = False


Message = AuthRequest | AuthResponse | SourceRequest | SourceResponse


def cut_reason(reason: str) -> str:
    """Shorten to `MAX_REASON` bytes of UTF-8 at a character boundary, ending in `...` when cut.

    Lone surrogates (from undecodable file names) become `?`: they have no UTF-8 form.
    """
    data = reason.encode("utf-8", "replace")
    if len(data) <= MAX_REASON:
        return data.decode()
    return data[: MAX_REASON - len(_CUT)].decode("utf-8", "ignore") + _CUT


def shown_reason(text: str) -> str:
    """What a peer gave as its reason, fit to be shown: one line, cut, no control characters."""
    return cut_reason("".join(c if c.isprintable() else " " for c in text))


def _fields_of(message: Message) -> dict[str, object]:
    match message:
        case AuthRequest(auth_token):
            return {"auth_token": auth_token.reveal()}
        case SourceRequest(source, datagrams):
            return {"source": source, **({_DATAGRAMS: True} if datagrams else {})}
        case AuthResponse(accepted, reason):
            return _answer(accepted, reason)
        case SourceResponse(accepted, reason, datagrams):
            return {**_answer(accepted, reason), **({_DATAGRAMS: True} if datagrams else {})}


def _answer(accepted: bool, reason: str | None) -> dict[str, object]:
    return {"accepted": accepted, **({} if reason is None else {"reason": cut_reason(reason)})}


def encode(message: Message) -> bytes:
    """One message with its length prefix. ValueError when it is longer than `MAX_MESSAGE` or not
    Unicode text; the error never quotes the message."""
    fields = {"version": VERSION, **_fields_of(message)}
    if any(isinstance(value, str) and not is_unicode(value) for value in fields.values()):
        raise ValueError("a message with lone surrogates cannot be sent")
    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(body)} bytes is longer than {MAX_MESSAGE}")
    return len(body).to_bytes(_PREFIX, "big") + body


class _Fields(JsonFields):
    """The fields of one received message of this protocol's version."""

    def __init__(self, name: str, body: bytes) -> None:
        super().__init__(name, body)
        version = self.single("version")
        if type(version) is not int or version != VERSION:
            spoken = version if type(version) is int and abs(version) < 1000 else "unknown"
            raise ProtocolError(
                f"the {name} has protocol version {spoken}, this program speaks {VERSION}"
            )

    def reason(self) -> str | None:
        """Fit to be shown: one line, at most `MAX_REASON` bytes, no control characters."""
        text = self.optional("reason", str)
        return None if text is None else shown_reason(text)


def decode_auth_request(body: bytes) -> AuthRequest:
    """Read a message without its length prefix. Raises ProtocolError, never holding the token."""
    return AuthRequest(Secret(_Fields("auth request", body).required("auth_token", str)))


def decode_auth_response(body: bytes) -> AuthResponse:
    """Read a message without its length prefix. Raises ProtocolError."""
    fields = _Fields("auth response", body)
    return AuthResponse(fields.required("accepted", bool), fields.reason())


def decode_source_request(body: bytes) -> SourceRequest:
    """Read a message without its length prefix. Raises ProtocolError."""
    fields = _Fields("source request", body)
    return SourceRequest(fields.required("source", str), fields.single(_DATAGRAMS) is True)


def decode_source_response(body: bytes) -> SourceResponse:
    """Read a message without its length prefix. Raises ProtocolError."""
    fields = _Fields("source response", body)
    accepted, reason = fields.required("accepted", bool), fields.reason()
    return SourceResponse(accepted, reason, fields.single(_DATAGRAMS) is True)


class MessageDecoder:
    """Cuts a byte stream into messages.

    After each `feed` call `next_message` until it returns None; that bounds what is held to one
    unfinished message and one feed. After the last message of the dialogue call `take_rest` at
    once: the bytes that follow are payload and must not be read as a length.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: Buffer) -> None:
        """Add received bytes. RuntimeError when a whole message was left unread before."""
        if self._head_is_complete():
            raise RuntimeError("call next_message or take_rest before feeding more")
        self._buffer += data

    def next_message(self) -> bytes | None:
        """The body of the next message (may be empty), or None when more bytes are needed.

        Raises ProtocolError as soon as a length above `MAX_MESSAGE` has been announced.
        """
        length = self._announced()
        if length is not None and length > MAX_MESSAGE:
            raise ProtocolError(f"a message of {length} bytes was announced, {MAX_MESSAGE} is most")
        if length is None or len(self._buffer) < _PREFIX + length:
            return None
        body = bytes(self._buffer[_PREFIX : _PREFIX + length])
        del self._buffer[: _PREFIX + length]
        return body

    def take_rest(self) -> bytes:
        """Hand over the bytes after the last message, and forget them."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here: no message has begun that is not finished."""
        return not self._buffer

    def _announced(self) -> int | None:
        if len(self._buffer) < _PREFIX:
            return None
        return int.from_bytes(self._buffer[:_PREFIX], "big")

    def _head_is_complete(self) -> bool:
        length = self._announced()
        if length is None:
            return False
        return length > MAX_MESSAGE or len(self._buffer) >= _PREFIX + length
