import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.stun import decode_answer, encode_request, transaction_of
from tunnel_rs.values import SocketAddr

# RFC 5769 sections 2.2 and 2.3.
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
IPV4_ANSWER = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112"
    "a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
IPV6_ANSWER = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113"
    "a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


def answer(*attributes: tuple[int, bytes], kind: int = 0x0101) -> bytes:
    body = b"".join(
        struct.pack(">HH", number, len(value)) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return struct.pack(">HHI12s", kind, len(body), 0x2112A442, TRANSACTION) + body


def test_the_vectors_of_rfc_5769_are_read() -> None:
    for message in (IPV4_ANSWER, IPV6_ANSWER):
        assert transaction_of(message) == TRANSACTION
    assert decode_answer(IPV4_ANSWER) == SocketAddr("192.0.2.1", 32853)
    assert decode_answer(IPV6_ANSWER) == SocketAddr("2001:db8:1234:5678:11:2233:4455:6677", 32853)


def test_a_request_is_a_bare_header() -> None:
    assert encode_request(TRANSACTION).hex() == "000100002112a442b7e7a701bc34d686fa87dfae"
    assert transaction_of(encode_request(TRANSACTION)) is None


def test_the_address_of_an_old_server_is_read() -> None:
    value = bytes([0, 1]) + (5000).to_bytes(2, "big") + bytes([192, 0, 2, 7])
    assert decode_answer(answer((1, value))) == SocketAddr("192.0.2.7", 5000)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (answer(), "has no address"),
        (answer((0x20, b"\0\1")), "is cut off"),
        (answer((0x20, bytes(20))), "of no known family"),
        (answer((0x20, b"\0\1" + bytes(20))), "of no known family"),
        (answer((9, b"\0\0\4\x14"), kind=0x0111), "refused: 420"),
        (answer(kind=0x0111), "refused: no code"),
        (struct.pack(">HHI12sHH", 0x101, 4, 0x2112A442, TRANSACTION, 1, 8), "cut off"),
    ],
)
def test_answers_that_make_no_sense_are_refused(message: bytes, problem: str) -> None:
    assert transaction_of(message) == TRANSACTION
    with pytest.raises(ProtocolError, match=problem):
        decode_answer(message)


@pytest.mark.parametrize("cut", range(0, len(IPV4_ANSWER)))
def test_a_cut_answer_is_none(cut: int) -> None:
    assert transaction_of(IPV4_ANSWER[:cut]) is None


@given(st.binary(max_size=600))
def test_any_attributes_give_an_address_or_a_protocol_error(body: bytes) -> None:
    body = body[: len(body) // 4 * 4]
    message = struct.pack(">HHI12s", 0x0101, len(body), 0x2112A442, TRANSACTION) + body
    assert transaction_of(message) == TRANSACTION
    try:
        decode_answer(message)
    except ProtocolError:
        pass


@given(st.binary(max_size=100))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    assert transaction_of(data) is None or len(data) >= 20
