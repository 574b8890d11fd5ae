"""Nostr events that carry signalling: how they are made, found and judged (NIP-01, spec `ice.md`
section 1.8).

The content is base64url of the JSON, or NIP-44 of it under a type name of its own, which the
original does not know and ignores.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto import nip44
from tunnel_rs.proto.nostr_keys import RANDOM_LENGTH, NostrPublicKey, NostrSecretKey, verify
from tunnel_rs.values import Secret

KIND = 24_242
"""The original's, of the ephemeral range: relays need not store such events."""

AUTH_KIND = 22_242
"""NIP-42: tells a relay who we are."""

MAX_CONTENT = 98_304
_MAX_TAGS = 64
_MAX_TAG_WORDS = 16


class EventType(StrEnum):
    """What an event carries: the value of its tag `type`."""

    REQUEST = "tunnel-request"
    OFFER = "tunnel-offer"
    ANSWER = "tunnel-answer"
    REJECT = "tunnel-reject"


_ENCRYPTED = "-e"


@dataclass(frozen=True, slots=True)
class Event:
    """A signed event. `id` and `sig` are hex; times are seconds since 1970."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: tuple[tuple[str, ...], ...]
    content: str
    sig: str

    def tag(self, name: str) -> str | None:
        """The first value of the first tag of that name."""
        for tag in self.tags:
            if len(tag) >= 2 and tag[0] == name:
                return tag[1]
        return None

    def as_json(self) -> dict[str, object]:
        """The object that goes to relays."""
        return {
            "id": self.id,
            "pubkey": self.pubkey,
            "created_at": self.created_at,
            "kind": self.kind,
            "tags": [list(tag) for tag in self.tags],
            "content": self.content,
            "sig": self.sig,
        }


@dataclass(frozen=True, slots=True)
class Signal:
    """What an event of the configured peer says."""

    type: EventType
    body: bytes
    encrypted: bool


def sign_event(
    key: NostrSecretKey,
    kind: int,
    tags: tuple[tuple[str, ...], ...],
    content: str,
    now: int,
    fresh: bytes,
) -> Event:
    """A new event by `key`. `fresh` is `RANDOM_LENGTH` random bytes."""
    pubkey = key.public_key.hex
    digest = _digest(pubkey, now, kind, tags, content)
    return Event(digest.hex(), pubkey, now, kind, tags, content, key.sign(digest, fresh).hex())


def _digest(
    pubkey: str, created_at: int, kind: int, tags: tuple[tuple[str, ...], ...], content: str
) -> bytes:
    fields = [0, pubkey, created_at, kind, [list(tag) for tag in tags], content]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def parse_event(value: object) -> Event | None:
    """An event from a relay, its form checked but not its signature. None when malformed."""
    if not isinstance(value, dict):
        return None
    fields: dict[str, Any] = value
    tags, content = fields.get("tags"), fields.get("content")
    good = (
        _is_hex(fields.get("id"), 64)
        and _is_hex(fields.get("pubkey"), 64)
        and _is_hex(fields.get("sig"), 128)
        and _is_count(fields.get("created_at"), 1 << 63)
        and _is_count(fields.get("kind"), 1 << 16)
        and isinstance(content, str)
        and len(content) <= MAX_CONTENT
        and _are_tags(tags)
    )
    if not good or not isinstance(tags, list) or not isinstance(content, str):
        return None
    return Event(
        fields["id"],
        fields["pubkey"],
        fields["created_at"],
        fields["kind"],
        tuple(map(tuple, tags)),
        content,
        fields["sig"],
    )


def _is_hex(value: object, length: int) -> bool:
    return (
        isinstance(value, str)
        and len(value) == length
        and all(c in "0123456789abcdef" for c in value)
    )


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value < most


def _are_tags(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_TAGS
        and all(
            isinstance(tag, list)
            and len(tag) <= _MAX_TAG_WORDS
            and all(isinstance(word, str) for word in tag)
            for tag in value
        )
    )


def has_true_id(event: Event) -> bool:
    """Whether the id is that of what the event says; anybody could have written such an event."""
    digest = _digest(event.pubkey, event.created_at, event.kind, event.tags, event.content)
    return digest.hex() == event.id


def is_authentic(event: Event) -> bool:
    """Whether id and signature fit what the event says."""
    key = NostrPublicKey(bytes.fromhex(event.pubkey))
    signature, digest = bytes.fromhex(event.sig), bytes.fromhex(event.id)
    return has_true_id(event) and verify(key, signature, digest)


def transfer_id(one: NostrPublicKey, other: NostrPublicKey) -> str:
    """What events between two keys are found by, whoever asks: 32 hex digits."""
    text = "".join(sorted((one.hex, other.hex)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Conversation:
    """Events between us and one peer: makes ours, understands the peer's."""

    def __init__(
        self,
        key: NostrSecretKey,
        peer: NostrPublicKey,
        random_bytes: Callable[[int], bytes],
        kind: int = KIND,
    ) -> None:
        """`random_bytes` is a source of secret randomness."""
        self._kind = kind
        self._key = key
        self._peer = peer
        self._random_bytes = random_bytes
        self._transfer_id = transfer_id(key.public_key, peer)
        self._secret: Secret[bytes] = nip44.conversation_key(key, peer)

    @property
    def filter(self) -> dict[str, object]:
        """What to subscribe to. Without `since`: clocks differ, freshness is judged by us."""
        return {
            "kinds": [self._kind],
            "#t": [self._transfer_id],
            "#p": [self._key.public_key.hex],
        }

    def event(self, type: EventType, body: bytes, now: int, *, encrypted: bool) -> Event:
        """An event for the peer."""
        name = type + _ENCRYPTED if encrypted else type.value
        if encrypted:
            content = nip44.encrypt(self._secret, body, self._random_bytes(nip44.NONCE_LENGTH))
        else:
            content = base64.urlsafe_b64encode(body).decode().rstrip("=")
        tags = (("t", self._transfer_id), ("p", self._peer.hex), ("type", name))
        return self._signed(self._kind, tags, content, now)

    def auth_event(self, relay: str, challenge: str, now: int) -> Event:
        """The answer to a relay that asks who we are (NIP-42)."""
        tags = (("relay", relay), ("challenge", challenge))
        return self._signed(AUTH_KIND, tags, "", now)

    def _signed(
        self, kind: int, tags: tuple[tuple[str, ...], ...], content: str, now: int
    ) -> Event:
        fresh = self._random_bytes(RANDOM_LENGTH)
        return sign_event(self._key, kind, tags, content, now, fresh)

    def understand(self, event: Event) -> Signal | None:
        """What the peer says; None for anything that is not the peer's, not for us, or damaged.
        Checks that cost least come first: strangers may send as much as they like."""
        kind = self._type_of(event)
        addressed = (
            event.kind == self._kind
            and event.pubkey == self._peer.hex
            and event.tag("t") == self._transfer_id
            and event.tag("p") == self._key.public_key.hex
        )
        if kind is None or not addressed or not is_authentic(event):
            return None
        encrypted = kind[1]
        try:
            body = nip44.decrypt(self._secret, event.content) if encrypted else _plain(event)
        except (ProtocolError, binascii.Error, ValueError):
            return None
        return Signal(kind[0], body, encrypted)

    def _type_of(self, event: Event) -> tuple[EventType, bool] | None:
        name = event.tag("type") or ""
        encrypted = name.endswith(_ENCRYPTED)
        plain = name.removesuffix(_ENCRYPTED)
        return (EventType(plain), encrypted) if plain in set(EventType) else None


def _plain(event: Event) -> bytes:
    text = event.content.rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
