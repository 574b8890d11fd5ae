"""Codec of LAN discovery: the few multicast DNS records that name iroh endpoints.

Spec `discovery.md` section 6 (the format of Rust's swarm-discovery, service `irohv1`), names and
records of RFC 1035 and RFC 2782. One packet is either a query (PTR question for the service) or a
response: SRV and TXT as answers, A and AAAA as additionals, TTL 0 everywhere.

Our own addition, invisible to other implementations: a query may carry further questions, each a
salted hash of an EndpointId that is looked for. Others see a plain query; the endpoint meant knows
that it should answer at once, and nobody else learns whom we look for.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from tunnel_rs.values import EndpointId, SocketAddr

MAX_PACKET = 1472
"""Bytes: one Ethernet frame without fragments (1500 - 20 - 8). Receivers drop what is longer."""

MAX_HINTS = 16
"""EndpointIds one query can point at; the packet stays under 900 bytes."""

NONCE_LENGTH = 8

_SERVICE = (b"_irohv1", b"_udp", b"local")
_PTR, _A, _TXT, _AAAA, _SRV = 12, 1, 16, 28, 33
_IN = 1
_RESPONSE_FLAGS = 0x8400
_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_SRV_FIXED = struct.Struct("!HHH")
_SERVICE_POINTER = b"\xc0\x0c"  # the service name is the first thing behind the header
_HASH_LENGTH = 16
_HINT_LENGTH = NONCE_LENGTH + _HASH_LENGTH

# Our names have at most four labels. Following a name stops after this many labels and jumps, so
# that a crafted packet costs no more than an honest one of its size.
_MAX_NAME_STEPS = 12

# What one packet can make us keep; an honest one announces a single endpoint.
_MAX_IDS = 16
_MAX_ADDRESSES_PER_ID = 64

_Name = tuple[bytes, ...]


class _MalformedError(Exception):
    """The packet is not DNS. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class Query:
    """Somebody asks which endpoints are here."""

    hints: tuple[bytes, ...] = ()

    def names(self, endpoint_id: EndpointId) -> bool:
        """Whether this query asks for `endpoint_id` in particular."""
        return any(hint == _hint(endpoint_id, hint[:NONCE_LENGTH]) for hint in self.hints)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a packet claims about one endpoint. Nothing of it is proved."""

    endpoint_id: EndpointId
    addresses: tuple[SocketAddr, ...]
    relay_url: str | None = None
    user_data: str | None = None


# Encoding


def encode_query(wanted: Sequence[EndpointId] = (), nonce: bytes = b"") -> bytes:
    """Ask all endpoints for their addresses, and those of `wanted` for a prompt answer.

    `nonce`: NONCE_LENGTH fresh random bytes when `wanted` is not empty. Raises ValueError for
    more than MAX_HINTS ids or a nonce of another length.
    """
    if len(wanted) > MAX_HINTS:
        raise ValueError(f"a query can name {MAX_HINTS} endpoints, not {len(wanted)}")
    if wanted and len(nonce) != NONCE_LENGTH:
        raise ValueError(f"the nonce must have {NONCE_LENGTH} bytes")
    questions = [_encode_name(_SERVICE) + _QUESTION.pack(_PTR, _IN)]
    for endpoint_id in wanted:
        label = _encode_label(_base32(_hint(endpoint_id, nonce)))
        questions.append(label + _SERVICE_POINTER + _QUESTION.pack(_SRV, _IN))
    return _HEADER.pack(0, 0, len(questions), 0, 0, 0) + b"".join(questions)


def encode_response(
    endpoint_id: EndpointId,
    addresses: Sequence[SocketAddr],
    *,
    relay_url: str | None = None,
    user_data: str | None = None,
) -> list[bytes]:
    """Announce `addresses` of one endpoint; nothing when there are none.

    As many packets as needed to keep each within MAX_PACKET, each complete in itself. Raises
    ValueError when a text attribute is longer than a DNS character string (255 bytes with its key).
    """
    text = _encode_text(relay_url, user_data)
    packets: list[bytes] = []
    packet, chunk = b"", list[SocketAddr]()
    for address in sorted(addresses, key=lambda address: address.port):
        longer = _encode_one_response(endpoint_id, [*chunk, address], text)
        if len(longer) > MAX_PACKET:
            packets.append(packet)
            chunk = []
            longer = _encode_one_response(endpoint_id, [address], text)
        packet = longer
        chunk.append(address)
    return [*packets, packet] if packet else packets


def _encode_one_response(
    endpoint_id: EndpointId, addresses: Iterable[SocketAddr], text: bytes
) -> bytes:
    instance = endpoint_id.base32.encode()
    owner = _encode_name((instance, *_SERVICE))
    answers: dict[int, bytes] = {}
    additionals = []
    for address in addresses:
        target = _encode_name((b"%s-%d" % (instance, address.port), b"local"))
        service = _SRV_FIXED.pack(0, 0, address.port) + target
        answers[address.port] = _encode_record(owner, _SRV, service)
        ip = ip_address(address.ip)
        additionals.append(_encode_record(target, _A if ip.version == 4 else _AAAA, ip.packed))
    records = list(answers.values())
    if text:
        records.append(_encode_record(owner, _TXT, text))
    header = _HEADER.pack(0, _RESPONSE_FLAGS, 0, len(records), 0, len(additionals))
    return b"".join([header, *records, *additionals])


def _encode_text(relay_url: str | None, user_data: str | None) -> bytes:
    """The attributes as character strings (RFC 1035 section 3.3.14), sorted by key."""
    pairs = (("relay", relay_url), ("user-data", user_data))
    strings = [f"{key}={value}".encode() for key, value in pairs if value is not None]
    if any(len(string) > 255 for string in strings):
        raise ValueError("an announced attribute is longer than 255 bytes with its key")
    return b"".join(bytes([len(string)]) + string for string in strings)


def _encode_label(label: bytes) -> bytes:
    return bytes([len(label)]) + label


def _encode_name(labels: _Name) -> bytes:
    return b"".join(map(_encode_label, labels)) + b"\0"


def _encode_record(owner: bytes, record_type: int, data: bytes) -> bytes:
    return owner + _RECORD.pack(record_type, _IN, 0, len(data)) + data


def _base32(data: bytes) -> bytes:
    return base64.b32encode(data).rstrip(b"=").lower()


def _hint(endpoint_id: EndpointId, nonce: bytes) -> bytes:
    return nonce + hashlib.sha256(b"irohv1 query" + nonce + endpoint_id.key).digest()[:_HASH_LENGTH]


# Decoding


def decode(packet: bytes) -> Query | list[Announcement] | None:
    """Read one packet from the network. Never raises.

    None: no business of ours, or malformed. A packet that asks for our service is a query,
    whatever else it holds. Announcements without any address are left out.
    """
    if not _HEADER.size <= len(packet) <= MAX_PACKET or _SERVICE[0] not in packet.lower():
        return None  # most multicast DNS traffic ends here, at next to no cost
    try:
        return _decode(packet)
    except (_MalformedError, IndexError, struct.error):
        return None


def _decode(packet: bytes) -> Query | list[Announcement] | None:
    _, _, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    query, at = _read_questions(packet, questions)
    if query is not None:
        return query
    sections = []
    for count in (answers, authorities, additionals):
        records, at = _read_section(packet, at, count)
        sections.append(records)
    return _announcements(packet, sections[0], sections[2]) or None


@dataclass(slots=True)
class _Record:
    owner_at: int
    type: int
    data_at: int
    data_length: int


def _skip_name(packet: bytes, at: int) -> int:
    """Where the name at `at` ends in the packet (RFC 1035 section 4.1.4)."""
    while length := packet[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise _MalformedError
        at += 1 + length
    return at + 1


def _read_name(packet: bytes, at: int) -> _Name:
    """The labels of a name, in lower case; empty for one that is too long to be of interest.

    A pointer must lead further back than every place the name was read from, so no loop.
    """
    labels: list[bytes] = []
    part = at
    for _ in range(_MAX_NAME_STEPS):
        length = packet[at]
        if length == 0:
            return tuple(labels)
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | packet[at + 1]
            if not _HEADER.size <= target < part:
                raise _MalformedError
            part = at = target
        elif length > 63:
            raise _MalformedError
        else:
            labels.append(packet[at + 1 : at + 1 + length].lower())
            at += 1 + length
    return ()


def _read_questions(packet: bytes, count: int) -> tuple[Query | None, int]:
    at = _HEADER.size
    matched = False
    hints: list[bytes] = []
    for _ in range(count):
        name_at, at = at, _skip_name(packet, at)
        record_type, record_class = _QUESTION.unpack_from(packet, at)
        at += _QUESTION.size
        if record_class != _IN:
            continue
        if record_type == _PTR:
            matched = matched or _read_name(packet, name_at) == _SERVICE
        elif record_type == _SRV and len(hints) < MAX_HINTS:
            hints += _read_hint(_read_name(packet, name_at))
    return (Query(tuple(hints)) if matched else None), at


def _read_hint(name: _Name) -> Iterator[bytes]:
    hint = _from_base32(name[0], _HINT_LENGTH) if name[1:] == _SERVICE else None
    if hint is not None:
        yield hint


def _from_base32(label: bytes, length: int) -> bytes | None:
    """`length` bytes from unpadded base32 in canonical form, else None."""
    try:
        data = base64.b32decode(label.upper() + b"=" * (-len(label) % 8))
    except binascii.Error:
        return None
    return data if len(data) == length and _base32(data) == label else None


def _read_section(packet: bytes, at: int, count: int) -> tuple[list[_Record], int]:
    """The records of plain class IN; a set cache-flush bit makes it another class."""
    records = []
    for _ in range(count):
        owner_at, at = at, _skip_name(packet, at)
        record_type, record_class, _, length = _RECORD.unpack_from(packet, at)
        at += _RECORD.size
        if at + length > len(packet):
            raise _MalformedError
        if record_class == _IN:
            records.append(_Record(owner_at, record_type, at, length))
        at += length
    return records, at


def _announcements(
    packet: bytes, answers: list[_Record], additionals: list[_Record]
) -> list[Announcement]:
    services: dict[_Name, list[tuple[EndpointId, int]]] = {}
    texts: dict[EndpointId, dict[str, str]] = {}
    for record in answers:
        if record.type not in (_SRV, _TXT) or (owner := _read_owner(packet, record)) is None:
            continue
        attributes = texts.get(owner)
        if attributes is None:
            if len(texts) == _MAX_IDS:
                continue
            attributes = texts[owner] = {}
        if record.type == _TXT:
            attributes |= _read_text(packet, record)
        else:
            target, port = _read_service(packet, record)
            services.setdefault(target, []).append((owner, port))
    addresses = _match_addresses(packet, additionals, services)
    return [
        Announcement(owner, tuple(found), texts[owner].get("relay"), texts[owner].get("user-data"))
        for owner, found in addresses.items()
    ]


def _read_owner(packet: bytes, record: _Record) -> EndpointId | None:
    name = _read_name(packet, record.owner_at)
    key = _from_base32(name[0], 32) if name[1:] == _SERVICE else None
    # Whether it is a point of the curve is not checked: that is expensive, and the id is only
    # compared with ones that were.
    return None if key is None else EndpointId(key)


def _read_service(packet: bytes, record: _Record) -> tuple[_Name, int]:
    """Target and port of an SRV record (RFC 2782)."""
    _, _, port = _SRV_FIXED.unpack_from(packet, record.data_at)
    target_at = record.data_at + _SRV_FIXED.size
    if _skip_name(packet, target_at) != record.data_at + record.data_length:
        raise _MalformedError
    return _read_name(packet, target_at), port


def _read_text(packet: bytes, record: _Record) -> Iterator[tuple[str, str]]:
    at, end = record.data_at, record.data_at + record.data_length
    while at < end:
        start, at = at + 1, at + 1 + packet[at]
        if at > end:
            raise _MalformedError
        key, separator, value = packet[start:at].partition(b"=")
        if separator and key in (b"relay", b"user-data"):
            try:
                yield key.decode(), value.decode()
            except UnicodeDecodeError:
                continue


def _match_addresses(
    packet: bytes,
    additionals: list[_Record],
    services: dict[_Name, list[tuple[EndpointId, int]]],
) -> dict[EndpointId, dict[SocketAddr, None]]:
    """Join A and AAAA records with the services that point at their owner."""
    found: dict[EndpointId, dict[SocketAddr, None]] = {}
    for record in additionals:
        ip = _read_ip(packet, record)
        name = _read_name(packet, record.owner_at) if ip else ()
        if len(name) != 2 or name[1] != b"local":
            continue
        for owner, port in services.get(name, ()):
            addresses = found.setdefault(owner, {})
            if len(addresses) < _MAX_ADDRESSES_PER_ID:
                addresses[SocketAddr(str(ip), port)] = None
    return found


def _read_ip(packet: bytes, record: _Record) -> IPv4Address | IPv6Address | None:
    data = packet[record.data_at : record.data_at + record.data_length]
    if record.type == _A and len(data) == 4:
        return IPv4Address(data)
    if record.type == _AAAA and len(data) == 16:
        address = IPv6Address(data)
        return address.ipv4_mapped or address
    return None
