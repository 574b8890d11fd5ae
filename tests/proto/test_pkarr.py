import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto import pkarr
from tunnel_rs.proto.dns_wire import (
    RecordType,
    ResourceRecord,
    encode_answers,
    encode_strings,
    parse_name,
)
from tunnel_rs.proto.pkarr import (
    EndpointRecord,
    SignedPacket,
    endpoint_id_from_z32,
    next_timestamp,
    verify_signature,
)
from tunnel_rs.values import EndpointId, Secret, SocketAddr

SEED = Secret(b"\x2a" * 32)
ENDPOINT = EndpointId.parse("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61")

# Captured from a real iroh endpoint with the secret above (spec discovery.md section 8).
CAPTURED_EMPTY = bytes.fromhex(
    "c6e34204ada901cba038d999fe49014c27f4f70c74392a09deb4ca888b56e10b234b9fa271b6a8f056e0c9819fb3a4"
    "d0b2e6ef157f49865ff25e3e43184e4005000660d8d19c144a000080000000000000000000"
)
CAPTURED_RELAY = bytes.fromhex(
    "52c7afb2e00466f767b08ab0a7d046abb2bf931cac7d9b02ca005d0e1b7e48bca1481c77118666bac00269a7fe851b"
    "d11115d6a4a7176ee3d5c63f2f4834790c000660d8d19f33f6000080000000000100000000055f69726f6834646639"
    "737365396270316e756674696d3379687869756b367736723568646473736b6a79677079647578376573786a737469"
    "6f6f00001000010000001e001e1d72656c61793d687474703a2f2f3132372e302e302e313a33393334312f"
)
# Three records, secret of the Rust tests (same section).
THREE_SEED = Secret(
    bytes.fromhex("abdaadffee096b95a1ed91430083f8b294468b975bd8eacfb391689703fdcc10")
)
THREE_RECORDS = bytes.fromhex(
    "56659efedb3e4ea5f9000aa29815353c70ab7cc2c1deeeb64b685847dad48b4780f6895f8e50529a882374f0deef82"
    "2a3f86e9d0e5b4bedca440c51509010f0800060a24181e4000000080000000000300000000055f69726f6834387533"
    "697537313468686e36736a68346b37657137746d396a6d6471397474696862673366696f71697a676b6f396a666268"
    "637900001000010000001e001b1a72656c61793d68747470733a2f2f6578616d706c652e636f6d2fc00c0010000100"
    "00001e001413616464723d3132372e302e302e313a31323334c00c001000010000001e001110757365722d64617461"
    "3d666f6f626172"
)

seeds = st.binary(min_size=32, max_size=32).map(Secret)
timestamps = st.integers(0, 2**64 - 1)
host_names = st.from_regex(r"\A[a-z][a-z0-9]{0,20}(\.[a-z]{1,10}){0,2}\Z")
relay_urls = st.builds("{}://{}/".format, st.sampled_from(["http", "https"]), host_names)
addresses = st.builds(
    SocketAddr,
    st.one_of(
        st.ip_addresses(v=4, network="10.0.0.0/8"), st.ip_addresses(v=6, network="2001:db8::/32")
    ).map(str),
    st.integers(1, 65535),
)
user_data = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="="), max_size=60)
records = st.builds(
    EndpointRecord,
    st.lists(relay_urls, max_size=3, unique=True).map(tuple),
    st.lists(addresses, max_size=5, unique=True).map(tuple),
    user_data,
)


@pytest.mark.parametrize(
    ("key", "z32"),
    [
        (str(ENDPOINT), "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstioo"),
        (
            "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6",
            "i3cx9nburopcommx67otytzpc64oqmewftce4ydd7fbpuj4iyk5y",
        ),
        (
            "1992d53c02cdc04566e5c0edb1ce83305cd550297953a047a445ea3264b54b18",
            "dgjpkxyn3zyrk3zfads5duwdgbqpkwbjxfj4yt7rezidr3fijccy",
        ),
    ],
)
def test_z_base_32_ids_of_rust_are_read(key: str, z32: str) -> None:
    assert endpoint_id_from_z32(z32) == EndpointId.parse(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstio",
        "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstiooo",
        "DF9SSE9BP1NUFTIM3YHXIUK6W6R5HDDSSKJYGPYDUX7ESXJSTIOO",
        "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstiob",
        "vf9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstiol",
        "é" * 52,
        "y" * 51 + "\n",
    ],
)
def test_other_texts_are_no_z_base_32_ids(text: str) -> None:
    with pytest.raises(ValueError):
        endpoint_id_from_z32(text)


@given(st.text(max_size=60) | st.text("ybndrfg8ejkmcpqxot1uwisza345h769", min_size=52, max_size=52))
def test_a_z_base_32_id_that_is_read_is_written_the_same(text: str) -> None:
    try:
        endpoint_id = endpoint_id_from_z32(text)
    except ValueError:
        return
    assert endpoint_id.z32 == text


def test_the_published_bep_44_vector_verifies() -> None:
    key = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
    signature = bytes.fromhex(
        "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
        "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
    )
    assert verify_signature(key, signature, 1, b"Hello World!")
    assert not verify_signature(key, signature, 2, b"Hello World!")


def test_a_captured_empty_packet_is_read_and_made_byte_for_byte() -> None:
    packet = SignedPacket.from_payload(ENDPOINT, CAPTURED_EMPTY)
    assert packet.timestamp == 0x000660D8D19C144A
    assert packet.endpoint_record() == EndpointRecord()
    assert SignedPacket.for_record(SEED, packet.timestamp, EndpointRecord()) == packet
    assert packet.payload == CAPTURED_EMPTY


def test_a_captured_relay_packet_is_read_and_made_byte_for_byte() -> None:
    packet = SignedPacket.from_payload(ENDPOINT, CAPTURED_RELAY)
    assert packet.timestamp == 1795334206338038
    record = EndpointRecord(("http://127.0.0.1:39341/",))
    assert packet.endpoint_record() == record
    assert SignedPacket.for_record(SEED, packet.timestamp, record).payload == CAPTURED_RELAY


def test_three_records_are_made_and_read_byte_for_byte() -> None:
    record = EndpointRecord(("https://example.com/",), (SocketAddr("127.0.0.1", 1234),), "foobar")
    packet = SignedPacket.for_record(THREE_SEED, 1700000000000000, record)
    assert packet.payload == THREE_RECORDS
    assert str(packet.endpoint_id).startswith("3cf359f65ae705eb")
    assert SignedPacket.from_payload(packet.endpoint_id, THREE_RECORDS).endpoint_record() == record
    assert SignedPacket.from_bytes(bytes(packet)) == packet


@given(seeds, timestamps, records)
def test_every_record_survives_signing(
    seed: Secret[bytes], timestamp: int, record: EndpointRecord
) -> None:
    packet = SignedPacket.for_record(seed, timestamp, record)
    again = SignedPacket.from_bytes(bytes(packet))
    assert again == packet
    assert again.endpoint_record() == record


@given(st.integers(0, len(THREE_RECORDS) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_is_refused(index: int, change: int) -> None:
    endpoint_id = SignedPacket.for_record(THREE_SEED, 1, EndpointRecord()).endpoint_id
    changed = bytearray(THREE_RECORDS)
    changed[index] ^= change
    with pytest.raises(ProtocolError, match="signature"):
        SignedPacket.from_payload(endpoint_id, bytes(changed))


@given(st.integers(0, len(THREE_RECORDS) - 1))
def test_a_cut_off_packet_is_refused(length: int) -> None:
    endpoint_id = SignedPacket.for_record(THREE_SEED, 1, EndpointRecord()).endpoint_id
    with pytest.raises(ProtocolError):
        SignedPacket.from_payload(endpoint_id, THREE_RECORDS[:length])


@given(st.binary(max_size=200))
def test_a_signed_message_that_is_no_dns_is_refused_and_never_crashes(message: bytes) -> None:
    packet = SignedPacket.sign(SEED, 1, message)
    try:
        SignedPacket.from_payload(ENDPOINT, packet.payload).endpoint_record()
    except ProtocolError:
        pass


@pytest.mark.parametrize("size", [0, 71, 1073, 65536])
def test_payloads_outside_the_bounds_are_refused_by_their_size(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"{size} bytes"):
        SignedPacket.from_payload(ENDPOINT, bytes(size))


def test_a_message_of_1000_bytes_is_signed_and_one_of_1001_is_not() -> None:
    padding = ResourceRecord(parse_name("x."), 99, 0, bytes(1000 - 12 - 3 - 10))
    full = encode_answers([padding])
    assert len(full) == 1000
    packet = SignedPacket.sign(SEED, 1, full)
    assert len(packet.payload) == 1072
    assert SignedPacket.from_payload(ENDPOINT, packet.payload) == packet
    with pytest.raises(ValueError):
        SignedPacket.sign(SEED, 1, full + b"\0")


def test_a_key_of_small_order_signs_nothing() -> None:
    identity = b"\x01" + bytes(31)
    forged = identity + bytes(32)  # R = identity, s = 0 fits any message for such keys
    assert not verify_signature(identity, forged, 1, b"anything")


def test_the_small_order_keys_are_those_of_the_curve() -> None:
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def doubled(point: tuple[int, int]) -> tuple[int, int]:
        x, y = point
        shared = d * x * x * y * y
        return (
            2 * x * y * pow(1 + shared, -1, p) % p,
            (y * y + x * x) * pow(1 - shared, -1, p) % p,
        )

    def decoded(key: bytes) -> tuple[int, int]:
        encoded = int.from_bytes(key, "little")
        y, sign = encoded & (2**255 - 1), encoded >> 255
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        if x * x % p != square:
            x = x * pow(2, (p - 1) // 4, p) % p
        assert x * x % p == square
        return (p - x if x % 2 != sign and x else x), y

    assert len(pkarr._SMALL_ORDER_KEYS) == 8
    for key in pkarr._SMALL_ORDER_KEYS:
        assert doubled(doubled(doubled(decoded(key)))) == (0, 1)


@given(records)
def test_records_survive_their_txt_strings(record: EndpointRecord) -> None:
    strings = [string.encode() for string in record.to_strings()]
    assert EndpointRecord.from_strings(strings) == record


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_txt_strings_give_a_record_or_a_protocol_error(strings: list[bytes]) -> None:
    try:
        record = EndpointRecord.from_strings(strings)
    except ProtocolError:
        return
    assert isinstance(record, EndpointRecord)


@given(st.sampled_from([b"relay=", b"addr=", b"user-data="]), st.binary(max_size=80))
def test_any_value_gives_a_record_or_a_protocol_error(key: bytes, value: bytes) -> None:
    try:
        EndpointRecord.from_strings([key + value])
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "string", [b"color=blue", b"relay", b"", b"Relay=https://a/", b"addr=\xff"]
)
def test_one_unknown_string_makes_the_whole_set_invalid(string: bytes) -> None:
    with pytest.raises(ProtocolError):
        EndpointRecord.from_strings([b"relay=https://example.com/", string])


def test_values_that_cannot_be_read_are_left_out() -> None:
    record = EndpointRecord.from_strings(
        [b"relay=:::", b"addr=here", b"addr=10.0.0.1:1", b"relay=ftp://x/", b"relay=http://x"]
    )
    assert record == EndpointRecord(("http://x/",), (SocketAddr("10.0.0.1", 1),))


@pytest.mark.parametrize(
    "address",
    ["224.0.0.1:5", "[ff02::1]:5", "0.0.0.0:5", "[::]:5", "255.255.255.255:5", "10.0.0.1:0"],
)
def test_addresses_that_harm_others_are_left_out(address: str) -> None:
    assert EndpointRecord.from_strings([b"addr=" + address.encode()]) == EndpointRecord()


def test_a_value_ends_at_the_second_equals_sign() -> None:
    record = EndpointRecord.from_strings([b"user-data=a=b=c", b"relay=http://x/y=z=1"])
    assert record == EndpointRecord(("http://x/y",), (), "a")


def test_a_flood_of_values_is_bounded() -> None:
    many = [b"addr=10.0.0.%d:1" % n for n in range(1, 90)]
    assert len(EndpointRecord.from_strings(many).addresses) == 32
    with pytest.raises(ProtocolError, match="more than 100"):
        EndpointRecord.from_strings([b"user-data="] * 101)


@pytest.mark.parametrize(
    "record",
    [
        EndpointRecord(user_data="x" * 246),
        EndpointRecord(user_data="a=b"),
        EndpointRecord(("https://example.com/a=b",)),
        EndpointRecord(("https://example.com/" + "x" * 240,)),
    ],
)
def test_what_a_reader_would_cut_off_is_not_written(record: EndpointRecord) -> None:
    with pytest.raises(ValueError):
        record.to_strings()


def test_as_many_addresses_as_fit_are_published() -> None:
    many = tuple(SocketAddr("2001:db8:1111:2222:3333:4444:5555:6666", p) for p in range(1000, 1030))
    record = EndpointRecord(("https://relay.example/",), many)
    fitted = record.fitted()
    assert 10 < len(fitted.addresses) < 30
    assert fitted.addresses == many[: len(fitted.addresses)]
    SignedPacket.for_record(SEED, 1, fitted)
    with pytest.raises(ValueError):
        EndpointRecord(tuple(f"https://{n}.example/{'x' * 200}" for n in range(6))).fitted()


def test_relay_urls_are_brought_to_normal_form() -> None:
    texts = [b"relay=HTTPS://Relay.Example:443", b"relay=https://relay.example/"]
    assert EndpointRecord.from_strings(texts) == EndpointRecord(("https://relay.example/",))


@pytest.mark.parametrize("url", ["http://a b/", "http://a\t/", "http://ä/", "http://a/<x>", "x"])
def test_relay_urls_with_odd_characters_are_left_out(url: str) -> None:
    assert EndpointRecord.from_strings([f"relay={url}".encode()]) == EndpointRecord()


def test_timestamps_increase_when_the_clock_goes_back() -> None:
    assert next_timestamp(0, 1000) == 1000
    assert next_timestamp(1000, 1000) == 1001
    assert next_timestamp(1001, 5) == 1002


@given(timestamps, timestamps, st.booleans())
def test_of_two_packets_exactly_one_replaces_the_other(a: int, b: int, relay: bool) -> None:
    first = SignedPacket.for_record(SEED, a, EndpointRecord())
    second = SignedPacket.for_record(SEED, b, EndpointRecord(("http://x/",) if relay else ()))
    if first == second:
        assert not first.replaces(second)
    else:
        assert first.replaces(second) != second.replaces(first)


def test_at_equal_times_the_larger_message_wins() -> None:
    one = SignedPacket.for_record(SEED, 5, EndpointRecord(("http://a/",)))
    two = SignedPacket.for_record(SEED, 5, EndpointRecord(("http://b/",)))
    assert two.replaces(one)


def test_records_of_other_zones_and_names_are_ignored() -> None:
    z32 = ENDPOINT.z32
    data = encode_strings([b"relay=http://x/"])
    message = encode_answers(
        [
            ResourceRecord(parse_name(f"_iroh.{z32}"), RecordType.TXT, 30, data, record_class=3),
            ResourceRecord(parse_name(f"_other.{z32}"), RecordType.TXT, 30, data),
            ResourceRecord(parse_name("_iroh.example"), RecordType.TXT, 30, data),
            ResourceRecord(parse_name(f"_iroh.{z32}"), RecordType.A, 30, b"\x7f\0\0\1"),
        ]
    )
    packet = SignedPacket.sign(SEED, 1, message)
    assert packet.endpoint_record() == EndpointRecord()
    assert len(packet.records()) == 2


def test_several_strings_of_one_record_are_joined() -> None:
    data = encode_strings([b"relay=http:", b"//x/"])
    name = pkarr.record_name(ENDPOINT)
    packet = SignedPacket.sign(
        SEED, 1, encode_answers([ResourceRecord(name, RecordType.TXT, 30, data)])
    )
    assert packet.endpoint_record() == EndpointRecord(("http://x/",))


def test_the_seed_belongs_to_the_endpoint_of_the_captures() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEED.reveal()).public_key().public_bytes_raw()
    assert EndpointId(key) == ENDPOINT
    assert base64.b32decode(ENDPOINT.base32.upper() + "====") == key
