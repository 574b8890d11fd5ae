"""Signed discovery records (spec `discovery.md` sections 2 and 3; signatures after BEP 44).

A `SignedPacket` is a DNS message signed by an endpoint's key; an `EndpointRecord` is what it says:
relays, addresses and a user's text. DNS answers carry the same record without the signature; there
it is only a hint, and the handshake proves the key.
"""

import base64
import binascii
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.dns_wire import (
    CLASS_IN,
    Name,
    RecordType,
    ResourceRecord,
    encode_answers,
    encode_strings,
    parse_answers,
    read_strings,
)
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import EndpointId, Secret, SocketAddr

TTL = 30
"""Seconds a published record may be cached."""

SIGNATURE_SIZE = 64
MAX_DNS_MESSAGE = 1000
MIN_PAYLOAD = SIGNATURE_SIZE + 8
MAX_PAYLOAD = MIN_PAYLOAD + MAX_DNS_MESSAGE
MAX_USER_DATA = 245

_RECORD_LABEL = b"_iroh"
_URL_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('"<>\\^`{|}')
_MAX_STRING = 255
_MAX_TXT_STRINGS = 100
"""More TXT strings than fit into a signed packet (about 65) are no iroh record."""

_MAX_RELAYS = 16
_MAX_ADDRESSES = 32

_Z_BASE_32 = b"ybndrfg8ejkmcpqxot1uwisza345h769"
_TO_BASE_32 = bytes.maketrans(_Z_BASE_32, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")

_SMALL_ORDER_KEYS = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "00" * 31 + "80",
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    )
)
"""Curve points of order 1, 2, 4 and 8: anybody can make signatures that fit them."""


def key_from_z32(text: str) -> bytes:
    """Read the form used in pkarr URLs and DNS labels, 52 lower-case characters of z-base-32, to
    32 bytes that need not be a key. Raises ValueError.
    """
    try:
        encoded = text.encode("ascii")
        if len(encoded) != 52 or not set(encoded) <= set(_Z_BASE_32):
            raise ValueError
        key = base64.b32decode(encoded.translate(_TO_BASE_32) + b"====")
    except (ValueError, binascii.Error):
        raise ValueError("not 52 characters of z-base-32") from None
    if EndpointId(key).z32 != text:
        raise ValueError("z-base-32 with stray bits at the end")
    return key


def endpoint_id_from_z32(text: str) -> EndpointId:
    """The same, checked to be a public key; takes ten times as long. Raises ValueError."""
    return EndpointId.parse(key_from_z32(text).hex())


def _dialable(text: str) -> SocketAddr | None:
    """A socket address that datagrams may be sent to because a record names it."""
    try:
        address = SocketAddr.parse(text)
    except ValueError:
        return None
    ip = ip_address(address.ip)
    harmful = ip.is_multicast or ip.is_unspecified or address.ip == "255.255.255.255"
    return None if harmful else address


def _relay_or_none(text: str) -> str | None:
    """A relay URL in normal form; an access token in it is somebody's mistake and left out."""
    if not _URL_CHARACTERS.issuperset(text):
        return None
    try:
        return RelayUrl.parse(text).text
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """How an endpoint can be reached: relay URLs as `RelayUrl.text` has them (in normal form and
    without access token: all of this is public), addresses, and a user's text."""

    relay_urls: tuple[str, ...] = ()
    addresses: tuple[SocketAddr, ...] = ()
    user_data: str | None = None

    @property
    def names_a_way(self) -> bool:
        """Whether there is anything to dial."""
        return bool(self.relay_urls or self.addresses)

    def to_strings(self) -> list[str]:
        """The TXT strings, in the order relays, addresses, user data. Raises ValueError for one
        that is too long or that a reader would cut off (it reads up to a second `=`)."""
        strings = [f"relay={url}" for url in self.relay_urls]
        strings += [f"addr={address}" for address in self.addresses]
        if self.user_data is not None:
            if len(self.user_data.encode()) > MAX_USER_DATA:
                raise ValueError(f"user data is longer than {MAX_USER_DATA} bytes")
            strings.append(f"user-data={self.user_data}")
        if any(string.count("=") > 1 for string in strings):
            raise ValueError("a relay URL or user data with '=' in it cannot be published")
        if any(len(string.encode()) > _MAX_STRING for string in strings):
            raise ValueError(f"a relay URL is longer than {_MAX_STRING - len('relay=')} bytes")
        return strings

    @classmethod
    def from_strings(cls, strings: Iterable[bytes]) -> "EndpointRecord":
        """Read TXT strings as iroh does: an unknown key, or a string without `=`, makes the whole
        set invalid; an address or URL that cannot be read (or dialled) is left out; a value ends
        at a second `=`. Raises ProtocolError.
        """
        relays: dict[str, None] = {}
        addresses: dict[SocketAddr, None] = {}
        user_data: str | None = None
        for index, string in enumerate(strings):
            if index == _MAX_TXT_STRINGS:
                raise ProtocolError(f"discovery record: more than {_MAX_TXT_STRINGS} TXT strings")
            key, value = _split_attribute(string)
            if key == "relay":
                if (url := _relay_or_none(value)) is not None and len(relays) < _MAX_RELAYS:
                    relays[url] = None
            elif key == "addr":
                if (addr := _dialable(value)) is not None and len(addresses) < _MAX_ADDRESSES:
                    addresses[addr] = None
            elif user_data is None:
                user_data = value
        return cls(tuple(relays), tuple(addresses), user_data)

    def fitted(self) -> "EndpointRecord":
        """This record with as many addresses, from the front, as fit into one signed packet.

        Raises ValueError when the rest alone is too much.
        """
        record = self
        while record.addresses and _message_size(record.to_strings()) > MAX_DNS_MESSAGE:
            record = replace(record, addresses=record.addresses[:-1])
        if _message_size(record.to_strings()) > MAX_DNS_MESSAGE:
            raise ValueError(f"a discovery record holds at most {MAX_DNS_MESSAGE} bytes")
        return record


def _split_attribute(string: bytes) -> tuple[str, str]:
    try:
        key, *values = string.decode().split("=")
    except UnicodeDecodeError:
        raise ProtocolError("discovery record: a TXT string is not UTF-8") from None
    if not values:
        raise ProtocolError("discovery record: a TXT string without '='")
    if key not in ("relay", "addr", "user-data"):
        raise ProtocolError("discovery record: an attribute that iroh does not know")
    return key, values[0]


def _message_size(strings: Sequence[str]) -> int:
    return len(encode_record(EndpointId(bytes(32)), strings))


def record_name(endpoint_id: EndpointId) -> Name:
    """The name a record has inside its packet: `_iroh.<z32>.`."""
    return (_RECORD_LABEL, endpoint_id.z32.encode())


def encode_record(endpoint_id: EndpointId, strings: Iterable[str], ttl: int = TTL) -> bytes:
    """The DNS message of a packet: one TXT record for each string."""
    name = record_name(endpoint_id)
    return encode_answers(
        ResourceRecord(name, RecordType.TXT, ttl, encode_strings([string.encode()]))
        for string in strings
    )


def _signed_bytes(timestamp: int, message: bytes) -> bytes:
    """What the signature covers: BEP 44's bencoded sequence number and value, without salt."""
    return b"3:seqi%de1:v%d:%s" % (timestamp, len(message), message)


def verify_signature(key: bytes, signature: bytes, timestamp: int, message: bytes) -> bool:
    """Whether `signature` (64 bytes) over a BEP 44 value is `key`'s (32 bytes)."""
    if key in _SMALL_ORDER_KEYS:
        return False
    try:
        public_key = Ed25519PublicKey.from_public_bytes(key)
        public_key.verify(signature, _signed_bytes(timestamp, message))
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class SignedPacket:
    """A DNS message under an endpoint's signature. `timestamp` is microseconds since 1970.

    Made by `sign`, or from bytes by `from_payload`, which lets only valid ones through.
    """

    endpoint_id: EndpointId
    signature: bytes
    timestamp: int
    message: bytes

    @classmethod
    def sign(cls, secret_key: Secret[bytes], timestamp: int, message: bytes) -> "SignedPacket":
        """Sign with an Ed25519 seed of 32 bytes. Raises ValueError if the message is too long."""
        if len(message) > MAX_DNS_MESSAGE:
            raise ValueError(f"a discovery record holds at most {MAX_DNS_MESSAGE} bytes")
        key = Ed25519PrivateKey.from_private_bytes(secret_key.reveal())
        endpoint_id = EndpointId(key.public_key().public_bytes_raw())
        signature = key.sign(_signed_bytes(timestamp, message))
        return cls(endpoint_id, signature, timestamp, message)

    @classmethod
    def for_record(
        cls, secret_key: Secret[bytes], timestamp: int, record: EndpointRecord, ttl: int = TTL
    ) -> "SignedPacket":
        """Sign a record. Raises ValueError if it does not fit."""
        key = Ed25519PrivateKey.from_private_bytes(secret_key.reveal())
        endpoint_id = EndpointId(key.public_key().public_bytes_raw())
        return cls.sign(secret_key, timestamp, encode_record(endpoint_id, record.to_strings(), ttl))

    @classmethod
    def from_payload(cls, endpoint_id: EndpointId, payload: bytes) -> "SignedPacket":
        """Read what PUT and GET carry (72 to 1072 bytes) and verify it. Raises ProtocolError."""
        packet = cls.from_verified(endpoint_id, payload)
        if not verify_signature(
            endpoint_id.key, packet.signature, packet.timestamp, packet.message
        ):
            raise ProtocolError("signed packet: the signature is not this endpoint's")
        parse_answers(packet.message)
        return packet

    @classmethod
    def from_verified(cls, endpoint_id: EndpointId, payload: bytes) -> "SignedPacket":
        """Read a payload that `from_payload` has let through before: only the size is checked.
        Raises ProtocolError."""
        if not MIN_PAYLOAD <= len(payload) <= MAX_PAYLOAD:
            raise ProtocolError(
                f"signed packet: {len(payload)} bytes, not {MIN_PAYLOAD} to {MAX_PAYLOAD}"
            )
        (timestamp,) = struct.unpack_from(">Q", payload, SIGNATURE_SIZE)
        return cls(endpoint_id, payload[:SIGNATURE_SIZE], timestamp, payload[MIN_PAYLOAD:])

    @classmethod
    def from_bytes(cls, data: bytes) -> "SignedPacket":
        """Read the full form, public key first (104 to 1104 bytes). Raises ProtocolError."""
        return cls.from_payload(EndpointId(data[:32]), data[32:])

    @property
    def payload(self) -> bytes:
        """What PUT and GET carry: signature, timestamp (big endian), DNS message."""
        return self.signature + struct.pack(">Q", self.timestamp) + self.message

    def __bytes__(self) -> bytes:
        return self.endpoint_id.key + self.payload

    def replaces(self, other: "SignedPacket") -> bool:
        """Whether a store keeps this one rather than `other` of the same endpoint: the later one,
        at equal times that with the larger message."""
        return (self.timestamp, self.message) > (other.timestamp, other.message)

    def records(self) -> tuple[ResourceRecord, ...]:
        """The records under this endpoint's own zone; others are ignored."""
        zone = self.endpoint_id.z32.encode()
        return tuple(
            record
            for record in parse_answers(self.message)
            if record.name[-1:] == (zone,) and record.record_class == CLASS_IN
        )

    def endpoint_record(self) -> EndpointRecord:
        """What the packet says about reaching its endpoint. Raises ProtocolError."""
        name = record_name(self.endpoint_id)
        return EndpointRecord.from_strings(
            b"".join(read_strings(record.data))
            for record in self.records()
            if record.name == name and record.type == RecordType.TXT
        )


def next_timestamp(previous: int, now: int) -> int:
    """Timestamps of one process strictly increase, even when its clock is set back."""
    return max(now, previous + 1)
