"""SOCKS5: the dialogue byte by byte, every refusal, datagram headers, and hostile input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.splitting import cut_positions, mutations, pieces

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.socks5 import (
    MAX_EARLY,
    ConnectRequest,
    Reply,
    Socks5Negotiation,
    UdpAssociate,
    decode_udp_request,
    encode_udp_reply,
)
from tunnel_rs.values import HostPort, SocketAddr

GREETING = b"\x05\x01\x00"
WELCOME = b"\x05\x00"
ZERO_ADDRESS = b"\x01\x00\x00\x00\x00\x00\x00"
V4 = b"\x01\x7f\x00\x00\x01\x00\x16"
V6 = b"\x04" + bytes(15) + b"\x01\x1f\x90"
NAME = b"\x03\x0bexample.com\x01\xbb"

ADDRESSES = [(V4, "127.0.0.1", 22), (V6, "::1", 8080), (NAME, "example.com", 443)]


def connect(address: bytes) -> bytes:
    return b"\x05\x01\x00" + address


def asked(address: bytes = V4) -> Socks5Negotiation:
    """A dialogue that waits for our answer, its greeting answered."""
    negotiation = Socks5Negotiation()
    assert negotiation.feed(GREETING + connect(address)) is not None
    assert negotiation.data_to_send() == WELCOME
    return negotiation


@pytest.mark.parametrize("greeting", [GREETING, b"\x05\x02\x02\x00", b"\x05\xff" + bytes(255)])
def test_a_greeting_that_offers_no_authentication_is_welcome(greeting: bytes) -> None:
    negotiation = Socks5Negotiation()
    assert negotiation.feed(greeting) is None
    assert negotiation.data_to_send() == WELCOME
    assert negotiation.data_to_send() == b""


@pytest.mark.parametrize("greeting", [b"\x05\x00", b"\x05\x01\x02", b"\x05\x02\x01\x02"])
def test_a_greeting_that_insists_on_authentication_is_told_no(greeting: bytes) -> None:
    negotiation = Socks5Negotiation()
    with pytest.raises(ProtocolError, match="insists on authentication"):
        negotiation.feed(greeting)
    assert negotiation.data_to_send() == b"\x05\xff"


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (b"\x04\x01\x00\x16", "speaks SOCKS4"),
        (b"GET / HTTP/1.1\r\n", "speaks HTTP"),
        (b"CONNECT example.com:443 HTTP/1.1", "speaks HTTP"),
        (b"\x16\x03\x01", "does not speak SOCKS5"),
        (b"\x00", "does not speak SOCKS5"),
        (b"\xc4", "does not speak SOCKS5"),
    ],
)
def test_another_protocol_is_recognised_by_its_first_byte(first: bytes, says: str) -> None:
    negotiation = Socks5Negotiation()
    with pytest.raises(ProtocolError, match=says):
        negotiation.feed(first)
    assert negotiation.data_to_send() == b""


@pytest.mark.parametrize(("address", "host", "port"), ADDRESSES)
def test_a_connect_request_names_host_and_port(address: bytes, host: str, port: int) -> None:
    negotiation = Socks5Negotiation()
    negotiation.feed(GREETING)
    request = negotiation.feed(connect(address))
    assert request == ConnectRequest(host, port)
    assert isinstance(request, ConnectRequest)
    assert request.address == HostPort(host, port)


@pytest.mark.parametrize(("address", "host", "port"), [*ADDRESSES, (ZERO_ADDRESS, "0.0.0.0", 0)])
def test_a_udp_association_names_where_datagrams_come_from(
    address: bytes, host: str, port: int
) -> None:
    negotiation = Socks5Negotiation()
    assert negotiation.feed(GREETING + b"\x05\x03\x00" + address) == UdpAssociate(host, port)


def test_a_reserved_byte_is_ignored() -> None:
    assert Socks5Negotiation().feed(GREETING + b"\x05\x01\x77" + V4) is not None


@given(st.sampled_from(ADDRESSES), cut_positions)
def test_the_request_is_found_however_the_bytes_are_split(
    address: tuple[bytes, str, int], cuts: list[int]
) -> None:
    negotiation = Socks5Negotiation()
    found = [negotiation.feed(part) for part in pieces(GREETING + connect(address[0]), cuts)]
    assert [f for f in found if f is not None] == [ConnectRequest(address[1], address[2])]
    assert negotiation.data_to_send() == WELCOME
    assert negotiation.take_rest() == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_fed(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    assert Socks5Negotiation().feed(kind(GREETING + connect(V4))) is not None


@pytest.mark.parametrize(
    ("request_bytes", "reply", "says"),
    [
        (b"\x05\x02\x00" + V4, 7, "command 2 is not CONNECT or UDP ASSOCIATE"),
        (b"\x05\x00\x00" + V4, 7, "command 0"),
        (b"\x05\xff\x00" + V4, 7, "command 255"),
        (b"\x05\x01\x00\x02", 8, "address type 2"),
        (b"\x05\x01\x00\x00", 8, "address type 0"),
        (connect(b"\x01\x7f\x00\x00\x01\x00\x00"), 1, "no port 0"),
        (connect(b"\x03\x00\x00\x16"), 1, "neither a host name"),
        (connect(b"\x03\x03a b\x00\x16"), 1, "'a b' is neither a host name"),
        (connect(b"\x03\x03a\x1b[\x00\x16"), 1, r"'a\\x1b\[' is neither a host name"),
        (connect(b"\x03\x02\xc3\xa9\x00\x16"), 1, "not ASCII"),
        (connect(b"\x03\x09fe80::1%1\x00\x16"), 1, "scope id"),
        (connect(b"\x03\xff" + b"a" * 255 + b"\x00\x16"), 1, r"a\.\.\.' is neither"),
    ],
)
def test_a_request_that_cannot_be_is_answered_with_its_code(
    request_bytes: bytes, reply: int, says: str
) -> None:
    negotiation = Socks5Negotiation()
    negotiation.feed(GREETING)
    with pytest.raises(ProtocolError, match=f"^SOCKS5 request refused: .*{says}"):
        negotiation.feed(request_bytes)
    assert negotiation.data_to_send() == WELCOME + bytes((5, reply, 0)) + ZERO_ADDRESS


def test_a_request_of_another_version_is_refused() -> None:
    negotiation = Socks5Negotiation()
    with pytest.raises(ProtocolError, match="SOCKS4"):
        negotiation.feed(GREETING + b"\x04\x01\x00" + V4)


def test_an_address_literal_may_be_given_as_a_name() -> None:
    request = Socks5Negotiation().feed(GREETING + connect(b"\x03\x03::1\x00\x16"))
    assert request == ConnectRequest("::1", 22)


@pytest.mark.parametrize(
    ("bound", "address"),
    [
        (SocketAddr("127.0.0.1", 22), V4),
        (SocketAddr("::1", 8080), V6),
        (SocketAddr("0.0.0.0", 0), ZERO_ADDRESS),
    ],
)
def test_success_tells_the_bound_address(bound: SocketAddr, address: bytes) -> None:
    negotiation = asked()
    negotiation.succeed(bound)
    assert negotiation.data_to_send() == b"\x05\x00\x00" + address


@pytest.mark.parametrize("reply", [reply for reply in Reply if reply is not Reply.SUCCEEDED])
def test_failure_tells_its_code(reply: Reply) -> None:
    negotiation = asked()
    negotiation.fail(reply)
    assert negotiation.data_to_send() == bytes((5, reply, 0)) + ZERO_ADDRESS


def test_the_reply_codes_are_those_of_the_rfc() -> None:
    assert [reply.value for reply in Reply] == list(range(9))


def test_success_is_no_failure() -> None:
    with pytest.raises(ValueError, match="SUCCEEDED"):
        asked().fail(Reply.SUCCEEDED)


def test_only_a_waiting_request_can_be_answered_and_only_once() -> None:
    bound = SocketAddr("127.0.0.1", 1)
    fresh = Socks5Negotiation()
    with pytest.raises(RuntimeError, match="waiting for the greeting"):
        fresh.succeed(bound)
    fresh.feed(GREETING)
    with pytest.raises(RuntimeError, match="waiting for the request"):
        fresh.fail(Reply.NOT_ALLOWED)
    done = asked()
    done.succeed(bound)
    with pytest.raises(RuntimeError):
        done.succeed(bound)
    with pytest.raises(RuntimeError):
        done.fail(Reply.NOT_ALLOWED)


def test_after_a_failure_nothing_more_is_read() -> None:
    negotiation = asked()
    negotiation.fail(Reply.CONNECTION_REFUSED)
    with pytest.raises(ProtocolError, match="failed already"):
        negotiation.feed(b"x")


def test_what_comes_behind_the_request_is_payload() -> None:
    negotiation = Socks5Negotiation()
    assert negotiation.feed(GREETING + connect(NAME) + b"hel") is not None
    assert negotiation.feed(b"lo") is None
    negotiation.succeed(SocketAddr("127.0.0.1", 1))
    assert negotiation.feed(b"!") is None
    assert negotiation.take_rest() == b"hello!"
    assert negotiation.take_rest() == b""


def test_payload_ahead_of_the_answer_is_bounded() -> None:
    negotiation = asked()
    negotiation.feed(bytes(MAX_EARLY))
    with pytest.raises(ProtocolError, match="too much before it has an answer"):
        negotiation.feed(b"x")
    assert negotiation.take_rest() == b""


@given(
    mutations(GREETING + connect(NAME) + b"payload")
    | mutations(GREETING + connect(V6))
    | st.binary(max_size=300),
    cut_positions,
)
def test_mutated_dialogues_raise_nothing_but_protocol_errors(data: bytes, cuts: list[int]) -> None:
    negotiation = Socks5Negotiation()
    try:
        for part in pieces(data, cuts):
            negotiation.feed(part)
    except ProtocolError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    assert len(negotiation.data_to_send()) <= 12


@pytest.mark.parametrize(("address", "host", "port"), ADDRESSES)
@pytest.mark.parametrize("payload", [b"", b"query", bytes(65_000)])
def test_a_datagram_header_names_the_destination(
    address: bytes, host: str, port: int, payload: bytes
) -> None:
    request = decode_udp_request(bytes(3) + address + payload)
    assert request == (host, port, payload)


@pytest.mark.parametrize(
    ("datagram", "says"),
    [
        (b"", "ends within its header"),
        (bytes(2), "ends within its header"),
        (bytes(3), "ends within its header"),
        (bytes(3) + V6[:-1], "ends within its header"),
        (bytes(3) + b"\x03\x40abc", "ends within its header"),
        (b"\x00\x00\x01" + V4, "in fragments"),
        (b"\x00\x00\x80" + V4, "in fragments"),
        (bytes(3) + b"\x05" + V4, "address type 5"),
        (bytes(3) + b"\x01\x7f\x00\x00\x01\x00\x00", "no port 0"),
        (bytes(3) + b"\x03\x01%\x00\x16", "scope id"),
    ],
)
def test_a_bad_datagram_is_refused(datagram: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode_udp_request(datagram)


@pytest.mark.parametrize(
    ("source", "address"),
    [
        (SocketAddr("127.0.0.1", 22), V4),
        (SocketAddr("::1", 8080), V6),
        (HostPort("example.com", 443), NAME),
        (HostPort("127.0.0.1", 22), V4),
    ],
)
def test_a_reply_datagram_names_where_it_came_from(
    source: SocketAddr | HostPort, address: bytes
) -> None:
    assert encode_udp_reply(source, b"answer") == bytes(3) + address + b"answer"
    assert encode_udp_reply(source, memoryview(b"")) == bytes(3) + address


def test_a_name_that_has_no_place_in_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 255 characters"):
        encode_udp_reply(HostPort("a" * 256, 1), b"")


names = st.from_regex(r"[a-z]([a-z0-9]{0,9}\.[a-z]{1,9})?", fullmatch=True)


@given(names | st.ip_addresses().map(str), st.integers(1, 65_535), st.binary(max_size=50))
def test_what_is_encoded_is_decoded_again(host: str, port: int, payload: bytes) -> None:
    assert decode_udp_request(encode_udp_reply(HostPort(host, port), payload)) == (
        host,
        port,
        payload,
    )


@given(st.sampled_from([V4, V6, NAME]).flatmap(lambda a: mutations(bytes(3) + a + b"data")))
def test_mutated_datagrams_raise_nothing_but_protocol_errors(datagram: bytes) -> None:
    try:
        request = decode_udp_request(datagram)
    except ProtocolError:
        return
    assert datagram.endswith(request.payload)
    assert 0 < request.port < 65_536
