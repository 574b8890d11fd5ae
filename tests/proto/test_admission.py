"""Tests of `tunnel_rs.proto.admission`: judged datagrams are written by a real client engine."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.engines import ALPN, CLIENT_IDENTITY, DEFAULTS, SERVER_IDENTITY, TOKENS

from tunnel_rs.proto.admission import (
    ANSWERS_PER_SECOND,
    BUSY,
    MAX_CONNECTIONS,
    MAX_HANDSHAKES,
    RETRY_ABOVE,
    STRAY_ANSWERS_PER_SECOND,
    TOKEN_LIFETIME,
    Admission,
    Newcomer,
)
from tunnel_rs.proto.engine import Engine

HERE, ELSEWHERE = ("192.0.2.1", 4444), ("192.0.2.2", 4444)
NOW = 50.0


def admission(*, accepting: bool = True, seed: int = 0) -> Admission:
    return Admission(TOKENS, random.Random(seed).randbytes, accepting=accepting)


def judge(
    by: Admission,
    datagram: bytes,
    address: Any = HERE,
    now: float = NOW,
    *,
    handshakes: int = 0,
    connections: int = 0,
    forgeable: bool = True,
) -> Newcomer | bytes | None:
    return by.judge(
        memoryview(datagram),
        address,
        now,
        handshakes=handshakes,
        connections=connections,
        forgeable=forgeable,
    )


class Client:
    """A client's engine, whose first packets are judged."""

    def __init__(self) -> None:
        self.engine = Engine.client(
            DEFAULTS,
            CLIENT_IDENTITY,
            TOKENS,
            peer=SERVER_IDENTITY.endpoint_id,
            alpn=ALPN,
            candidates=[HERE],
            now=NOW,
        )

    def next_datagram(self) -> bytes:
        [(train, size, _)] = self.engine.trains(NOW)
        return bytes(train[:size])

    def answered(self, datagram: bytes) -> None:
        self.engine.receive(memoryview(datagram), len(datagram), HERE, NOW)


def destination(datagram: bytes) -> bytes:
    return datagram[6 : 6 + datagram[5]]


def test_a_first_packet_is_let_in_under_its_own_destination_id() -> None:
    first = Client().next_datagram()
    expected = Newcomer(destination(first), destination(first), None)
    assert judge(admission(), first) == expected
    assert judge(admission(), first, handshakes=RETRY_ABOVE - 1) == expected


def test_who_does_not_accept_says_nothing_to_newcomers() -> None:
    assert judge(admission(accepting=False), Client().next_datagram()) is None


def test_a_client_sent_away_comes_back_with_what_lets_it_in() -> None:
    door, client = admission(), Client()
    first = client.next_datagram()
    retry = judge(door, first, handshakes=RETRY_ABOVE)
    assert isinstance(retry, bytes)
    assert len(retry) < len(first) / 4
    client.answered(retry)
    second = client.next_datagram()
    verdict = judge(door, second, handshakes=RETRY_ABOVE)
    assert verdict == Newcomer(destination(second), destination(first), destination(second))
    assert destination(second) != destination(first)


def test_a_token_counts_also_when_it_has_become_quiet_meanwhile() -> None:
    """Else the client would miss its Retry in the server's transport parameters, and end."""
    door, client = admission(), Client()
    first = client.next_datagram()
    client.answered(retry_of(door, first))
    verdict = judge(door, client.next_datagram(), handshakes=0)
    assert isinstance(verdict, Newcomer)
    assert verdict.original == destination(first)


def retry_of(door: Admission, first: bytes, address: Any = HERE) -> bytes:
    retry = judge(door, first, address, handshakes=RETRY_ABOVE)
    assert isinstance(retry, bytes)
    return retry


@pytest.mark.parametrize(
    ("address", "later"), [(ELSEWHERE, 0), (HERE, TOKEN_LIFETIME + 1), (("192.0.2.1", 4445), 0)]
)
@pytest.mark.parametrize("handshakes", [0, RETRY_ABOVE])
def test_our_token_at_another_address_or_too_late_is_ignored(
    address: Any, later: float, handshakes: int
) -> None:
    door, client = admission(), Client()
    client.answered(retry_of(door, client.next_datagram()))
    second = client.next_datagram()
    assert judge(door, second, address, NOW + later, handshakes=handshakes) is None
    assert isinstance(judge(door, second, HERE, NOW), Newcomer)


def test_our_token_under_another_connection_id_is_ignored() -> None:
    door, client = admission(), Client()
    client.answered(retry_of(door, client.next_datagram()))
    second = bytearray(client.next_datagram())
    second[6] ^= 1
    assert judge(door, bytes(second)) is None


def test_a_token_of_somebody_else_is_as_good_as_none() -> None:
    """A client may keep one from another program that used this server's key."""
    client = Client()
    client.answered(retry_of(admission(seed=1), client.next_datagram()))
    second = client.next_datagram()
    door = admission(seed=2)
    assert judge(door, second) == Newcomer(destination(second), destination(second), None)
    assert isinstance(judge(door, second, handshakes=RETRY_ABOVE), bytes)


def test_an_address_that_cannot_be_forged_needs_no_proof() -> None:
    verdict = judge(
        admission(), Client().next_datagram(), "relay", handshakes=RETRY_ABOVE, forgeable=False
    )
    assert isinstance(verdict, Newcomer)


@pytest.mark.parametrize(("handshakes", "connections"), [(MAX_HANDSHAKES, 0), (0, MAX_CONNECTIONS)])
def test_above_the_limits_a_client_reads_that_the_server_is_busy(
    handshakes: int, connections: int
) -> None:
    client = Client()
    answer = judge(
        admission(), client.next_datagram(), handshakes=handshakes, connections=connections
    )
    assert isinstance(answer, bytes)
    client.answered(answer)
    assert client.engine.was_closed_by_peer
    assert client.engine.ending is not None
    assert client.engine.ending.reason_phrase == BUSY
    assert client.engine.ending.error_code == 2  # CONNECTION_REFUSED


def test_answers_to_newcomers_are_limited_in_rate() -> None:
    door, first = admission(), Client().next_datagram()
    answers = [judge(door, first, handshakes=RETRY_ABOVE) for _ in range(ANSWERS_PER_SECOND + 50)]
    assert len([answer for answer in answers if answer]) == ANSWERS_PER_SECOND
    assert judge(door, first, now=NOW + 0.1, handshakes=RETRY_ABOVE)


def junk(size: int = 60) -> bytes:
    return bytes([0x40]) + bytes(range(1, 9)) + bytes(size - 9)


def test_a_packet_of_a_forgotten_connection_is_answered_with_a_smaller_reset() -> None:
    for size in (43, 44, 60, 1200):
        reset = judge(admission(), junk(size))
        assert isinstance(reset, bytes)
        assert 21 <= len(reset) < size
        assert reset[-16:] == TOKENS.token(junk(size)[1:9])
        assert reset[0] & 0xC0 == 0x40
    assert judge(admission(), junk(42)) is None


def test_two_endpoints_that_have_forgotten_each_other_do_not_answer_for_ever() -> None:
    door, datagram, rounds = admission(), junk(), 0
    while (answer := judge(door, datagram)) is not None:
        assert isinstance(answer, bytes)
        datagram, rounds = answer, rounds + 1
    assert rounds == 1


def test_junk_does_not_use_up_the_answers_for_newcomers() -> None:
    door = admission()
    resets = [judge(door, junk()) for _ in range(1000)]
    assert len([reset for reset in resets if reset]) == STRAY_ANSWERS_PER_SECOND
    assert judge(door, Client().next_datagram(), handshakes=RETRY_ABOVE)


def test_another_version_is_told_which_one_we_speak() -> None:
    first = bytearray(Client().next_datagram())
    first[1:5] = (0x6B3343CF).to_bytes(4, "big")
    answer = judge(admission(), bytes(first))
    assert isinstance(answer, bytes)
    assert answer[1:5] == bytes(4)
    assert answer.endswith((1).to_bytes(4, "big"))
    assert judge(admission(accepting=False), bytes(first)) is None


@given(st.binary(max_size=1500), st.booleans())
def test_whatever_comes_is_judged_without_failing(datagram: bytes, pad: bool) -> None:
    if pad:
        datagram = datagram.ljust(1200, b"\0")
    answer = judge(admission(), datagram, handshakes=RETRY_ABOVE)
    if isinstance(answer, bytes):
        assert len(answer) <= 3 * len(datagram)


@given(st.data())
def test_a_bent_first_packet_is_judged_without_failing(data: st.DataObject) -> None:
    first = bytearray(Client().next_datagram())
    position = data.draw(st.integers(0, 60))
    first[position] = data.draw(st.integers(0, 255))
    answer = judge(admission(), bytes(first), handshakes=RETRY_ABOVE)
    if isinstance(answer, bytes):
        assert len(answer) <= 3 * len(first)
