from ipaddress import IPv4Address, IPv6Address

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.discovery import NOW, packet, seed

from tunnel_rs.errors import LocalError
from tunnel_rs.proto.dns_wire import (
    RecordType,
    ResourceRecord,
    ResponseCode,
    encode_answers,
    encode_name,
    encode_query,
    encode_strings,
    parse_name,
    parse_query,
)
from tunnel_rs.proto.dns_zone import StartOfAuthority, Zone, ZoneSettings, truncated_response
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.values import EndpointId, SocketAddr

SOA = StartOfAuthority.parse("ns1.example. hostmaster.example. 1 10800 3600 604800 60")
KNOWN = packet()
Z32 = KNOWN.endpoint_id.z32


def zone(*packets: SignedPacket, **changes: object) -> Zone:
    known = {each.endpoint_id: each for each in packets or (KNOWN,)}
    settings = {
        "origins": (parse_name("example."),),
        "soa": SOA,
        "ttl": 900,
        "a": IPv4Address("192.0.2.1"),
        "aaaa": IPv6Address("2001:db8::1"),
        "ns": parse_name("ns1.example."),
        **changes,
    }
    return Zone(ZoneSettings(**settings), known.get)  # type: ignore[arg-type]


def ask(
    served: Zone, name: str, kind: int = RecordType.TXT, *, udp: bool = True
) -> dnslib.DNSRecord:
    answer = served.respond(encode_query(parse_name(name), kind, 99), over_udp=udp)
    assert answer is not None
    return dnslib.DNSRecord.parse(answer)


def shown(answer: dnslib.DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in answer.rr]


def test_a_published_record_is_answered_with_authority_and_its_own_ttl() -> None:
    answer = ask(zone(), f"_iroh.{Z32}.example.")
    assert (answer.header.id, answer.header.rcode, answer.header.aa) == (99, 0, 1)
    assert shown(answer) == ['"relay=https://relay.example/"']
    assert answer.rr[0].ttl == 30
    assert str(answer.rr[0].rname) == f"_iroh.{Z32}.example."


def test_names_are_matched_in_any_case() -> None:
    assert shown(ask(zone(), f"_IROH.{Z32}.Example."))


@pytest.mark.parametrize("origins", [("example.", "other.test."), (".",), (".", "example.")])
def test_every_origin_serves_the_same_records(origins: tuple[str, ...]) -> None:
    served = zone(origins=tuple(parse_name(origin) for origin in origins))
    for origin in origins:
        answer = ask(served, f"_iroh.{Z32}." + origin.removeprefix("."))
        assert shown(answer) == ['"relay=https://relay.example/"']


@pytest.mark.parametrize(
    "name",
    [
        f"_iroh.{packet(2).endpoint_id.z32}.example.",
        f"{packet(2).endpoint_id.z32}.example.",
        f"_other.{Z32}.example.",
        f"_iroh._iroh.{Z32}.example.",
        "www.example.",
        f"_iroh.{Z32[:-1]}.example.",
    ],
)
def test_unknown_names_do_not_exist(name: str) -> None:
    answer = ask(zone(), name)
    assert (answer.header.rcode, answer.header.aa, answer.rr) == (3, 1, [])
    assert answer.auth[0].rtype == RecordType.SOA
    assert answer.auth[0].ttl == 60
    assert str(answer.auth[0].rname) == "example."


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"_iroh.{Z32}.example.", RecordType.A),
        (f"{Z32}.example.", RecordType.TXT),
        ("example.", RecordType.TXT),
        ("ns1.example.", RecordType.TXT),
    ],
)
def test_names_without_records_of_the_type_exist_all_the_same(name: str, kind: int) -> None:
    answer = ask(zone(), name, kind)
    assert (answer.header.rcode, answer.rr) == (0, [])
    assert answer.auth[0].rtype == RecordType.SOA


def test_a_name_above_the_name_server_exists() -> None:
    served = zone(ns=parse_name("a.b.example."))
    assert ask(served, "b.example.").header.rcode == 0
    assert shown(ask(served, "a.b.example.", RecordType.A)) == ["192.0.2.1"]


def test_an_endpoint_that_withdrew_its_record_has_none() -> None:
    served = zone(packet(record=EndpointRecord()))
    assert ask(served, f"_iroh.{Z32}.example.").header.rcode == 3
    assert ask(served, f"{Z32}.example.").header.rcode == 0


def test_the_origin_has_what_the_configuration_says() -> None:
    served = zone()
    assert shown(ask(served, "example.", RecordType.A)) == ["192.0.2.1"]
    assert shown(ask(served, "example.", RecordType.AAAA)) == ["2001:db8::1"]
    assert shown(ask(served, "example.", RecordType.NS)) == ["ns1.example."]
    assert shown(ask(served, "ns1.example.", RecordType.A)) == ["192.0.2.1"]
    soa = ask(served, "example.", RecordType.SOA).rr[0]
    assert soa.ttl == 900
    assert (
        str(soa.rdata).split() == "ns1.example. hostmaster.example. 1 10800 3600 604800 60".split()
    )


def test_without_addresses_there_are_none() -> None:
    served = zone(a=None, aaaa=None, ns=None)
    for kind in (RecordType.A, RecordType.AAAA, RecordType.NS):
        assert shown(ask(served, "example.", kind)) == []


@pytest.mark.parametrize("kind", [RecordType.AXFR, RecordType.IXFR])
@pytest.mark.parametrize("udp", [True, False])
def test_zone_transfers_are_refused(kind: int, udp: bool) -> None:
    assert ask(zone(), "example.", kind, udp=udp).header.rcode == ResponseCode.REFUSED


def test_other_domains_and_classes_are_refused() -> None:
    assert ask(zone(), f"_iroh.{Z32}.elsewhere.").header.rcode == ResponseCode.REFUSED
    assert ask(zone(), "notexample.").header.rcode == ResponseCode.REFUSED
    message = bytearray(encode_query(parse_name("example."), RecordType.A, 1, edns=False))
    message[-1] = 3
    answer = zone().respond(bytes(message), over_udp=True)
    assert answer is not None
    assert dnslib.DNSRecord.parse(answer).header.rcode == ResponseCode.REFUSED


def test_any_is_answered_by_a_stand_in() -> None:
    answer = ask(zone(), f"_iroh.{Z32}.example.", RecordType.ANY)
    assert [rr.rtype for rr in answer.rr] == [RecordType.HINFO]
    assert b"RFC8482" in answer.pack()


def test_other_operations_are_not_implemented() -> None:
    message = bytearray(encode_query(parse_name("example."), RecordType.SOA, 1))
    message[2] = 5 << 3  # UPDATE, RFC 2136
    answer = zone().respond(bytes(message), over_udp=True)
    assert answer is not None
    assert dnslib.DNSRecord.parse(answer).header.rcode == ResponseCode.NOTIMP


def test_a_newer_edns_version_is_refused() -> None:
    message = bytearray(encode_query(parse_name("example."), RecordType.A, 1))
    message[-5] = 1
    query = parse_query(bytes(message))
    assert query.edns is not None
    assert query.edns.version == 1
    assert zone().answer(query).code is ResponseCode.BADVERS


def test_a_store_that_fails_makes_the_server_fail_not_crash() -> None:
    def broken(_: EndpointId) -> SignedPacket | None:
        raise LocalError("disk on fire")

    served = Zone(ZoneSettings((parse_name("example."),), SOA, 900), broken)
    assert ask(served, f"_iroh.{Z32}.example.").header.rcode == ResponseCode.SERVFAIL
    assert ask(served, "example.", RecordType.SOA).header.rcode == 0


def test_a_packet_damaged_at_rest_is_a_failure_of_the_server() -> None:
    damaged = SignedPacket.from_verified(KNOWN.endpoint_id, KNOWN.payload[:-1])
    assert ask(zone(damaged), f"_iroh.{Z32}.example.").header.rcode == ResponseCode.SERVFAIL


def many_addresses(count: int) -> SignedPacket:
    addresses = tuple(
        SocketAddr("2001:db8:1111:2222:3333:4444:5555:6666", p) for p in range(1, count)
    )
    return packet(record=EndpointRecord((), addresses).fitted())


def test_an_answer_too_long_for_udp_is_truncated_and_complete_over_tcp() -> None:
    served, name = zone(many_addresses(30)), parse_name(f"_iroh.{Z32}.example.")
    plain = encode_query(name, RecordType.TXT, 1, edns=False)
    short = served.respond(plain, over_udp=True)
    full = served.respond(plain, over_udp=False)
    assert short is not None
    assert full is not None
    assert len(short) <= 512
    assert dnslib.DNSRecord.parse(short).header.tc == 1
    assert len(dnslib.DNSRecord.parse(full).rr) > 10
    assert len(full) > 512


def test_a_full_packet_fits_into_an_edns_answer() -> None:
    answer = ask(zone(many_addresses(60)), f"_iroh.{Z32}.example.")
    assert answer.header.tc == 0
    assert len(answer.rr) > 10


def test_a_huge_edns_size_does_not_make_us_an_amplifier() -> None:
    message = bytearray(encode_query(parse_name(f"_iroh.{Z32}.example."), RecordType.TXT, 1))
    message[-8:-6] = b"\xff\xff"
    answer = zone(many_addresses(60)).respond(bytes(message), over_udp=True)
    assert answer is not None
    assert len(answer) <= 1232


def test_the_truncated_answer_is_no_longer_than_its_query() -> None:
    message = encode_query(parse_name(f"_iroh.{Z32}.example."), RecordType.TXT, 1)
    assert len(truncated_response(parse_query(message))) <= len(message)


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer_or_silence(message: bytes) -> None:
    answer = zone().respond(message, over_udp=True)
    assert answer is None or answer[:2] == message[:2]


@given(st.lists(st.binary(min_size=1, max_size=10), max_size=8), st.integers(0, 65535))
def test_any_name_and_type_under_the_origin_gets_an_answer(labels: list[bytes], kind: int) -> None:
    name = tuple(label.lower() for label in labels) + (b"example",)
    answer = zone().respond(encode_query(name, kind, 5), over_udp=True)
    assert answer is not None
    assert answer[2] & 0x80


def test_responses_are_never_answered() -> None:
    assert zone().respond(encode_answers([], ident=5), over_udp=True) is None
    assert zone().respond(b"short", over_udp=True) is None


def signed(*records: ResourceRecord) -> SignedPacket:
    return SignedPacket.sign(seed(1), NOW, encode_answers(records))


def other_records() -> SignedPacket:
    return signed(
        ResourceRecord(parse_name(f"www.{Z32}"), RecordType.A, 60, b"\xc0\0\2\7"),
        ResourceRecord(parse_name(f"web.{Z32}"), RecordType.CNAME, 60, encode_name((b"a", b"b"))),
        ResourceRecord(parse_name(f"www.{Z32}"), RecordType.TXT, 60, encode_strings([b"x"])),
        ResourceRecord(parse_name("www.elsewhere"), RecordType.TXT, 60, encode_strings([b"x"])),
    )


def test_only_txt_is_served_out_of_packets() -> None:
    served = zone(other_records())
    assert shown(ask(served, f"www.{Z32}.example.")) == ['"x"']
    assert shown(ask(served, f"www.{Z32}.example.", RecordType.A)) == []
    assert ask(served, f"web.{Z32}.example.", RecordType.A).header.rcode == 3


def test_other_types_are_served_when_the_operator_says_so() -> None:
    types = frozenset({RecordType.A, RecordType.TXT, RecordType.CNAME})
    served = zone(other_records(), served_types=types)
    assert shown(ask(served, f"www.{Z32}.example.", RecordType.A)) == ["192.0.2.7"]
    assert shown(ask(served, f"web.{Z32}.example.", RecordType.A)) == ["a.b."]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b 1 2 3 4",
        "a b 1 2 3 4 5 6",
        "a b 1 2 3 4 x",
        "a b -1 2 3 4 5",
        "a b 4294967296 2 3 4 5",
        "a..b b 1 2 3 4 5",
    ],
)
def test_what_is_no_soa_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        StartOfAuthority.parse(text)
