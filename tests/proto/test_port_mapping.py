"""Tests of `tunnel_rs.proto.port_mapping`."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.port_mapping import (
    LONGEST_LIFETIME,
    SHORTEST_LIFETIME,
    Lease,
    MappingRequest,
    OtherVersionError,
    decode_address,
    decode_nat_pmp,
    decode_pcp,
    encode_address_question,
    leads_outside,
)
from tunnel_rs.values import SocketAddr

NONCE = bytes(range(12))
REQUEST = MappingRequest(SocketAddr("192.168.1.2", 4444), NONCE, wanted=5555)
OUTSIDE = IPv4Address("198.51.100.21")
V4_MAPPED = "00000000000000000000ffff"

# Laid out by hand after RFC 6887 figures 2, 3, 10 and 11, and RFC 6886 sections 3.2 and 3.3.
PCP_REQUEST = bytes.fromhex(
    f"02010000 00001c20 {V4_MAPPED} c0a80102 {NONCE.hex()} 11000000 115c 15b3 {V4_MAPPED} 00000000"
)
PCP_ANSWER = bytes.fromhex(
    f"02810000 00000e10 00000064 {'00' * 12} {NONCE.hex()} 11000000 115c 15b3 {V4_MAPPED} c6336415"
)
PMP_REQUEST = bytes.fromhex("00010000 115c 15b3 00001c20")
PMP_ANSWER = bytes.fromhex("00810000 00000064 115c 15b3 00000e10")
PMP_ADDRESS = bytes.fromhex("00800000 00000064 c6336415")
LEASE = Lease(SocketAddr("198.51.100.21", 5555), 3600, 100)


def patched(message: bytes, at: int, value: bytes) -> bytes:
    return message[:at] + value + message[at + len(value) :]


def test_a_pcp_request_is_laid_out_as_in_the_rfc() -> None:
    assert REQUEST.pcp() == PCP_REQUEST


def test_a_nat_pmp_request_is_laid_out_as_in_the_rfc() -> None:
    assert REQUEST.nat_pmp() == PMP_REQUEST
    assert encode_address_question() == bytes((0, 0))


def test_a_grant_is_read() -> None:
    assert decode_pcp(PCP_ANSWER, REQUEST) == LEASE
    assert decode_nat_pmp(PMP_ANSWER, REQUEST, OUTSIDE) == LEASE
    assert decode_address(PMP_ADDRESS) == OUTSIDE


def test_of_ipv6_a_pinhole_is_asked_for_and_read() -> None:
    own = SocketAddr("2001:db8:1::2", 4444)
    packed = IPv6Address(own.ip).packed.hex()
    request = MappingRequest(own, NONCE)
    asked = f"02010000 00001c20 {packed} {NONCE.hex()} 11000000 115c 0000 {'00' * 16}"
    assert request.pcp() == bytes.fromhex(asked)
    head = f"02810000 00000e10 00000064 {'00' * 12} {NONCE.hex()} 11000000 115c 115c"
    assert decode_pcp(bytes.fromhex(f"{head} {packed}"), request) == Lease(own, 3600, 100)
    for useless in (f"{V4_MAPPED} c6336415", f"fe80{'00' * 14}", "00" * 16):
        with pytest.raises(ProtocolError, match="not one of the internet"):
            decode_pcp(bytes.fromhex(f"{head} {useless}"), request)


def test_a_mapping_is_taken_back_with_a_lifetime_of_nothing() -> None:
    release = MappingRequest(REQUEST.source, NONCE, wanted=5555, lifetime=0)
    assert release.pcp()[4:8] == bytes(4)
    assert release.pcp()[42:44] == bytes(2)
    assert release.nat_pmp() == bytes.fromhex("00010000 115c 0000 00000000")
    gone = decode_nat_pmp(patched(PMP_ANSWER, 10, bytes(6)), release, None)
    assert gone is not None
    assert gone.lifetime == 0


def test_a_router_that_speaks_the_other_protocol_is_told_apart() -> None:
    with pytest.raises(OtherVersionError):
        decode_pcp(bytes.fromhex("00810001 00000064"), REQUEST)
    with pytest.raises(OtherVersionError):
        decode_pcp(patched(PCP_ANSWER, 3, b"\1"), REQUEST)
    with pytest.raises(OtherVersionError):
        decode_address(patched(PMP_ADDRESS, 3, b"\1"))


@pytest.mark.parametrize(("code", "words"), [(2, "not allow"), (8, "no room"), (99, "code 99")])
def test_a_refusal_is_told_in_words(code: int, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_pcp(patched(PCP_ANSWER, 3, bytes((code,))), REQUEST)


def test_a_refusal_of_nat_pmp_is_told_in_words() -> None:
    with pytest.raises(ProtocolError, match="no network"):
        decode_nat_pmp(patched(PMP_ANSWER, 3, b"\3"), REQUEST, OUTSIDE)


@pytest.mark.parametrize(
    ("at", "value"),
    [(1, b"\x80"), (24, b"\xff"), (36, b"\x06"), (40, b"\x11\x5d")],
    ids=["opcode", "nonce", "protocol", "port"],
)
def test_an_answer_to_something_else_is_ignored(at: int, value: bytes) -> None:
    assert decode_pcp(patched(PCP_ANSWER, at, value), REQUEST) is None


def test_an_answer_about_another_port_is_ignored() -> None:
    assert decode_nat_pmp(patched(PMP_ANSWER, 8, b"\x11\x5d"), REQUEST, OUTSIDE) is None
    assert decode_nat_pmp(PMP_ADDRESS, REQUEST, OUTSIDE) is None
    assert decode_address(PMP_ANSWER) is None


@pytest.mark.parametrize(("said", "taken"), [(1, SHORTEST_LIFETIME), (2**32 - 1, LONGEST_LIFETIME)])
def test_an_odd_lifetime_is_bounded(said: int, taken: int) -> None:
    lease = decode_pcp(patched(PCP_ANSWER, 4, said.to_bytes(4, "big")), REQUEST)
    assert lease is not None
    assert lease.lifetime == taken


def test_a_port_behind_another_nat_is_of_no_use() -> None:
    with pytest.raises(ProtocolError, match="not one of the internet"):
        decode_pcp(patched(PCP_ANSWER, 56, bytes((10, 0, 0, 1))), REQUEST)
    with pytest.raises(ProtocolError):
        decode_nat_pmp(PMP_ANSWER, REQUEST, None)


@pytest.mark.parametrize(
    ("ip", "outside"),
    [
        ("8.8.8.8", True),
        ("100.63.0.1", True),
        ("100.64.0.1", False),
        ("172.15.0.1", True),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.1.1", False),
        ("127.0.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("2001:db8::1", True),
        ("3fff::1", True),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::1", False),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_private_addresses_do_not_lead_outside(ip: str, outside: bool) -> None:
    assert leads_outside(ip_address(ip)) is outside


@given(st.binary(max_size=80) | st.sampled_from([PCP_ANSWER, PMP_ANSWER, PMP_ADDRESS]), st.data())
def test_no_message_makes_a_decoder_fail_otherwise(message: bytes, data: st.DataObject) -> None:
    message = message[: data.draw(st.integers(0, len(message)))]
    if message:
        message = patched(message, data.draw(st.integers(0, len(message) - 1)), b"\x01")
    for decode in (
        lambda: decode_pcp(message, REQUEST),
        lambda: decode_nat_pmp(message, REQUEST, OUTSIDE),
        lambda: decode_address(message),
    ):
        try:
            decode()
        except ProtocolError:
            pass
