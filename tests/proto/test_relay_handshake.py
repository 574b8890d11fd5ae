"""The relay handshake, both roles, and the parts of the HTTP request that belong to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.relay_peers import CHALLENGE, CLIENT_AUTH, DERIVED, ID, identity

from tunnel_rs.proto import relay_handshake as h
from tunnel_rs.proto.relay_frames import FrameError, encode_denial
from tunnel_rs.values import EndpointId, Secret

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def point(encoded: bytes) -> tuple[int, int]:
    """RFC 8032 section 5.1.3, for the encodings of the table."""
    sign, y = encoded[31] >> 7, int.from_bytes(encoded, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return (P - x if x & 1 != sign and x else x), y


def double(p: tuple[int, int]) -> tuple[int, int]:
    x, y = p
    cross, product = 2 * x * y, D * x * x * y * y
    over = pow(1 + product, -1, P), pow(1 - product, -1, P)
    return cross * over[0] % P, (y * y + x * x) * over[1] % P


def test_the_message_that_is_signed_matches_the_vector() -> None:
    assert h.challenge_message(CHALLENGE) == DERIVED


def test_a_client_answers_the_challenge_with_the_vector_and_is_done_when_confirmed() -> None:
    client = h.ClientHandshake(identity(0x2A))
    assert client.receive(b"\x00" + CHALLENGE) == CLIENT_AUTH
    assert not client.done
    assert client.receive(b"\x02") is None
    assert client.done


def test_a_server_accepts_the_vector_for_its_own_challenge_only() -> None:
    assert h.ServerHandshake(CHALLENGE).opening == b"\x00" + CHALLENGE
    assert h.ServerHandshake(CHALLENGE).receive(CLIENT_AUTH) == EndpointId(ID)
    assert h.ServerHandshake(bytes(16)).receive(CLIENT_AUTH) is None, "a replayed answer"


def test_a_confirmation_without_a_challenge_is_enough_for_a_client() -> None:
    client = h.ClientHandshake(identity(1))
    client.receive(b"\x02")
    assert client.done


def test_a_second_challenge_is_refused() -> None:
    client = h.ClientHandshake(identity(1))
    client.receive(b"\x00" + CHALLENGE)
    with pytest.raises(FrameError, match="asked twice"):
        client.receive(b"\x00" + CHALLENGE)


def test_a_denial_is_told_in_one_printable_line() -> None:
    with pytest.raises(h.Denied, match=r"refused us: not\?authorized\?\[31m$"):
        h.ClientHandshake(identity(1)).receive(encode_denial("not\nauthorized\x1b[31m"))
    with pytest.raises(h.Denied, match="no reason given"):
        h.ClientHandshake(identity(1)).receive(encode_denial(""))


@pytest.mark.parametrize("encoded", sorted(h.SMALL_ORDER_POINTS))
def test_points_of_small_order_are_no_identities(encoded: bytes) -> None:
    eightfold = double(double(double(point(encoded))))
    assert eightfold == (0, 1), "the table holds something else than small-order points"
    # With A and R the identity and s = 0, RFC 8032 verification holds for every message.
    forged = b"\x01" + encoded + b"\x40" + b"\x01" + bytes(31) + bytes(32)
    assert h.ServerHandshake(CHALLENGE).receive(forged) is None


def test_the_table_of_small_order_points_is_complete() -> None:
    assert len({point(p) for p in h.SMALL_ORDER_POINTS}) == 8


def test_a_key_that_is_no_point_is_refused() -> None:
    no_point = next(
        bytes([n]) + bytes(31) for n in range(2, 99) if not is_key(bytes([n]) + bytes(31))
    )
    assert h.ServerHandshake(CHALLENGE).receive(b"\x01" + no_point + b"\x40" + bytes(64)) is None


def is_key(encoded: bytes) -> bool:
    try:
        EndpointId.parse(encoded.hex())
    except ValueError:
        return False
    return True


@given(st.integers(1, 97), st.integers(1, 255))
def test_no_changed_byte_of_an_answer_gets_through(index: int, change: int) -> None:
    changed = bytearray(CLIENT_AUTH)
    changed[index] ^= change
    try:
        assert h.ServerHandshake(CHALLENGE).receive(bytes(changed)) is None
    except FrameError:
        assert index == 33, "only the length of the signature is part of the shape"


@pytest.mark.parametrize(
    ("offer", "version"),
    [
        (h.SUBPROTOCOL_OFFER, h.RelayVersion.V2),
        ("iroh-relay-v1", h.RelayVersion.V1),
        ("iroh-relay-v1,iroh-relay-v2", h.RelayVersion.V2),
        ("iroh-relay-v3, iroh-relay-v1", h.RelayVersion.V1),
        ("chat", None),
        ("", None),
    ],
)
def test_the_server_takes_the_newest_version_it_knows(
    offer: str, version: h.RelayVersion | None
) -> None:
    assert h.choose_version(offer) is version


def test_the_offer_is_spelt_so_that_old_relays_understand() -> None:
    assert h.SUBPROTOCOL_OFFER == "iroh-relay-v2, iroh-relay-v1"


@pytest.mark.parametrize("answer", [None, "", "iroh-relay-v3"])
def test_a_client_refuses_an_answer_without_a_version_it_knows(answer: str | None) -> None:
    with pytest.raises(FrameError, match="is it a relay"):
        h.accepted_version(answer)


@pytest.mark.parametrize(
    ("authorization", "query", "token"),
    [
        (["Bearer abc"], "", "abc"),
        (["bEARER  abc "], "token=other", "abc"),
        (["Basic Zm9v", "Bearer abc"], "", "abc"),
        ([], "token=a%2Fb", "a/b"),
        ([], "x=1&token=t&token=u", "t"),
        (["Basic Zm9v"], "", None),
        (["Bearer "], "", None),
        (["Bearer " + "x" * 2000], "", None),
        ([], "token=", None),
        ([], "&".join(["a=b"] * 100) + "&token=t", None),
        ([], "token=" + "%41" * 5000, None),
    ],
)
def test_tokens_are_read_from_the_header_before_the_query(
    authorization: list[str], query: str, token: str | None
) -> None:
    found = h.presented_token(authorization, query)
    assert found == (None if token is None else Secret(token))


@given(st.lists(st.text(max_size=50), max_size=3), st.text(max_size=300))
def test_no_request_makes_reading_the_token_fail(authorization: list[str], query: str) -> None:
    found = h.presented_token(authorization, query)
    assert found is None or 0 < len(found.reveal()) <= h.MAX_TOKEN
