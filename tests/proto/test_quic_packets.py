"""Datagrams of no connection: what they are taken for, and what is answered."""

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.packet import pull_quic_header
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.engines import CLIENT, CLIENT_IDENTITY, SERVER, SERVER_IDENTITY, TOKENS, Network

from tunnel_rs.proto.engine import Engine, ResetTokens
from tunnel_rs.proto.quic_packets import (
    Kind,
    classify,
    destination_id,
    refusal,
    stateless_reset,
    version_negotiation,
)
from tunnel_rs.proto.transport_settings import TransportSettings

NOISE = bytes(range(100, 126))
VERSION_1, VERSION_2 = b"\0\0\0\1", b"\x6b\x33\x43\xcf"


def first_flight() -> tuple[Engine, bytes]:
    """A client and its Initial datagram."""
    engine = Engine.client(
        TransportSettings(),
        CLIENT_IDENTITY,
        TOKENS,
        peer=SERVER_IDENTITY.endpoint_id,
        alpn="multi-forward/1",
        candidates=[SERVER],
        now=100.0,
    )
    [(data, size, _)] = engine.trains(100.0)
    assert len(data) == size == 1200
    return engine, bytes(data)


def long_header(version: bytes, destination: bytes, source: bytes, rest: bytes = b"") -> bytes:
    head = b"\xc3" + version + bytes([len(destination)]) + destination + bytes([len(source)])
    return (head + source + rest).ljust(1200, b"\0")


# Classifying


@given(st.binary(max_size=100))
@example(b"")
@example(b"\xc0")
@example(b"\xff" + VERSION_1 + b"\x00\x00")
@example(b"\xf0" + VERSION_1 + b"\x08" + bytes(8) + b"\x08" + bytes(8))
def test_no_datagram_is_too_odd(datagram: bytes) -> None:
    for padded in (datagram, datagram.ljust(1200, b"\0"), datagram.ljust(1200, b"\xff")):
        stray = classify(memoryview(padded))
        assert isinstance(destination_id(memoryview(padded)), bytes)
        if stray.kind is Kind.INITIAL:
            assert 8 <= len(stray.destination) <= 20


@given(st.sampled_from([VERSION_1, VERSION_2, b"\0\0\0\0", b"\xba\xba\xba\xba"]), st.binary())
def test_no_long_header_is_too_odd(version: bytes, rest: bytes) -> None:
    for first in (b"\x80", b"\xc0", b"\xd0", b"\xe0", b"\xf0"):
        classify(memoryview((first + version + rest).ljust(1200, b"\0")))


def test_an_initial_is_read() -> None:
    engine, datagram = first_flight()
    stray = classify(memoryview(datagram))
    assert stray.kind is Kind.INITIAL
    assert stray.destination == engine.original_destination_connection_id
    assert stray.source == engine.host_cid and stray.token == b""
    assert destination_id(memoryview(datagram)) == stray.destination


def test_an_initial_that_is_too_short_is_junk() -> None:
    _, datagram = first_flight()
    assert classify(memoryview(datagram[:1199])).kind is Kind.JUNK


def test_an_initial_with_a_short_destination_is_junk() -> None:
    datagram = long_header(VERSION_1, bytes(7), bytes(8), b"\x00\x40\x20")
    assert classify(memoryview(datagram)).kind is Kind.JUNK


def test_a_handshake_packet_of_no_connection_is_junk() -> None:
    datagram = b"\xe3" + long_header(VERSION_1, bytes(8), bytes(8), b"\x40\x20")[1:]
    assert classify(memoryview(datagram)).kind is Kind.JUNK


def test_a_short_header_is_told_by_its_first_bit() -> None:
    datagram = b"\x41" + b"eight by" + bytes(40)
    assert classify(memoryview(datagram)).kind is Kind.SHORT
    assert destination_id(memoryview(datagram)) == b"eight by"
    assert classify(memoryview(b"")).kind is Kind.JUNK


@pytest.mark.parametrize("version", [VERSION_2, b"\xff\0\0\x1d", b"\x1a\x2a\x3a\x4a"])
def test_another_version_is_told_whatever_its_packets_look_like(version: bytes) -> None:
    """RFC 8999: only the fields that all versions share may be read."""
    for rest in (b"", b"\xff" * 1000):
        datagram = long_header(version, b"destination", b"source", rest)
        stray = classify(memoryview(datagram))
        assert stray.kind is Kind.OTHER_VERSION
        assert (stray.destination, stray.source) == (b"destination", b"source")


def test_a_small_datagram_of_another_version_is_not_answered() -> None:
    datagram = long_header(VERSION_2, bytes(8), bytes(8))[:1199]
    assert classify(memoryview(datagram)).kind is Kind.JUNK


def test_a_version_negotiation_is_never_answered() -> None:
    datagram = long_header(b"\0\0\0\0", bytes(8), bytes(8))
    assert classify(memoryview(datagram)).kind is Kind.JUNK


# Answering


def test_version_negotiation_names_what_we_speak() -> None:
    datagram = long_header(VERSION_2, b"destination", b"source")
    answer = version_negotiation(classify(memoryview(datagram)))
    header = pull_quic_header(Buffer(data=answer))
    assert header.version == 0 and header.supported_versions == [1]
    assert (header.destination_cid, header.source_cid) == (b"source", b"destination")
    assert len(answer) < len(datagram)


def test_our_client_is_not_led_astray_by_a_version_negotiation_with_its_version() -> None:
    engine, datagram = first_flight()
    answer = version_negotiation(classify(memoryview(datagram)))
    engine.receive(memoryview(answer), len(answer), SERVER, 100.1)
    assert not engine.is_closing


def test_a_refusal_is_understood_by_a_client() -> None:
    engine, datagram = first_flight()
    answer = refusal(classify(memoryview(datagram)), "server is busy")
    assert len(answer) < len(datagram)
    engine.receive(memoryview(answer), len(answer), SERVER, 100.1)
    assert engine.ending is not None and engine.was_closed_by_peer
    assert (engine.ending.error_code, engine.ending.reason_phrase) == (0x2, "server is busy")
    assert engine.trains(100.1) == []


def test_a_refusal_for_another_client_is_ignored() -> None:
    engine, _ = first_flight()
    _, other = first_flight()
    answer = refusal(classify(memoryview(other)), "server is busy")
    engine.receive(memoryview(answer), len(answer), SERVER, 100.1)
    assert not engine.is_closing


def test_a_long_reason_is_cut_and_stays_readable() -> None:
    engine, datagram = first_flight()
    answer = refusal(classify(memoryview(datagram)), "é" * 1000)
    engine.receive(memoryview(answer), len(answer), SERVER, 100.1)
    assert engine.ending is not None and set(engine.ending.reason_phrase) == {"é"}


def test_a_reason_that_is_cut_inside_a_character_stays_readable() -> None:
    engine, datagram = first_flight()
    answer = refusal(classify(memoryview(datagram)), "x" + "é" * 1000)
    engine.receive(memoryview(answer), len(answer), SERVER, 100.1)
    assert engine.ending is not None and engine.ending.reason_phrase.startswith("xéé")


def test_a_reset_looks_like_a_packet_and_ends_with_the_token() -> None:
    datagram = memoryview(b"\x41" + b"eight by" + bytes(60))
    answer = stateless_reset(datagram, TOKENS, NOISE)
    assert answer is not None
    assert answer[0] & 0xC0 == 0x40
    assert answer[-16:] == TOKENS.token(b"eight by")
    assert answer[1:-16] == NOISE[1 : len(answer) - 16]


@pytest.mark.parametrize("size", range(80))
def test_a_reset_is_smaller_than_what_caused_it(size: int) -> None:
    """RFC 9000 section 10.3.3: two peers without state would answer each other for ever."""
    answer = stateless_reset(memoryview(bytes(size)), TOKENS, NOISE)
    assert answer is None or 21 <= len(answer) < size
    assert size < 60 or answer is not None


def test_two_peers_without_state_soon_fall_silent() -> None:
    datagram: bytes | None = b"\x41" + bytes(1199)
    for _ in range(10):
        assert datagram is not None
        datagram = stateless_reset(memoryview(datagram), TOKENS, NOISE)
        if datagram is None:
            return
    pytest.fail("they still talk")


def test_a_client_believes_the_reset_of_a_server_that_has_restarted() -> None:
    network = Network()
    client, _ = network.connect()
    network.settle()
    stream = client.engine.open_stream()
    assert stream is not None
    client.engine.write(stream, b"still there?" * 10, False)
    [(data, size, _)] = client.engine.trains(network.now)
    answer = stateless_reset(memoryview(data)[:size], TOKENS, NOISE)
    assert answer is not None
    network.inject(CLIENT, answer)
    assert client.engine.is_terminated


def test_another_server_cannot_reset_the_connection() -> None:
    network = Network()
    client, _ = network.connect()
    network.settle()
    answer = stateless_reset(
        memoryview(b"\x41" + client.engine._peer_cid.cid + bytes(60)), ResetTokens(b"x"), NOISE
    )
    assert answer is not None
    network.inject(CLIENT, answer)
    assert not client.engine.is_closing
