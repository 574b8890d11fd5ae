"""The authoritative side of discovery: what a query is answered, given a way to look up packets
(spec `discovery.md` section 4; RFC 1034 section 4.3.2, RFC 2308 for negative answers)."""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tunnel_rs.errors import TunnelError
from tunnel_rs.proto.dns_wire import (
    CLASS_ANY,
    CLASS_IN,
    EDNS_UDP_SIZE,
    PLAIN_UDP_SIZE,
    DnsFormatError,
    Name,
    Query,
    RecordType,
    ResourceRecord,
    Response,
    ResponseCode,
    encode_name,
    encode_response,
    encode_strings,
    format_error,
    parse_name,
    parse_query,
)
from tunnel_rs.proto.pkarr import SignedPacket, key_from_z32
from tunnel_rs.values import EndpointId

PacketLookup = Callable[[EndpointId], SignedPacket | None]

MAX_TCP_MESSAGE = 65_535
SERVABLE_TYPES: Mapping[str, RecordType] = {
    kind.name: kind for kind in (RecordType.A, RecordType.AAAA, RecordType.CNAME, RecordType.TXT)
}


@dataclass(frozen=True, slots=True)
class StartOfAuthority:
    """The SOA record of every origin (RFC 1035 section 3.3.13); times are seconds."""

    primary: Name
    mailbox: Name
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int

    @classmethod
    def parse(cls, text: str) -> "StartOfAuthority":
        """Read `primary mailbox serial refresh retry expire minimum`. Raises ValueError."""
        fields = text.split()
        if len(fields) != 7:
            raise ValueError("an SOA record has seven fields: two names and five numbers")
        numbers = [int(field) for field in fields[2:]]
        if not all(0 <= number < 2**32 for number in numbers):
            raise ValueError("a number of an SOA record is outside 0..4294967295")
        return cls(parse_name(fields[0]), parse_name(fields[1]), *numbers)

    def encode(self) -> bytes:
        times = (self.serial, self.refresh, self.retry, self.expire, self.minimum)
        return encode_name(self.primary) + encode_name(self.mailbox) + struct.pack(">5I", *times)


@dataclass(frozen=True, slots=True)
class ZoneSettings:
    """What is served beside the packets."""

    origins: tuple[Name, ...]
    soa: StartOfAuthority
    ttl: int
    a: IPv4Address | None = None
    aaaa: IPv6Address | None = None
    ns: Name | None = None
    served_types: frozenset[RecordType] = frozenset({RecordType.TXT})


class Zone:
    """Answers queries for the configured origins. `lookup` may raise a TunnelError: SERVFAIL."""

    def __init__(
        self,
        settings: ZoneSettings,
        lookup: PacketLookup,
        observe: Callable[[Response], None] = lambda _: None,
    ) -> None:
        """`observe` sees every answer, for statistics."""
        self._observe = observe
        self._settings = settings
        self._lookup = lookup
        self._origins = sorted(settings.origins, key=len, reverse=True)
        self._fixed = {name: tuple(records) for name, records in self._fixed_records() if records}

    def _fixed_records(self) -> Iterable[tuple[Name, list[ResourceRecord]]]:
        settings, soa = self._settings, self._settings.soa.encode()
        for origin in self._origins:
            records = [ResourceRecord(origin, RecordType.SOA, settings.ttl, soa)]
            if settings.ns is not None:
                target = encode_name(settings.ns)
                records.append(ResourceRecord(origin, RecordType.NS, settings.ttl, target))
            yield origin, records + self._addresses(origin)
        if settings.ns is not None and settings.ns not in self._origins:
            yield settings.ns, self._addresses(settings.ns)

    def _addresses(self, name: Name) -> list[ResourceRecord]:
        settings, records = self._settings, []
        if settings.a is not None:
            records.append(ResourceRecord(name, RecordType.A, settings.ttl, settings.a.packed))
        if settings.aaaa is not None:
            packed = settings.aaaa.packed
            records.append(ResourceRecord(name, RecordType.AAAA, settings.ttl, packed))
        return records

    def answer(self, query: Query) -> Response:
        """What to answer."""
        response = self._judge(query)
        self._observe(response)
        return response

    def _judge(self, query: Query) -> Response:
        if query.opcode != 0:
            return Response(ResponseCode.NOTIMP)
        if query.edns is not None and query.edns.version > 0:
            return Response(ResponseCode.BADVERS)
        if query.type in (RecordType.AXFR, RecordType.IXFR):
            return Response(ResponseCode.REFUSED)
        origin = self._origin_of(query.name)
        if origin is None or query.record_class not in (CLASS_IN, CLASS_ANY):
            return Response(ResponseCode.REFUSED)
        try:
            records = self._records_at(query.name, origin)
        except TunnelError:
            return Response(ResponseCode.SERVFAIL)
        if records is None:
            return self._negative(ResponseCode.NXDOMAIN, origin)
        answers = self._select(query, records)
        if not answers:
            return self._negative(ResponseCode.NOERROR, origin)
        return Response(ResponseCode.NOERROR, answers, authoritative=True)

    def _origin_of(self, name: Name) -> Name | None:
        for origin in self._origins:
            if name[len(name) - len(origin) :] == origin and len(name) >= len(origin):
                return origin
        return None

    def _negative(self, code: ResponseCode, origin: Name) -> Response:
        soa = self._settings.soa
        ttl = min(self._settings.ttl, soa.minimum)
        authority = (ResourceRecord(origin, RecordType.SOA, ttl, soa.encode()),)
        return Response(code, authority=authority, authoritative=True)

    def _records_at(self, name: Name, origin: Name) -> tuple[ResourceRecord, ...] | None:
        """Everything at a name. Empty: it exists, or names below it do. None: neither."""
        fixed = self._fixed.get(name)
        if fixed is not None:
            return fixed
        if any(known[-len(name) :] == name for known in self._fixed if len(known) > len(name) > 0):
            return ()
        inside = name[: len(name) - len(origin)]
        return self._published(inside, origin) if inside else ()

    def _published(self, inside: Name, origin: Name) -> tuple[ResourceRecord, ...] | None:
        packet = self._packet(inside[-1])
        if packet is None:
            return None
        below = [
            record
            for record in packet.records()
            if record.type in self._settings.served_types and record.name[-len(inside) :] == inside
        ]
        if not below:
            return () if len(inside) == 1 else None
        return tuple(
            ResourceRecord(inside + origin, record.type, record.ttl, record.data)
            for record in below
            if record.name == inside
        )

    def _packet(self, label: bytes) -> SignedPacket | None:
        try:
            return self._lookup(EndpointId(key_from_z32(label.decode("ascii"))))
        except ValueError:
            return None

    @staticmethod
    def _select(query: Query, records: tuple[ResourceRecord, ...]) -> tuple[ResourceRecord, ...]:
        if query.type == RecordType.ANY and records:
            # RFC 8482 section 4.2: a small stand-in instead of everything.
            data = encode_strings([b"RFC8482", b""])
            return (ResourceRecord(query.name, RecordType.HINFO, records[0].ttl, data),)
        return tuple(record for record in records if record.type in (query.type, RecordType.CNAME))

    def respond(self, message: bytes, *, over_udp: bool) -> bytes | None:
        """The bytes to send back for the bytes of a query. None: send nothing."""
        query = self.read(message)
        if not isinstance(query, Query):
            return query
        return encode_response(query, self.answer(query), response_limit(query, over_udp))

    @staticmethod
    def read(message: bytes) -> Query | bytes | None:
        """A query, or else the bytes to send back for what is none, or None to stay silent."""
        refusal = format_error(message)
        if refusal is None:
            return None
        try:
            return parse_query(message)
        except DnsFormatError:
            return refusal


def response_limit(query: Query, over_udp: bool) -> int:
    """How long an answer may be."""
    if not over_udp:
        return MAX_TCP_MESSAGE
    asked = query.edns.udp_size if query.edns is not None else PLAIN_UDP_SIZE
    return min(max(asked, PLAIN_UDP_SIZE), EDNS_UDP_SIZE)


def truncated_response(query: Query) -> bytes:
    """An answer that only says "ask again over TCP"."""
    return encode_response(query, Response(ResponseCode.NOERROR, truncated=True), PLAIN_UDP_SIZE)
