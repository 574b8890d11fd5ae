"""The client side of a relay connection, driven by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.relay_peers import CHALLENGE, CLIENT_AUTH, ID, identity

from tunnel_rs.proto import relay_client as c
from tunnel_rs.proto.relay_frames import (
    MAX_BATCH,
    encode_denial,
    encode_endpoint_gone,
    encode_from_relay,
    encode_health,
    encode_ping,
    encode_pong,
    encode_restarting,
    encode_status,
)
from tunnel_rs.proto.relay_handshake import RelayVersion
from tunnel_rs.values import EndpointId

PEER = EndpointId(ID)


def received(segment_size: int, contents: bytes) -> c.Received:
    return c.Received(PEER, segment_size, memoryview(contents))


def fresh(version: RelayVersion = RelayVersion.V2) -> c.RelayConnection:
    return c.RelayConnection(identity(0x2A), version, lambda n: b"r" * n)


def connected(version: RelayVersion = RelayVersion.V2) -> c.RelayConnection:
    connection = fresh(version)
    connection.receive(b"\x00" + CHALLENGE, 0.0)
    assert connection.messages_to_send() == [CLIENT_AUTH]
    assert connection.receive(b"\x02", 0.0) == c.Connected()
    assert connection.messages_to_send() == [encode_ping(b"r" * 8)]
    return connection


def test_after_the_handshake_it_is_connected_and_pings_at_once() -> None:
    connection = connected()
    assert (connection.is_connected, connection.was_answered) == (True, False)
    connection.receive(encode_pong(b"r" * 8), 0.3)
    assert connection.round_trip == pytest.approx(0.3)
    assert connection.was_answered
    assert connection.get_timer() == pytest.approx(15.3)


def test_before_the_handshake_there_is_no_timer() -> None:
    connection = fresh()
    assert connection.get_timer() is None and connection.handle_timer(1e9) is None


def test_a_relay_that_answers_no_ping_has_failed_after_5_seconds() -> None:
    connection = connected()
    assert connection.handle_timer(4.9) is None
    assert connection.handle_timer(5.0) == c.Failed("the relay does not answer")
    assert connection.get_timer() is None and not connection.is_connected
    assert connection.receive(encode_from_relay(ID, b"late"), 5.1) is None


def test_it_pings_again_after_15_quiet_seconds() -> None:
    connection = connected()
    connection.receive(encode_pong(b"r" * 8), 0.0)
    assert connection.handle_timer(15.0) is None
    assert connection.messages_to_send() == [encode_ping(b"r" * 8)]


def test_datagrams_and_batches_come_with_their_source() -> None:
    connection = connected()
    assert connection.receive(encode_from_relay(ID, b"one"), 1) == received(3, b"one")
    batch = encode_from_relay(ID, b"aabbc", 2)
    assert connection.receive(batch, 1) == received(2, b"aabbc")


def test_an_empty_datagram_is_ignored() -> None:
    assert connected().receive(b"\x06" + ID + b"\x00", 1) is None


def test_a_ping_is_answered_with_its_bytes() -> None:
    connection = connected()
    assert connection.receive(encode_ping(b"12345678"), 1) is None
    assert connection.messages_to_send() == [encode_pong(b"12345678")]


@pytest.mark.parametrize(
    ("code", "text"), [(0, ""), (1, "our key"), (2, "limits our rate"), (77, "status 77")]
)
def test_a_status_becomes_words(code: int, text: str) -> None:
    event = connected().receive(encode_status(code), 1)
    assert isinstance(event, c.StatusChanged) and text in event.problem


def test_health_becomes_words_in_version_1() -> None:
    connection = connected(RelayVersion.V1)
    assert connection.receive(encode_health("same\nid"), 1) == c.StatusChanged("same?id")
    for text in ("", "The connection is healthy again"):
        assert connection.receive(encode_health(text), 1) == c.StatusChanged("")


def test_a_peer_that_left_is_named_and_restarting_is_ignored() -> None:
    connection = connected()
    assert connection.receive(encode_endpoint_gone(ID), 1) == c.PeerGone(PEER)
    assert connection.receive(encode_restarting(1, 2), 1) is None
    assert connection.is_connected


@pytest.mark.parametrize(
    "message",
    [b"\x0e", b"", b"\x02", encode_health("x"), b"\x09" + bytes(7), b"\x06" + b"\xff" * 40],
    ids=["unknown", "empty", "handshake", "health on v2", "short ping", "id is no key"],
)
def test_what_the_protocol_does_not_allow_ends_the_connection(message: bytes) -> None:
    connection = connected()
    event = connection.receive(message, 1)
    assert isinstance(event, c.Failed) and not event.denied
    assert not connection.is_connected


def test_a_denial_is_told_apart_from_other_failures() -> None:
    event = fresh().receive(encode_denial("not authorized"), 1)
    assert event == c.Failed("the relay refused us: not authorized", denied=True)


def test_the_number_of_remembered_sources_is_bounded() -> None:
    connection = connected()
    sources = [identity(n).endpoint_id.key for n in range(200)]
    for source in sources:
        connection.receive(encode_from_relay(source, b"x"), 1)
    connection._sources = dict.fromkeys((bytes([n % 256, n // 256]) for n in range(1024)), PEER)
    connection.receive(encode_from_relay(ID, b"x"), 1)
    assert len(connection._sources) == 1024


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_no_sequence_of_messages_makes_it_raise(messages: list[bytes]) -> None:
    for connection in (fresh(), connected(), connected(RelayVersion.V1)):
        for message in messages:
            connection.receive(message, 1.0)
            assert len(connection.messages_to_send()) <= 1


@given(st.integers(0, 3000), st.integers(0, 1500))
def test_trains_are_carried_whole_in_order_and_within_the_bounds(
    count: int, segment_size: int
) -> None:
    data = bytes(count * 97 % 250_000)
    messages = c.datagram_messages(PEER, segment_size, memoryview(data))
    connection = connected()
    received = bytearray()
    for message in messages:
        assert len(message) <= 65_536
        event = connection.receive(bytes([message[0] + 2]) + message[1:], 1)
        assert isinstance(event, c.Received)
        assert len(event.contents) <= event.segment_size or event.segment_size == segment_size
        received += event.contents
    too_long = segment_size == 0 and len(data) > 65_502
    assert received == (b"" if too_long else data)


def test_a_split_train_is_cut_between_datagrams() -> None:
    data = memoryview(bytes(100 * 1452))
    first, second, *_ = c.datagram_messages(PEER, 1452, data)
    assert (len(first) - 36) % 1452 == 0 and len(first) - 36 <= MAX_BATCH
    assert (len(second) - 36) % 1452 == 0


def test_segments_longer_than_a_batch_go_one_by_one() -> None:
    messages = c.datagram_messages(PEER, 65_501, memoryview(bytes(65_501 + 10)))
    assert [len(m) - 34 for m in messages] == [65_501, 10]
