"""The JSON messages of ICE signalling (spec `ice.md` section 1.2).

Two fields are ours: `streams` names a protocol for the streams that both ends understand, and
`quic_client_fingerprint` the certificate the client will show. The original ignores them.
"""

import json
from dataclasses import dataclass
from typing import Any

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.ice_candidates import is_ice_text
from tunnel_rs.proto.messages import cut_reason
from tunnel_rs.values import EndpointId

VERSION = 1
STREAMS = "multi-forward/1"
"""Every stream begins with a source request, as between two `tunnel-rs`."""

MAX_JSON = 1 << 20
"""Most bytes of one message; a sensible one has about 1,500."""
MAX_CANDIDATES = 256
"""Most candidates listed in one message; more is a mistake or an attack."""
MAX_SOURCE = 512
SESSION_ID_LENGTH = 16


@dataclass(frozen=True, slots=True)
class IceParameters:
    """What a peer needs to check connectivity with us. The password is worth protecting while a
    session is set up: it is never shown."""

    ufrag: str
    password: str
    candidates: tuple[str, ...]

    def __repr__(self) -> str:
        return f"IceParameters({self.ufrag}, ***, {len(self.candidates)} candidates)"


@dataclass(frozen=True, slots=True)
class Offer:
    """manual: client to server with a source. nostr: server to client with fingerprint and id."""

    ice: IceParameters
    fingerprint: EndpointId | None = None
    session_id: str | None = None
    source: str | None = None
    streams: str | None = None
    client_fingerprint: EndpointId | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """manual: server to client with a fingerprint. nostr: client to server, a courtesy."""

    ice: IceParameters
    session_id: str | None = None
    fingerprint: EndpointId | None = None
    streams: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """nostr: client to server. `timestamp` is in seconds since 1970."""

    ice: IceParameters
    session_id: str
    timestamp: int
    source: str | None = None
    streams: str | None = None
    client_fingerprint: EndpointId | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """nostr: server to client, for people."""

    session_id: str
    reason: str


IceMessage = Offer | Answer | Request | Reject


def encode(message: IceMessage) -> bytes:
    """Compact JSON, fields in the original's order, absent ones left out."""
    fields = {"version": VERSION, **_fields_of(message)}
    present = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(present, separators=(",", ":"), ensure_ascii=False).encode()


def _fields_of(message: IceMessage) -> dict[str, object]:
    match message:
        case Offer():
            return {
                **_ice_fields(message.ice),
                "quic_fingerprint": _hex(message.fingerprint) or "",
                "session_id": message.session_id,
                "source": message.source,
                "streams": message.streams,
                "quic_client_fingerprint": _hex(message.client_fingerprint),
            }
        case Answer():
            return {
                **_ice_fields(message.ice),
                "session_id": message.session_id,
                "quic_fingerprint": _hex(message.fingerprint),
                "streams": message.streams,
            }
        case Request():
            return {
                **_ice_fields(message.ice),
                "session_id": message.session_id,
                "timestamp": message.timestamp,
                "source": message.source,
                "streams": message.streams,
                "quic_client_fingerprint": _hex(message.client_fingerprint),
            }
        case Reject():
            return {"session_id": message.session_id, "reason": cut_reason(message.reason)}


def _hex(fingerprint: EndpointId | None) -> str | None:
    return None if fingerprint is None else str(fingerprint)


def _ice_fields(ice: IceParameters) -> dict[str, object]:
    return {"ice_ufrag": ice.ufrag, "ice_pwd": ice.password, "candidates": list(ice.candidates)}


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


class _Fields:
    """A received JSON object. Errors never quote a value: it may be a password."""

    def __init__(self, name: str, body: bytes) -> None:
        self._name = name
        if len(body) > MAX_JSON:
            raise ProtocolError(f"the {name} has {len(body)} bytes; {MAX_JSON} is most")
        try:
            fields = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise ProtocolError(f"the {name} holds no JSON object")
        self._fields: dict[str, Any] = fields
        version = fields.get("version")
        if type(version) is not int or version != VERSION:
            spoken = version if type(version) is int and abs(version) < 1000 else "unknown"
            raise ProtocolError(
                f"the {name} has signalling version {spoken}, this program speaks {VERSION}; "
                "use the same release on both sides"
            )

    def text(self, field: str, longest: int = 4096) -> str:
        value = self.optional_text(field, longest)
        if value is None:
            raise ProtocolError(f"the {self._name} has no field {field!r}")
        return value

    def optional_text(self, field: str, longest: int = 4096) -> str | None:
        value = self._fields.get(field)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > longest:
            raise ProtocolError(
                f"the field {field!r} of the {self._name} is not text of {longest} characters "
                "at most"
            )
        return value

    def ice(self) -> IceParameters:
        ufrag, password = self.text("ice_ufrag"), self.text("ice_pwd")
        if not is_ice_text(ufrag, 4) or not is_ice_text(password, 22):
            raise ProtocolError(f"the ICE credentials of the {self._name} are not well-formed")
        return IceParameters(ufrag, password, self._candidates())

    def _candidates(self) -> tuple[str, ...]:
        value = self._fields.get("candidates")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ProtocolError(f"the {self._name} has no list of candidates")
        if len(value) > MAX_CANDIDATES:
            raise ProtocolError(
                f"the {self._name} lists {len(value)} candidates; {MAX_CANDIDATES} is most"
            )
        return tuple(value)

    def fingerprint(self, field: str) -> EndpointId | None:
        text = self.optional_text(field)
        if not text:
            return None
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raw = b""
        if len(raw) != 32 or len(text) != 64:
            raise ProtocolError(f"the field {field!r} of the {self._name} is no SHA-256 in hex")
        return EndpointId(raw)

    def timestamp(self) -> int:
        value = self._fields.get("timestamp")
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise ProtocolError(f"the {self._name} has no time")
        return value

    def session_id(self) -> str | None:
        text = self.optional_text("session_id", 64)
        if text is not None and not (text.isascii() and text.isalnum()):
            raise ProtocolError(f"the session id of the {self._name} is not letters and digits")
        return text

    def required_session_id(self) -> str:
        session_id = self.session_id()
        if session_id is None:
            raise ProtocolError(f"the {self._name} has no field 'session_id'")
        return session_id

    def source(self) -> str | None:
        return self.optional_text("source", MAX_SOURCE)

    def streams(self) -> str | None:
        """The protocol of the streams, when it is one we speak."""
        value = self._fields.get("streams")
        return STREAMS if value == STREAMS else None


def decode_offer(body: bytes) -> Offer:
    """Raises ProtocolError, which never holds a password."""
    fields = _Fields("offer", body)
    return Offer(
        ice=fields.ice(),
        fingerprint=fields.fingerprint("quic_fingerprint"),
        session_id=fields.session_id(),
        source=fields.source(),
        streams=fields.streams(),
        client_fingerprint=fields.fingerprint("quic_client_fingerprint"),
    )


def decode_answer(body: bytes) -> Answer:
    """Raises ProtocolError, which never holds a password."""
    fields = _Fields("answer", body)
    return Answer(
        ice=fields.ice(),
        session_id=fields.session_id(),
        fingerprint=fields.fingerprint("quic_fingerprint"),
        streams=fields.streams(),
    )


def decode_request(body: bytes) -> Request:
    """Raises ProtocolError, which never holds a password."""
    fields = _Fields("request", body)
    return Request(
        ice=fields.ice(),
        session_id=fields.required_session_id(),
        timestamp=fields.timestamp(),
        source=fields.source(),
        streams=fields.streams(),
        client_fingerprint=fields.fingerprint("quic_client_fingerprint"),
    )


def decode_reject(body: bytes) -> Reject:
    """The reason comes out as one printable line. Raises ProtocolError."""
    fields = _Fields("rejection", body)
    reason = "".join(c if c.isprintable() else " " for c in fields.text("reason"))
    return Reject(fields.required_session_id(), cut_reason(reason))
