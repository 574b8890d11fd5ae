import struct
import time
from ipaddress import ip_address

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import mdns
from tunnel_rs.proto.mdns import Announcement, Query, decode, encode_query, encode_response
from tunnel_rs.values import EndpointId, SocketAddr

# Vectors of spec `discovery.md` section 8.
ID = EndpointId.parse("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61")
OTHER = EndpointId.parse("ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6")
QUERY = bytes.fromhex("000000000001000000000000075f69726f687631045f756470056c6f63616c00000c0001")
RESPONSE = bytes.fromhex(
    "0000840000000002000000023464663777776937626e7363746672766c7a61347076746b36753665333464647777"
    "6b6a61676e61647470356977706a7772767171075f69726f687631045f756470056c6f63616c0000210001000000"
    "0000480000000082a53a64663777776937626e7363746672766c7a61347076746b367536653334646477776b6a61"
    "676e61647470356977706a77727671712d3333343435056c6f63616c003464663777776937626e7363746672766c"
    "7a61347076746b367536653334646477776b6a61676e61647470356977706a7772767171075f69726f687631045f"
    "756470056c6f63616c00001000010000000000322072656c61793d68747470733a2f2f72656c61792e6578616d70"
    "6c652e636f6d2f10757365722d646174613d666f6f6261723a64663777776937626e7363746672766c7a61347076"
    "746b367536653334646477776b6a61676e61647470356977706a77727671712d3333343435056c6f63616c000001"
    "0001000000000004c0a801143a64663777776937626e7363746672766c7a61347076746b36753665333464647777"
    "6b6a61676e61647470356977706a77727671712d3333343435056c6f63616c00000100010000000000040a000007"
)
ADDRESSES = (SocketAddr("192.168.1.20", 33445), SocketAddr("10.0.0.7", 33445))
NONCE = bytes(range(8))

SERVICE = dnslib.DNSLabel("_irohv1._udp.local.")
OWNER = dnslib.DNSLabel(f"{ID.base32}._irohv1._udp.local.")
TARGET = dnslib.DNSLabel(f"{ID.base32}-7.local.")

ids = st.binary(min_size=32, max_size=32).map(EndpointId)
addresses = st.builds(
    SocketAddr,
    st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None).map(str),
    st.integers(0, 65535),
)


def response_record(
    *, srv_class: int = 1, a_class: int = 1, port: int = 7, target: object = TARGET
) -> dnslib.DNSRecord:
    """A response as another, name-compressing implementation may write it."""
    record = dnslib.DNSRecord(dnslib.DNSHeader(id=0, bitmap=0x8400))
    record.add_answer(
        dnslib.RR(OWNER, dnslib.QTYPE.SRV, srv_class, 0, dnslib.SRV(0, 0, port, target))
    )
    record.add_ar(dnslib.RR(target, dnslib.QTYPE.A, a_class, 0, dnslib.A("192.0.2.7")))
    return record


def test_query_is_the_vector_of_the_spec() -> None:
    assert encode_query() == QUERY
    assert decode(QUERY) == Query()


def test_response_is_the_vector_of_the_spec() -> None:
    encoded = encode_response(
        ID, ADDRESSES, relay_url="https://relay.example.com/", user_data="foobar"
    )
    assert encoded == [RESPONSE]
    assert decode(RESPONSE) == [Announcement(ID, ADDRESSES, "https://relay.example.com/", "foobar")]


def test_each_port_gets_a_service_record_and_ports_are_in_order() -> None:
    [packet] = encode_response(
        ID, [SocketAddr("192.0.2.1", 9), SocketAddr("fd00::1", 7), SocketAddr("192.0.2.2", 9)]
    )
    parsed = dnslib.DNSRecord.parse(packet)
    assert [rr.rdata.port for rr in parsed.rr] == [7, 9]
    assert [(str(rr.rname), rr.rtype, str(rr.rdata)) for rr in parsed.ar] == [
        (f"{ID.base32}-7.local.", dnslib.QTYPE.AAAA, "fd00::1"),
        (f"{ID.base32}-9.local.", dnslib.QTYPE.A, "192.0.2.1"),
        (f"{ID.base32}-9.local.", dnslib.QTYPE.A, "192.0.2.2"),
    ]
    assert {rr.ttl for rr in parsed.rr + parsed.ar} == {0}


def test_without_addresses_nothing_is_announced() -> None:
    assert encode_response(ID, [], user_data="foobar") == []


@pytest.mark.parametrize("attribute", ["relay_url", "user_data"])
def test_an_attribute_longer_than_a_character_string_is_refused(attribute: str) -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        encode_response(ID, ADDRESSES, **{attribute: "x" * 250})


@given(ids, st.lists(addresses, max_size=80, unique=True), st.text(max_size=40))
def test_many_addresses_are_spread_over_packets_that_are_each_complete(
    endpoint_id: EndpointId, given_addresses: list[SocketAddr], text: str
) -> None:
    seen: list[SocketAddr] = []
    for packet in encode_response(endpoint_id, given_addresses, user_data=text):
        assert len(packet) <= mdns.MAX_PACKET
        announcements = decode(packet)
        assert isinstance(announcements, list)
        [announcement] = announcements
        assert announcement.endpoint_id == endpoint_id
        assert announcement.user_data == text
        seen += announcement.addresses
    assert sorted(seen) == sorted(given_addresses)


def test_a_hinted_query_names_whom_it_looks_for_and_only_them() -> None:
    query = decode(encode_query([ID], NONCE))
    assert isinstance(query, Query)
    assert query.names(ID)
    assert not query.names(OTHER)
    assert not Query().names(ID)


def test_a_hinted_query_does_not_tell_whom_it_looks_for() -> None:
    packet = encode_query([ID], NONCE)
    assert ID.key not in packet
    assert ID.base32.encode() not in packet
    assert packet != encode_query([ID], bytes(8))


def test_others_see_a_hinted_query_as_a_plain_one() -> None:
    parsed = dnslib.DNSRecord.parse(encode_query([ID, OTHER], NONCE))
    first, *rest = parsed.questions
    assert (first.qname, first.qtype, first.qclass) == (SERVICE, dnslib.QTYPE.PTR, 1)
    assert [(q.qname.matchSuffix(SERVICE), q.qtype) for q in rest] == [(True, dnslib.QTYPE.SRV)] * 2


def test_a_query_with_the_most_hints_fits() -> None:
    everyone = [EndpointId(bytes([n]) * 32) for n in range(mdns.MAX_HINTS)]
    packet = encode_query(everyone, NONCE)
    assert len(packet) < 1000
    query = decode(packet)
    assert isinstance(query, Query)
    assert all(map(query.names, everyone))
    with pytest.raises(ValueError, match="can name 16 endpoints"):
        encode_query([*everyone, ID], NONCE)
    with pytest.raises(ValueError, match="nonce"):
        encode_query([ID], b"short")


def test_names_are_read_compressed_and_in_any_case() -> None:
    assert decode(bytes(response_record().pack())) == [
        Announcement(ID, (SocketAddr("192.0.2.7", 7),))
    ]
    assert decode(QUERY.replace(b"_irohv1", b"_IrohV1")) == Query()
    [packet] = encode_response(ID, ADDRESSES)
    upper = packet.replace(ID.base32.encode(), ID.base32.upper().encode())
    assert decode(upper) == [Announcement(ID, ADDRESSES)]


def test_a_packet_that_asks_is_a_query_only() -> None:
    record = response_record()
    record.add_question(dnslib.DNSQuestion(SERVICE, dnslib.QTYPE.PTR))
    assert decode(bytes(record.pack())) == Query()


@pytest.mark.parametrize("question", [(SERVICE, 12, 0x8001), (SERVICE, 255, 1), (OWNER, 12, 1)])
def test_a_question_for_something_else_is_no_query(question: tuple[object, int, int]) -> None:
    record = response_record()
    record.add_question(dnslib.DNSQuestion(*question))
    assert isinstance(decode(bytes(record.pack())), list)


def test_records_with_the_cache_flush_bit_are_ignored() -> None:
    assert decode(bytes(response_record(srv_class=0x8001).pack())) is None
    assert decode(bytes(response_record(a_class=0x8001).pack())) is None


def test_sections_are_not_interchangeable() -> None:
    record = response_record()
    record.rr, record.ar = record.ar, record.rr
    assert decode(bytes(record.pack())) is None
    record = response_record()
    record.auth, record.ar = record.ar, []
    assert decode(bytes(record.pack())) is None


def test_an_announcement_without_addresses_is_left_out() -> None:
    record = response_record()
    record.ar = []
    assert decode(bytes(record.pack())) is None


@pytest.mark.parametrize("target", ["local.", "x.y.local.", "x.example.", "."])
def test_a_target_that_is_no_name_under_local_is_ignored(target: str) -> None:
    assert decode(bytes(response_record(target=dnslib.DNSLabel(target)).pack())) is None


@pytest.mark.parametrize("label", ["short", "1" * 52, "a" * 51 + "b", "a" * 56])
def test_an_instance_that_is_no_endpoint_id_is_ignored(label: str) -> None:
    record = response_record()
    record.rr[0].rname = dnslib.DNSLabel(f"{label}._irohv1._udp.local.")
    assert decode(bytes(record.pack())) is None


def test_text_of_unknown_keys_or_not_utf8_is_ignored() -> None:
    record = response_record()
    strings = [b"user-data=a=b", b"", b"other=1", b"novalue", b"relay=\xff"]
    record.add_answer(dnslib.RR(OWNER, dnslib.QTYPE.TXT, 1, 0, dnslib.TXT(strings)))
    address = SocketAddr("192.0.2.7", 7)
    assert decode(bytes(record.pack())) == [Announcement(ID, (address,), None, "a=b")]


def test_a_v4_mapped_address_is_taken_as_ipv4() -> None:
    record = response_record()
    record.ar[0].rtype = dnslib.QTYPE.AAAA
    record.ar[0].rdata = dnslib.AAAA("::ffff:c000:209")
    assert decode(bytes(record.pack())) == [Announcement(ID, (SocketAddr("192.0.2.9", 7),))]


def test_a_packet_that_was_cut_off_or_is_too_long_is_dropped() -> None:
    assert all(decode(RESPONSE[:end]) is None for end in range(len(RESPONSE)))
    assert all(decode(QUERY[:end]) is None for end in range(len(QUERY)))
    padding = mdns.MAX_PACKET - len(RESPONSE)
    assert decode(RESPONSE + bytes(padding)) is not None
    assert decode(RESPONSE + bytes(padding + 1)) is None


@pytest.mark.parametrize("pointer", [b"\xc0\x0c", b"\xc0\x0e", b"\xff\xff", b"\xc0\x00"])
def test_pointers_that_loop_or_lead_outside_are_dropped(pointer: bytes) -> None:
    header = struct.pack("!6H", 0, 0, 1, 0, 0, 0)
    assert decode(header + pointer + b"\0\x0c\0\x01" + b"_irohv1") is None
    assert decode(header + b"\x07_irohv1" + pointer + b"\0\x0c\0\x01") is None


def test_a_length_that_is_neither_label_nor_pointer_is_dropped() -> None:
    assert decode(QUERY.replace(b"\x07_iroh", b"\x47_iroh")) is None
    assert decode(QUERY.replace(b"\x07_iroh", b"\x87_iroh")) is None


def hostile_packets() -> list[bytes]:
    """The most records, the longest names and the longest pointer chains that fit."""
    header = struct.pack("!6H", 0, 0x8400, 0, 65535, 0, 65535)
    root_records = b"\0" + struct.pack("!HHIH", 33, 1, 0, 0)
    chain = b"\x07_irohv1\0" + b"".join(
        (0xC000 | at).to_bytes(2, "big") for at in [12, *range(21, 700, 2)]
    )
    record = b"\xc2\xb1" + struct.pack("!HHIH", 16, 1, 0, 0)
    count = (mdns.MAX_PACKET - 12 - len(chain)) // len(record)
    chained = struct.pack("!6H", 0, 0x8400, 0, count, 0, 0) + chain + record * count
    labels = b"\x01a" * 100 + b"\x07_irohv1\0"
    spread = b"".join(
        (0xC000 | 12 + 2 * n).to_bytes(2, "big") + struct.pack("!HHIH", 16, 1, 0, 0)
        for n in range(100)
    )
    labelled = struct.pack("!6H", 0, 0x8400, 0, 101, 0, 0) + labels + record[2:] + spread
    filled = header + root_records * 200
    return [filled[: mdns.MAX_PACKET - 7] + b"_irohv1", chained, labelled]


@pytest.mark.parametrize("packet", hostile_packets())
def test_a_hostile_packet_costs_little(packet: bytes) -> None:
    began = time.process_time()
    for _ in range(100):
        decode(packet)
    assert time.process_time() - began < 1.0, "more than 10 ms a packet"


def test_what_one_packet_announces_is_bounded() -> None:
    record = dnslib.DNSRecord(dnslib.DNSHeader(id=0, bitmap=0x8400))
    for port in range(1, 10):
        record.add_answer(dnslib.RR(OWNER, dnslib.QTYPE.SRV, 1, 0, dnslib.SRV(0, 0, port, TARGET)))
    for last in range(1, 10):
        record.add_ar(dnslib.RR(TARGET, dnslib.QTYPE.A, 1, 0, dnslib.A(f"192.0.2.{last}")))
    packet = bytes(record.pack())
    assert len(packet) <= mdns.MAX_PACKET
    announcements = decode(packet)
    assert isinstance(announcements, list)
    assert len(announcements[0].addresses) == 64


def check_shape(message: object) -> None:
    if isinstance(message, list):
        assert 0 < len(message) <= 16
        for announcement in message:
            assert 0 < len(announcement.addresses) <= 64
            for address in announcement.addresses:
                assert str(ip_address(address.ip)) == address.ip
                assert 0 <= address.port <= 65535
    elif message is not None:
        assert isinstance(message, Query)
        assert len(message.hints) <= mdns.MAX_HINTS


@given(st.binary(max_size=1600))
def test_arbitrary_bytes_never_raise(packet: bytes) -> None:
    check_shape(decode(packet))
    check_shape(decode(packet[:12] + b"\x07_irohv1\x04_udp\x05local\0" + packet[12:]))


@given(
    st.sampled_from(
        [QUERY, RESPONSE, encode_query([ID, OTHER], NONCE), bytes(response_record().pack())]
    ),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_packets_never_raise(packet: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(packet)
    for at, value in damage:
        damaged[at % len(damaged)] = value
    check_shape(decode(bytes(damaged)))
