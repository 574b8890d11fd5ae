"""DNS messages on the wire (RFC 1035 section 4, EDNS0 of RFC 6891), for discovery.

Strict and bounded: a name is at most 255 octets, compression pointers lead backwards only, and a
query holds exactly one question. Names are tuples of labels, lower-cased, without the root label.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from tunnel_rs.errors import ProtocolError

Name = tuple[bytes, ...]

HEADER_SIZE = 12
MAX_NAME = 255
CLASS_IN = 1
CLASS_ANY = 255
PLAIN_UDP_SIZE = 512
EDNS_UDP_SIZE = 1232
"""Largest UDP payload we send or ask for (DNS Flag Day 2020: not fragmented anywhere)."""

FLAG_RESPONSE = 0x8000
FLAG_AUTHORITATIVE = 0x0400
FLAG_TRUNCATED = 0x0200
FLAG_RECURSION_DESIRED = 0x0100

_HEADER = struct.Struct(">6H")
_RECORD = struct.Struct(">HHIH")
_POINTER = 0xC0
_MAX_POINTER_TARGET = 0x3FFF
_MAX_RECORDS = 256
_ECHOED_FLAGS = 0x7800 | FLAG_RECURSION_DESIRED


class RecordType(IntEnum):
    """The types that we write or treat specially; others are carried as plain numbers."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    HINFO = 13
    TXT = 16
    AAAA = 28
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class ResponseCode(IntEnum):
    """RFC 1035 section 4.1.1; BADVERS of RFC 6891 section 9."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class DnsFormatError(ProtocolError):
    """A DNS message that cannot be read."""


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """One record. `data` is the RDATA; read from a message, the names in CNAME and NS are in full
    and those of other types are as they stood, perhaps compressed."""

    name: Name
    type: int
    ttl: int
    data: bytes
    record_class: int = CLASS_IN


@dataclass(frozen=True, slots=True)
class Edns:
    """What an OPT record says: the sender's UDP payload size and EDNS version."""

    udp_size: int
    version: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `raw_name` keeps the asker's spelling, for the echo (0x20 randomisation)."""

    id: int
    flags: int
    name: Name
    type: int
    record_class: int
    raw_name: bytes
    edns: Edns | None = None

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 0xF


@dataclass(frozen=True, slots=True)
class Response:
    """An answer to one query, to be written by `encode_response`."""

    code: ResponseCode
    answers: tuple[ResourceRecord, ...] = ()
    authority: tuple[ResourceRecord, ...] = ()
    authoritative: bool = False
    truncated: bool = False


def parse_name(text: str) -> Name:
    """Read `a.b.c` or `a.b.c.`; `.` is the root. Raises ValueError."""
    trimmed = text.removesuffix(".")
    if not trimmed:
        return ()
    labels = tuple(label.encode("ascii", "strict").lower() for label in trimmed.split("."))
    if not all(0 < len(label) <= 63 for label in labels) or _wire_length(labels) > MAX_NAME:
        raise ValueError(f"{text!r} is not a domain name")
    return labels


def name_text(name: Name) -> str:
    """A name for people, with the final dot; unusual bytes escaped (RFC 1035 section 5.1)."""
    return "".join(_label_text(label) + "." for label in name) or "."


def _label_text(label: bytes) -> str:
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte not in b".\\" else f"\\{byte:03d}"
        for byte in label
    )


def _wire_length(name: Name) -> int:
    return sum(len(label) + 1 for label in name) + 1


def encode_name(name: Name) -> bytes:
    """A name in full, without compression."""
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def read_name(message: bytes, offset: int) -> tuple[Name, int]:
    """Name at `offset`, and the offset after it. Raises DnsFormatError."""
    labels: list[bytes] = []
    length, after, lowest = 1, -1, offset
    while True:
        if offset >= len(message):
            raise DnsFormatError("DNS message: a name runs over the end")
        size = message[offset]
        if size & _POINTER == _POINTER:
            if offset + 1 >= len(message):
                raise DnsFormatError("DNS message: a name runs over the end")
            after = offset + 2 if after < 0 else after
            offset = (size & 0x3F) << 8 | message[offset + 1]
            if offset >= lowest:
                raise DnsFormatError("DNS message: a compression pointer does not lead back")
            lowest = offset
        elif size & _POINTER:
            raise DnsFormatError("DNS message: unknown kind of label")
        elif size == 0:
            return tuple(labels), offset + 1 if after < 0 else after
        else:
            length += size + 1
            label = message[offset + 1 : offset + 1 + size]
            if len(label) != size or length > MAX_NAME:
                raise DnsFormatError("DNS message: a name is too long")
            labels.append(label.lower())
            offset += 1 + size


def _read_record(message: bytes, offset: int) -> tuple[ResourceRecord, int]:
    name, offset = read_name(message, offset)
    if offset + _RECORD.size > len(message):
        raise DnsFormatError("DNS message: a record runs over the end")
    kind, record_class, ttl, size = _RECORD.unpack_from(message, offset)
    offset += _RECORD.size
    data = message[offset : offset + size]
    if len(data) != size:
        raise DnsFormatError("DNS message: a record runs over the end")
    if kind in (RecordType.CNAME, RecordType.NS):
        target, end = read_name(message, offset)
        if end != offset + size:
            raise DnsFormatError("DNS message: a record's name does not fill it")
        data = encode_name(target)
    return ResourceRecord(name, kind, ttl, data, record_class), offset + size


def _read_records(message: bytes, offset: int, count: int) -> tuple[list[ResourceRecord], int]:
    if count > _MAX_RECORDS:
        raise DnsFormatError(f"DNS message: more than {_MAX_RECORDS} records")
    records = []
    for _ in range(count):
        record, offset = _read_record(message, offset)
        records.append(record)
    return records, offset


def _read_header(message: bytes) -> tuple[int, int, int, int, int, int]:
    if len(message) < HEADER_SIZE:
        raise DnsFormatError("DNS message: shorter than its header")
    fields: tuple[int, int, int, int, int, int] = _HEADER.unpack_from(message)
    return fields


def parse_answers(message: bytes) -> tuple[ResourceRecord, ...]:
    """The answer records of a message; every other section must be readable too.

    Raises DnsFormatError.
    """
    _, _, questions, answers, authorities, additionals = _read_header(message)
    if questions > 1:
        raise DnsFormatError("DNS message: more than one question")
    offset = HEADER_SIZE
    if questions:
        _, offset = read_name(message, offset)
        offset += 4
    records, offset = _read_records(message, offset, answers)
    _, offset = _read_records(message, offset, authorities + additionals)
    if offset != len(message):
        raise DnsFormatError("DNS message: bytes after the last record")
    return tuple(records)


def answers_to(question: bytes, message: bytes) -> tuple[int, tuple[ResourceRecord, ...]]:
    """Response code and answer records of the whole answer to `question` (from `encode_query`).

    Raises DnsFormatError, also when it answers another question or has been cut short.
    """
    ident, flags, questions, *_ = _read_header(message)
    if ident != int.from_bytes(question[:2], "big") or not flags & FLAG_RESPONSE:
        raise DnsFormatError("DNS message: not an answer to our question")
    asked, end = read_name(question, HEADER_SIZE)
    if flags & 0xF in (ResponseCode.NOERROR, ResponseCode.NXDOMAIN) or questions:
        echoed, echoed_end = read_name(message, HEADER_SIZE)
        if echoed != asked or message[echoed_end : echoed_end + 4] != question[end : end + 4]:
            raise DnsFormatError("DNS message: the answer to another question")
    if flags & FLAG_TRUNCATED:
        raise DnsFormatError("DNS message: cut short")
    kind = int.from_bytes(question[end : end + 2], "big")
    return flags & 0xF, tuple(each for each in parse_answers(message) if each.type == kind)


def parse_query(message: bytes) -> Query:
    """Read a query with exactly one question. Raises DnsFormatError.

    Records in the answer and authority sections (IXFR, UPDATE) are stepped over.
    """
    ident, flags, questions, answers, authorities, additionals = _read_header(message)
    if questions != 1:
        raise DnsFormatError("DNS query: not exactly one question")
    name, end = read_name(message, HEADER_SIZE)
    if end + 4 > len(message):
        raise DnsFormatError("DNS query: the question runs over the end")
    if end - HEADER_SIZE != _wire_length(name):
        raise DnsFormatError("DNS query: the question's name is compressed")
    kind, record_class = struct.unpack_from(">HH", message, end)
    _, offset = _read_records(message, end + 4, answers + authorities)
    extra, _ = _read_records(message, offset, additionals)
    options = [record for record in extra if record.type == RecordType.OPT]
    if len(options) > 1:
        raise DnsFormatError("DNS query: more than one OPT record")
    edns = Edns(options[0].record_class, options[0].ttl >> 16 & 0xFF) if options else None
    return Query(ident, flags, name, kind, record_class, message[HEADER_SIZE:end], edns)


def encode_query(name: Name, kind: int, ident: int, *, edns: bool = True) -> bytes:
    """A recursive query with one question, as a stub resolver sends it."""
    header = _HEADER.pack(ident, FLAG_RECURSION_DESIRED, 1, 0, 0, int(edns))
    question = encode_name(name) + struct.pack(">HH", kind, CLASS_IN)
    return header + question + (_encode_opt(0) if edns else b"")


def _encode_opt(code: int) -> bytes:
    ttl = (code >> 4) << 24
    return b"\0" + _RECORD.pack(RecordType.OPT, EDNS_UDP_SIZE, ttl, 0)


class _Compressor:
    """Writes owner names, each suffix in full only once (RFC 1035 section 4.1.4)."""

    def __init__(self) -> None:
        self._offsets: dict[Name, int] = {}

    def remember(self, name: Name, offset: int) -> None:
        """`name` stands in full at `offset`."""
        for index in range(len(name)):
            self._offsets.setdefault(name[index:], offset)
            offset += len(name[index]) + 1

    def encode(self, name: Name, offset: int) -> bytes:
        for index in range(len(name) + 1):
            known = self._offsets.get(name[index:])
            if known is not None and known <= _MAX_POINTER_TARGET:
                head = encode_name(name[:index])[:-1]
                break
        else:
            head, known = encode_name(name), None
        for index in range(len(name)):
            self._offsets.setdefault(name[index:], offset)
            offset += len(name[index]) + 1
            if name[index + 1 :] in self._offsets:
                break
        return head if known is None else head + struct.pack(">H", _POINTER << 8 | known)


def encode_answers(records: Iterable[ResourceRecord], *, ident: int = 0) -> bytes:
    """A message of answers alone, flags "response" only (the form inside pkarr packets)."""
    records = tuple(records)
    out = bytearray(_HEADER.pack(ident, FLAG_RESPONSE, 0, len(records), 0, 0))
    _append_records(out, records, _Compressor())
    return bytes(out)


def _append_records(
    out: bytearray, records: Sequence[ResourceRecord], compressor: _Compressor
) -> None:
    for record in records:
        out += compressor.encode(record.name, len(out))
        out += _RECORD.pack(record.type, record.record_class, record.ttl, len(record.data))
        out += record.data


def encode_response(query: Query, response: Response, limit: int) -> bytes:
    """The response's bytes, at most `limit` of them: else it is cut down to the question with the
    TC flag, so that the asker comes back over TCP (RFC 2181 section 9)."""
    flags = FLAG_RESPONSE | query.flags & _ECHOED_FLAGS | response.code & 0xF
    flags |= FLAG_AUTHORITATIVE if response.authoritative else 0
    flags |= FLAG_TRUNCATED if response.truncated else 0
    counts = (len(response.answers), len(response.authority), int(query.edns is not None))
    out = bytearray(_HEADER.pack(query.id, flags, 1, *counts))
    compressor = _Compressor()
    compressor.remember(query.name, len(out))
    out += query.raw_name + struct.pack(">HH", query.type, query.record_class)
    _append_records(out, response.answers + response.authority, compressor)
    if query.edns is not None:
        out += _encode_opt(response.code)
    if len(out) > limit and not response.truncated:
        cut = replace(response, answers=(), authority=(), truncated=True)
        return encode_response(query, cut, limit)
    return bytes(out)


def format_error(message: bytes) -> bytes | None:
    """The FORMERR answer to an unreadable query: a bare header. None when nothing may be sent:
    too short to have an id, or itself a response (two servers must not play ping-pong)."""
    if len(message) < HEADER_SIZE:
        return None
    ident, flags, *_ = _HEADER.unpack_from(message)
    if flags & FLAG_RESPONSE:
        return None
    return _HEADER.pack(
        ident, FLAG_RESPONSE | flags & _ECHOED_FLAGS | ResponseCode.FORMERR, 0, 0, 0, 0
    )


def encode_strings(strings: Iterable[bytes]) -> bytes:
    """TXT RDATA of character strings of at most 255 bytes each. Raises ValueError."""
    return b"".join(bytes((len(string),)) + string for string in strings)


def read_strings(data: bytes) -> list[bytes]:
    """The character strings of TXT RDATA. Raises DnsFormatError."""
    strings, offset = [], 0
    while offset < len(data):
        end = offset + 1 + data[offset]
        if end > len(data):
            raise DnsFormatError("DNS message: a character string runs over its record")
        strings.append(data[offset + 1 : end])
        offset = end
    return strings
