"""How a client proves its EndpointId to a relay (spec `relay.md` section 2), both roles, no I/O.

The relay sends 16 random bytes, the client signs what BLAKE3 derives from them. The shortcut by
TLS exporter is never sent, and ignored by the server: Python's `ssl` cannot export keying material.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple
from urllib.parse import parse_qsl

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tunnel_rs.proto.relay_frames import (
    ClientAuth,
    FrameError,
    ServerChallenge,
    ServerConfirmsAuth,
    decode_client_auth,
    decode_handshake,
    encode_challenge,
    encode_client_auth,
)
from tunnel_rs.values import EndpointId, Secret

_CONTEXT = "iroh-relay handshake v1 challenge signature"

MAX_TOKEN = 1024
"""Longest access token a server looks at, in characters."""

_MAX_QUERY, _MAX_FIELDS = 8192, 32

SUBPROTOCOL_OFFER = "iroh-relay-v2, iroh-relay-v1"
"""Exactly this, in this order: relays of iroh 0.96 split at white space and want v1 last."""

# The points of order 1, 2, 4 and 8 in canonical form. Anyone can forge a signature for such a
# "key", and plain RFC 8032 verification does not mind; iroh refuses them too.
SMALL_ORDER_POINTS = frozenset(
    bytes.fromhex(point)
    for point in (
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "00" * 32,
        "00" * 31 + "80",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)

Sign = Callable[[bytes], bytes]
"""Makes the plain Ed25519 signature (64 bytes) of a message with our endpoint's key."""


class RelayIdentity(NamedTuple):
    """Who we are to relays."""

    endpoint_id: EndpointId
    sign: Sign


class RelayVersion(Enum):
    """Protocol versions, by their WebSocket subprotocol names."""

    V1 = "iroh-relay-v1"
    V2 = "iroh-relay-v2"

    @property
    def number(self) -> int:
        return 2 if self is RelayVersion.V2 else 1


def choose_version(offer: str) -> RelayVersion | None:
    """Server: the newest version among the client's offers, None when there is none."""
    offered = {name.strip() for name in offer.split(",")}
    for version in (RelayVersion.V2, RelayVersion.V1):
        if version.value in offered:
            return version
    return None


def accepted_version(answer: str | None) -> RelayVersion:
    """Client: the version the relay chose. Raises FrameError for none or an unknown one."""
    try:
        return RelayVersion(answer)
    except ValueError:
        raise FrameError("the relay chose no protocol version we speak; is it a relay?") from None


def challenge_message(challenge: bytes) -> bytes:
    """The 32 bytes that are signed."""
    return blake3(challenge, derive_key_context=_CONTEXT).digest()


class Denied(FrameError):
    """The relay does not let us in."""


class ClientHandshake:
    """Client side. Feed each message to `receive` until `done`."""

    def __init__(self, identity: RelayIdentity) -> None:
        self._identity = identity
        self._challenged = False
        self.done = False

    def receive(self, message: bytes) -> bytes | None:
        """Take one message; returns the answer to send, if any. Raises Denied or FrameError."""
        frame = decode_handshake(message)
        if isinstance(frame, ServerChallenge):
            if self._challenged:
                raise FrameError("the relay asked twice who we are")
            self._challenged = True
            signature = self._identity.sign(challenge_message(frame.challenge))
            return encode_client_auth(ClientAuth(self._identity.endpoint_id.key, signature))
        if isinstance(frame, ServerConfirmsAuth):
            self.done = True
            return None
        raise Denied(f"the relay refused us: {printable(frame.reason) or 'no reason given'}")


class ServerHandshake:
    """Server side: send `opening`, then feed the one answer to `receive`."""

    def __init__(self, challenge: bytes) -> None:
        """`challenge`: 16 fresh random bytes."""
        self._challenge = challenge
        self.opening = encode_challenge(challenge)

    def receive(self, message: bytes) -> EndpointId | None:
        """The id the client has proved, None when the signature is wrong. Raises FrameError."""
        auth = decode_client_auth(message)
        if auth.endpoint_id in SMALL_ORDER_POINTS or auth.signature[:32] in SMALL_ORDER_POINTS:
            return None
        try:
            endpoint_id = EndpointId.parse(auth.endpoint_id.hex())
            key = Ed25519PublicKey.from_public_bytes(auth.endpoint_id)
            key.verify(auth.signature, challenge_message(self._challenge))
        except (ValueError, InvalidSignature):
            return None
        return endpoint_id


def printable(text: str, limit: int = 200) -> str:
    """A peer's words made fit for one line of ours."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit]).strip()


def presented_token(authorization: Iterable[str], query: str) -> Secret[str] | None:
    """Server: the access token of a request: the first Authorization header with the scheme
    Bearer, else the query parameter `token`."""
    for header in authorization:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer":
            return _bounded(token.strip())
    if len(query) > _MAX_QUERY or query.count("&") >= _MAX_FIELDS:
        return None
    for name, value in parse_qsl(query):
        if name == "token":
            return _bounded(value)
    return None


def _bounded(token: str) -> Secret[str] | None:
    return Secret(token) if 0 < len(token) <= MAX_TOKEN else None
