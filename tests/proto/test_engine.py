"""One connection from the first datagram to the last, on good networks and bad, against friends
and foes."""

import random
from collections.abc import Callable

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.events import ConnectionTerminated, PingAcknowledged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.proto.conftest import MakeNetwork
from tests.support.engines import (
    CLIENT,
    CLIENT_IDENTITY,
    PAIRS,
    SERVER,
    SERVER_IDENTITY,
    TOKENS,
    Network,
    ending,
    exchange,
    forged,
    open_stream,
    payload,
    varint,
)

from tunnel_rs.proto.engine import (
    DATAGRAM_SIZE,
    STRANGER_WINDOW,
    Engine,
    ResetTokens,
)
from tunnel_rs.proto.transport_settings import CongestionController, TransportSettings

FLOW_CONTROL_ERROR, STREAM_LIMIT_ERROR, STREAM_STATE_ERROR = 0x3, 0x4, 0x5
FINAL_SIZE_ERROR, FRAME_ENCODING_ERROR, PROTOCOL_VIOLATION = 0x6, 0x7, 0xA
CRYPTO_BUFFER_EXCEEDED = 0xD


# Handshake


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_handshakes_complete_whatever_is_lost(make_network: MakeNetwork, loss: float) -> None:
    for seed in range(5):
        network = make_network(seed=seed)
        network.up.loss = network.down.loss = loss
        client, server = network.connect()
        network.up.loss = network.down.loss = 0.0
        network.run(10)
        assert client.engine.peer == SERVER_IDENTITY.endpoint_id
        assert server.engine.peer == CLIENT_IDENTITY.endpoint_id
        assert server.engine._handshake_confirmed
        assert not client.engine.is_closing and not server.engine.is_closing


def test_a_handshake_that_nobody_answers_backs_off_to_two_seconds() -> None:
    network = Network()
    network.up.cut = True
    network.run(30)
    assert 15 <= network.datagrams <= 25


def test_a_handshake_with_another_application_protocol_is_refused() -> None:
    network = Network()
    made = network._make_server

    class Other(made):  # type: ignore[misc, valid-type]
        @classmethod
        def server(cls, *args: object, **kwargs: object) -> Engine:
            engine: Engine = made.server(*args, **{**kwargs, "alpn": "other/1"})  # type: ignore[arg-type]
            return engine

    network._make_server = Other
    network.run(10)
    assert ending(network.client)[0] == 0x100 + tls.AlertDescription.no_application_protocol


@pytest.mark.parametrize("congestion", ["cubic", "newreno"])
def test_each_congestion_controller_carries_data(
    make_network: MakeNetwork, congestion: str
) -> None:
    chosen = TransportSettings(congestion_controller=CongestionController(congestion))
    network = make_network(chosen, chosen, seed=3)
    network.connect()
    network.up.loss = network.down.loss = 0.02
    exchange(network, 200_000)


# Transfers


@pytest.mark.parametrize("offload", [False, True], ids=["single", "trains"])
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.2])
def test_both_directions_arrive_whole_under_loss(
    make_network: MakeNetwork, loss: float, offload: bool
) -> None:
    network = make_network(seed=11, offload=offload)
    network.connect()
    network.up.loss = network.down.loss = loss
    exchange(network, 150_000 if loss < 0.2 else 50_000, streams=3)


@pytest.mark.parametrize("offload", [False, True], ids=["single", "trains"])
def test_both_directions_arrive_whole_out_of_order_and_twice(
    make_network: MakeNetwork, offload: bool
) -> None:
    network = make_network(seed=12, offload=offload)
    network.connect()
    for wire in (network.up, network.down):
        wire.jitter, wire.duplicates, wire.loss = 0.004, 0.05, 0.01
    exchange(network, 100_000, streams=2)


@pytest.mark.parametrize("seed", range(200))
def test_every_network_delivers_every_byte(seed: int) -> None:
    """Loss, delay, jitter and duplicates drawn from the seed; streams and key updates too."""
    drawn = random.Random(seed)
    client_kind, server_kind = list(PAIRS.values())[seed % len(PAIRS)]
    network = Network(
        make_engine=client_kind,
        make_server=server_kind,
        seed=seed,
        offload=drawn.random() < 0.5,
    )
    for wire in (network.up, network.down):
        wire.loss = drawn.choice([0.0, 0.01, 0.1, 0.3])
        wire.delay = drawn.choice([0.0, 0.001, 0.02, 0.2])
        wire.jitter = drawn.choice([0.0, 0.0, 0.002, 0.05])
        wire.duplicates = drawn.choice([0.0, 0.0, 0.1])
    client, server = network.connect()
    for engine in (client.engine, server.engine):
        if drawn.random() < 0.3:
            engine.request_key_update()
    size = drawn.choice([1, 1_160, 5_000, 30_000])
    exchange(network, size, streams=drawn.choice([1, 2, 8]), seconds=300)
    for wire in (network.up, network.down):
        wire.loss = 0.0
    network.run(14)
    for peer in (client, server):
        assert peer.engine.total_unsent == 0
        assert not peer.engine._streams and not peer.engine._work
        assert peer.engine._loss.bytes_in_flight == 0


def test_an_outage_of_a_minute_is_survived_and_left_within_seconds(
    make_network: MakeNetwork,
) -> None:
    network = make_network(seed=5)
    client, server = network.connect()
    server.engine.open_window()
    stream = open_stream(client)
    data = payload(400_000)
    client.engine.write(stream, data, True)
    network.run(0.006)
    network.up.cut = network.down.cut = True
    network.run(60)
    assert stream not in server.ended
    network.up.cut = network.down.cut = False
    back = network.now
    network.run(10, lambda: stream in server.ended)
    assert server.received[stream] == data
    assert network.now - back < 6


def test_probes_in_an_outage_come_at_least_every_two_seconds(make_network: MakeNetwork) -> None:
    network = make_network()
    client, _ = network.connect()
    network.settle()
    network.up.cut = network.down.cut = True
    client.engine.write(open_stream(client), b"hello", False)
    network.run(10)
    before = network.datagrams
    network.run(60)
    assert 25 <= network.datagrams - before <= 100


# Key updates


@pytest.mark.parametrize("offload", [False, True], ids=["single", "trains"])
@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_keys_are_updated_in_the_middle_of_a_transfer(
    make_network: MakeNetwork, who: str, loss: float, offload: bool
) -> None:
    network = make_network(seed=21, offload=offload)
    client, server = network.connect()
    server.engine.open_window()
    network.up.loss = network.down.loss = loss
    up, data = open_stream(client), payload(300_000)
    client.engine.write(up, data, True)
    server.engine.write(up, b"", False)
    chosen = [p for p, name in ((client, "client"), (server, "server")) if who in (name, "both")]
    phases = set()
    for _ in range(6):
        network.run(0.004)
        phases.add(client.engine._cryptos[tls.Epoch.ONE_RTT].key_phase)
        for peer in chosen:
            peer.engine.request_key_update()
    if server.engine.has_stream(up):
        server.engine.write(up, data, True)
    network.run(60, lambda: up in server.ended and up in client.ended)
    assert server.received[up] == data and client.received[up] == data
    assert phases == {0, 1}


def test_a_second_key_update_waits_for_an_acknowledgement_of_the_first(
    make_network: MakeNetwork,
) -> None:
    """RFC 9001 section 6.1; two updates the peer never saw would end the connection."""
    network = make_network()
    client, server = network.connect()
    network.settle()
    stream = open_stream(client)
    network.up.cut = True
    for _ in range(2):
        client.engine.request_key_update()
        client.engine.write(stream, b"lost", False)
        network.run(0.05)
    network.up.cut = False
    network.run(5)
    assert server.received[stream] == b"lostlost"
    client.engine.request_key_update()
    client.engine.write(stream, b"more", True)
    network.run(5)
    assert server.received[stream] == b"lostlostmore"
    assert client.engine._cryptos[tls.Epoch.ONE_RTT].key_phase == 0


# Keeping alive, and giving up


def test_a_quiet_connection_is_kept_alive_every_15_seconds(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    before = network.datagrams
    network.run(60)
    assert 6 <= network.datagrams - before <= 24
    network.run(3600)
    assert not client.engine.is_closing and not server.engine.is_closing
    assert client.event(PingAcknowledged)


def test_datagrams_that_prove_nothing_do_not_put_the_keep_alive_off(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    junk = bytes([0x40]) + client.engine.host_cid + bytes(60)
    before = len(client.event(PingAcknowledged)) + len(server.event(PingAcknowledged))
    for _ in range(60):
        network.run(1)
        network.inject(CLIENT, junk)
        network.inject(SERVER, bytes([0x40]) + server.engine.host_cid + bytes(60))
    after = len(client.event(PingAcknowledged)) + len(server.event(PingAcknowledged))
    assert after - before >= 3


def test_an_idle_connection_ends_when_the_peer_is_gone(make_network: MakeNetwork) -> None:
    quick = TransportSettings(idle_timeout=30.0)
    network = make_network(quick, quick)
    client, server = network.connect()
    network.settle()
    network.up.cut = network.down.cut = True
    start = network.now
    network.run(100, lambda: client.engine.is_terminated and server.engine.is_terminated)
    assert 25 < network.now - start < 50
    assert ending(client) == ending(server) == (1, "Idle timeout")
    assert client.engine.get_timer() is None
    client.engine.handle_timer(network.now + 1)
    assert client.engine.trains(network.now + 1) == []


def test_a_peer_that_announces_no_idle_timeout_gets_ours(make_network: MakeNetwork) -> None:
    """RFC 9000 section 18.2: zero is the same as leaving it out. aioquic 1.7.2 takes it for an
    immediate timeout."""
    network = make_network(TransportSettings(idle_timeout=0.0004), TransportSettings())
    network.run(2, lambda: network.server is not None and network.server.engine.peer is not None)
    assert network.server is not None
    assert network.server.engine._idle_timeout() == TransportSettings().idle_timeout


def test_silence_while_we_ask_ends_the_connection(make_network: MakeNetwork) -> None:
    quick = TransportSettings(silence_timeout=10.0)
    network = make_network(quick, quick)
    client, _ = network.connect()
    network.settle()
    network.run(100)
    assert not client.engine.is_closing
    network.up.cut = network.down.cut = True
    client.engine.write(open_stream(client), b"anybody there?", False)
    start = network.now
    network.run(60, lambda: client.engine.is_terminated)
    assert 9.9 <= network.now - start <= 10.5
    assert ending(client) == (0, "no answer for 10 s")


# Closing


def test_a_close_reaches_the_other_side_with_code_and_reason(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    client.engine.close(error_code=4, reason_phrase="that is all")
    assert client.engine.is_closing and not client.engine.is_terminated
    network.run(0.01)
    for peer in (client, server):
        assert ending(peer) == (4, "that is all")
        assert peer.engine.ending is not None and peer.engine.ending.frame_type is None
    assert server.engine.was_closed_by_peer and not client.engine.was_closed_by_peer


def test_state_can_be_dropped_a_few_round_trips_after_a_close(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    client.engine.write(open_stream(client), payload(50_000), True)
    client.engine.close(error_code=4, reason_phrase="that is all")
    network.run(2)
    for peer in (client, server):
        assert peer.engine.is_terminated
        assert len(peer.event(ConnectionTerminated)) == 1
        assert peer.engine.get_timer() is None


def test_a_close_in_the_middle_of_a_train_ends_it(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    stream = open_stream(client)
    client.engine.write(stream, b"x", False)
    network.settle()
    before, behind = b"before " * 5, b"behind " * 5
    said = [
        forged(client.engine, b"\x0c" + varint(stream) + varint(1) + before),
        forged(client.engine, b"\x1d\x07\x00" + bytes(35)),
        forged(client.engine, b"\x0c" + varint(stream) + varint(36) + behind),
    ]
    assert len({len(datagram) for datagram in said}) == 1
    server.engine.receive(memoryview(b"".join(said)), len(said[0]), CLIENT, network.now)
    server.take_events()
    assert server.received[stream] == b"x" + before
    assert ending(server) == (7, "")
    network.run(2)
    assert server.engine.is_terminated


def test_a_lost_close_is_repeated_for_packets_that_cross_it(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    network.up.delay = network.down.delay = 0.3
    network.run(5)
    client.engine._recovery._rtt_smoothed = 5.0  # a long closing period
    network.up.cut = True
    client.engine.close(error_code=9, reason_phrase="lost")
    network.run(0.01)
    network.up.cut = False
    before = network.datagrams
    for _ in range(64):
        server.engine.send_ping(0)
        network.run(0.01)
    network.run(1)
    answered = network.datagrams - before
    assert ending(server) == (9, "lost")
    assert answered < 64 + 20


def test_a_close_with_a_long_reason_is_cut_to_fit(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    client.engine.close(error_code=4, reason_phrase="é" * 4000)
    network.run(0.01)
    code, reason = ending(server)
    assert code == 4 and reason and set(reason) == {"é"}


def test_a_close_during_the_handshake_arrives(make_network: MakeNetwork) -> None:
    network = make_network()
    network.run(0.0015)
    network.client.engine.close(error_code=4, reason_phrase="x" * 4000)
    network.run(5)
    assert network.server is not None and network.server.engine.is_terminated
    assert network.client.engine.is_terminated


def test_crossing_closes_are_each_our_own(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    client.engine.close(error_code=1, reason_phrase="client")
    server.engine.close(error_code=2, reason_phrase="server")
    network.run(5)
    assert ending(client) == (1, "client") and ending(server) == (2, "server")
    assert not client.engine.was_closed_by_peer and not server.engine.was_closed_by_peer


def test_an_engine_that_has_heard_nothing_can_be_closed_and_asked() -> None:
    engine = Engine.server(
        TransportSettings(),
        SERVER_IDENTITY,
        TOKENS,
        alpn="multi-forward/1",
        original_destination_connection_id=bytes(8),
    )
    assert engine.get_timer() is None
    assert engine.trains(1.0) == []
    engine.receive(memoryview(b"\xc0garbage"), 8, CLIENT, 1.0)
    assert engine.trains(1.0) == []
    engine.close(error_code=0, reason_phrase="nobody came")
    assert engine.trains(1.0) == []
    assert engine.is_closing


# Stateless reset


def test_a_reset_with_the_right_token_ends_the_connection(make_network: MakeNetwork) -> None:
    network = make_network()
    client, _ = network.connect()
    network.settle()
    token = TOKENS.token(client.engine._peer_cid.cid)
    network.inject(CLIENT, bytes([0x41]) + payload(30) + token)
    assert client.engine.is_terminated and client.engine.was_closed_by_peer
    assert ending(client) == (0, "the peer has forgotten this connection")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: bytes([0x41]) + payload(30) + token[:-1] + bytes([token[-1] ^ 1]),
        lambda token: bytes([0xC1]) + payload(30) + token,
        lambda token: bytes([0x41]) + payload(3) + token,
        lambda token: bytes([0x41]) + payload(30) + token + b"\0",
        lambda token: bytes([0x41]) + payload(30) + ResetTokens(b"other").token(token),
    ],
    ids=["wrong bit", "long header", "too short", "not at the end", "other server"],
)
def test_a_reset_without_the_token_is_noise(
    make_network: MakeNetwork, spoil: Callable[[bytes], bytes]
) -> None:
    network = make_network()
    client, _ = network.connect()
    network.settle()
    network.inject(CLIENT, spoil(TOKENS.token(client.engine._peer_cid.cid)))
    assert not client.engine.is_closing
    exchange(network, 1000)


def test_reset_tokens_are_the_same_after_a_restart_and_differ_by_connection() -> None:
    token = ResetTokens(b"key").token(b"connection")
    assert len(token) == 16
    assert token == ResetTokens(b"key").token(b"connection")
    assert token != ResetTokens(b"key").token(b"other")
    assert token != ResetTokens(b"other key").token(b"connection")


# Candidates


def dial(*candidates: str) -> Engine:
    return Engine.client(
        TransportSettings(),
        CLIENT_IDENTITY,
        TOKENS,
        peer=SERVER_IDENTITY.endpoint_id,
        alpn="multi-forward/1",
        candidates=candidates,
        now=100.0,
    )


def answer_to(first_flight: bytes) -> tuple[Engine, list[bytes]]:
    server = Engine.server(
        TransportSettings(),
        SERVER_IDENTITY,
        TOKENS,
        alpn="multi-forward/1",
        original_destination_connection_id=first_flight[6 : 6 + first_flight[5]],
    )
    server.receive(memoryview(first_flight), len(first_flight), "client", 100.0)
    return server, [bytes(data[:size]) for data, size, _ in server.trains(100.0)]


def test_all_candidates_are_dialled_at_once() -> None:
    engine = dial("a", "b", "c")
    trains = engine.trains(100.0)
    assert [to for _, _, to in trains] == ["a", "b", "c"]
    assert len({bytes(data) for data, _, _ in trains}) == 1
    assert not engine.is_pinned


def test_a_candidate_that_comes_later_gets_the_first_flight() -> None:
    engine = dial("a")
    [(flight, size, _)] = engine.trains(100.0)
    assert engine.add_candidate("b") == [(flight, size, "b")]
    assert engine.add_candidate("b") == engine.add_candidate("a") == []
    timer = engine.get_timer()
    assert timer is not None
    engine.handle_timer(timer)
    assert {to for _, _, to in engine.trains(timer)} == {"a", "b"}


def test_the_first_valid_answer_decides() -> None:
    engine = dial("a", "b")
    (flight, _, _), _ = engine.trains(100.0)
    _, answer = answer_to(bytes(flight))
    for datagram in answer:
        engine.receive(memoryview(datagram), len(datagram), "b", 100.1)
    assert engine.is_pinned and engine.address == "b"
    assert {to for _, _, to in engine.trains(100.1)} == {"b"}
    assert engine.add_candidate("c") == []


def test_answers_from_addresses_that_were_not_dialled_are_dropped() -> None:
    engine = dial("a", "b")
    (flight, _, _), _ = engine.trains(100.0)
    _, answer = answer_to(bytes(flight))
    engine.receive(memoryview(answer[0]), len(answer[0]), "elsewhere", 100.1)
    assert not engine.is_pinned
    assert engine._state is QuicConnectionState.FIRSTFLIGHT


def test_an_answer_that_proves_nothing_decides_nothing() -> None:
    engine = dial("a", "b")
    (flight, _, _), _ = engine.trains(100.0)
    _, answer = answer_to(bytes(flight))
    spoilt = bytearray(answer[0])
    spoilt[600] ^= 1
    spoilt[60] ^= 1
    engine.receive(memoryview(bytes(spoilt)), len(spoilt), "b", 100.1)
    assert not engine.is_pinned
    engine.receive(memoryview(answer[0]), len(answer[0]), "a", 100.1)
    assert {to for _, _, to in engine.trains(100.1)} == {"a"}


def test_a_pinned_client_ignores_other_addresses(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    stream = open_stream(client)
    client.engine.write(stream, b"x", False)
    network.settle()
    said = forged(server.engine, b"\x0c" + varint(stream) + varint(0) + b"from elsewhere")
    network.inject(CLIENT, said, origin="elsewhere")
    assert client.received == {} and client.engine.address == SERVER
    network.inject(CLIENT, said)
    assert client.received[stream] == b"from elsewhere"


# Migration


def test_a_server_follows_its_client_to_another_address(make_network: MakeNetwork) -> None:
    network = make_network(seed=3)
    client, server = network.connect()
    server.engine.open_window()
    stream, data = open_stream(client), payload(400_000)
    client.engine.write(stream, data, True)
    network.run(0.004)
    server.engine.write(stream, data, True)
    network.run(0.003)
    network.client_address = "another address"
    network.run(20, lambda: stream in server.ended and stream in client.ended)
    assert server.received[stream] == data and client.received[stream] == data
    assert server.engine.address == "another address"


def test_a_client_that_only_receives_is_followed_by_its_keep_alive(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    stream = open_stream(client)
    client.engine.write(stream, b"go", True)
    network.settle()
    network.client_address = "another address"
    server.engine.write(stream, payload(3000), True)
    network.run(20, lambda: stream in client.ended)
    assert client.received[stream] == payload(3000)


def test_little_is_sent_to_an_address_that_is_not_proven(make_network: MakeNetwork) -> None:
    """RFC 9000 section 8: three times what came from there, path MTU probes included."""
    network = make_network()
    client, server = network.connect()
    server.engine._largest_datagram = lambda _: 16_384
    network.settle()
    stream = open_stream(client)
    client.engine.write(stream, b"go", False)
    network.settle()
    server.engine.write(stream, payload(100_000), False)
    network.flush()
    said = forged(client.engine, b"\x01" + bytes(30))
    server.engine.receive(memoryview(said), len(said), "victim", network.now)
    sent = 0
    for _ in range(20):
        sent += sum(
            len(data) for data, _, to in server.engine.trains(network.now) if to == "victim"
        )
        timer = server.engine.get_timer()
        assert timer is not None
        network.now = max(timer, network.now)
        server.engine.handle_timer(network.now)
        if server.engine.address != "victim":
            break
    assert sent <= 3 * len(said)


# Hostile peers


@pytest.fixture
def connected(make_network: MakeNetwork) -> Network:
    network = make_network()
    network.connect()
    network.settle()
    return network


def hear(network: Network, frames: bytes) -> tuple[int, str] | None:
    """Let the server receive a packet of `frames`; how it ends, if it does."""
    assert network.server is not None
    network.inject(SERVER, forged(network.client.engine, frames))
    return ending(network.server) if network.server.engine.is_closing else None


def code(network: Network, frames: bytes) -> int | None:
    end = hear(network, frames)
    return end[0] if end else None


def test_an_acknowledgement_of_a_packet_never_sent_is_a_violation(connected: Network) -> None:
    assert connected.server is not None
    number = connected.server.engine._packet_number
    ack = b"\x02" + varint(number) + varint(0) + varint(0) + varint(0)
    assert hear(connected, ack) == (PROTOCOL_VIOLATION, "acknowledges a packet never sent")


def test_an_acknowledgement_of_the_last_packet_sent_is_fine(connected: Network) -> None:
    assert connected.server is not None
    number = connected.server.engine._packet_number - 1
    assert hear(connected, b"\x02" + varint(number) + b"\0\0\0") is None


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (b"", PROTOCOL_VIOLATION),
        (b"\x21" + bytes(20), FRAME_ENCODING_ERROR),
        (varint(0x4242) + bytes(20), FRAME_ENCODING_ERROR),
        (b"\x40", FRAME_ENCODING_ERROR),
        (b"\x0c", FRAME_ENCODING_ERROR),
        (b"\x0c\x40", FRAME_ENCODING_ERROR),
        (b"\x0c\x00", FRAME_ENCODING_ERROR),
        (b"\x0c\x00\xc0\x00", FRAME_ENCODING_ERROR),
        (b"\x0e\x00\x00\x05abc", FRAME_ENCODING_ERROR),
        (b"\x0e\x00\x00", FRAME_ENCODING_ERROR),
        (b"\x02\x00\x00\x00\x01", FRAME_ENCODING_ERROR),
        (b"\x08\x01" + b"not my stream", STREAM_STATE_ERROR),
        (b"\x08" + varint(4 * 256) + b"too many", STREAM_LIMIT_ERROR),
        (b"\x08\x02" + b"unidirectional", STREAM_LIMIT_ERROR),
        (b"\x0c\x00" + varint(STRANGER_WINDOW) + b"x", FLOW_CONTROL_ERROR),
        (b"\x0c\x00" + varint((1 << 62) - 1) + b"x", FRAME_ENCODING_ERROR),
        (b"\x04\x00\x00" + varint(STRANGER_WINDOW + 1), FLOW_CONTROL_ERROR),
        (b"\x09\x00abc" + b"", None),
        (b"\x1e", PROTOCOL_VIOLATION),
        (b"\x07\x01x", PROTOCOL_VIOLATION),
        (b"\x30datagram", PROTOCOL_VIOLATION),
        (b"\x19\x3f", PROTOCOL_VIOLATION),
        (b"\x06" + varint(65_530) + varint(7) + bytes(7), CRYPTO_BUFFER_EXCEEDED),
        (b"\x12" + varint((1 << 60) + 1), FRAME_ENCODING_ERROR),
    ],
)
def test_a_frame_that_breaks_the_rules_closes_with_the_right_error(
    connected: Network, frames: bytes, expected: int | None
) -> None:
    assert code(connected, frames) == expected
    connected.run(5)
    if expected is not None:
        assert connected.client.engine.is_terminated
        assert ending(connected.client)[0] == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"\x0d\x00\x05end", b"\x0c\x00\x08x"),
        (b"\x0d\x00\x05end", b"\x0d\x00\x05en"),
        (b"\x0c\x00\x05more", b"\x0d\x00\x05end"),
        (b"\x04\x00\x00\x05", b"\x0c\x00\x05x"),
        (b"\x0c\x00\x05more", b"\x04\x00\x00\x08"),
        (b"\x0d\x00\x05end", b"\x04\x00\x00\x07"),
    ],
)
def test_a_stream_cannot_change_its_final_size(
    connected: Network, first: bytes, second: bytes
) -> None:
    assert code(connected, first) is None
    assert code(connected, second) == FINAL_SIZE_ERROR


def test_more_than_the_stream_window_is_a_violation(connected: Network) -> None:
    assert connected.server is not None
    connected.server.engine.open_window()
    connected.server.consume = False
    connected.flush()
    assert code(connected, b"\x08\x00x") is None
    for offset in range(1, 1_048_576 - 1000, 1000):
        assert code(connected, b"\x0c\x00" + varint(offset) + bytes(1000)) is None
    assert code(connected, b"\x0c\x00" + varint(1_048_001) + bytes(1000)) == FLOW_CONTROL_ERROR


def test_more_than_the_connection_window_is_a_violation(connected: Network) -> None:
    """In order, and so on the fast path too."""
    assert connected.server is not None
    connected.server.consume = False
    assert code(connected, b"\x08\x00x") is None
    for offset in range(1, STRANGER_WINDOW - 1000, 1000):
        assert code(connected, b"\x0c\x00" + varint(offset) + bytes(1000)) is None
    assert len(connected.server.received[0]) == 65_001
    assert code(connected, b"\x0c\x00" + varint(65_001) + bytes(1000)) == FLOW_CONTROL_ERROR


def test_a_packet_with_reserved_bits_is_a_violation(connected: Network) -> None:
    client = connected.client.engine
    pair = client._cryptos[tls.Epoch.ONE_RTT]
    number = client._packet_number
    header = bytes([0x40 | 0x18 | 1]) + client._peer_cid.cid + number.to_bytes(2, "big")
    connected.inject(SERVER, pair.encrypt_packet(header, b"\x01" + bytes(20), number))
    assert ending(connected.server)[0] == PROTOCOL_VIOLATION


def test_a_replayed_packet_does_nothing(connected: Network) -> None:
    client, server = connected.client, connected.server
    assert server is not None
    said = forged(client.engine, b"\x08\x00" + b"once")
    for _ in range(3):
        connected.inject(SERVER, said)
    assert server.received[0] == b"once"


def test_acknowledgements_name_a_bounded_number_of_ranges(connected: Network) -> None:
    client, server = connected.client, connected.server
    assert server is not None
    number = client.engine._packet_number
    for gap in range(300):
        connected.inject(
            SERVER, forged(client.engine, b"\x01" + bytes(20), number=number + 2 * gap)
        )
    space = server.engine._spaces[tls.Epoch.ONE_RTT]
    assert len(space.ack_queue) <= 64
    client.engine._packet_number = number + 600
    exchange(connected, 1000)


def test_a_flood_of_connection_ids_is_bounded(connected: Network) -> None:
    for sequence in range(8, 40):
        frame = b"\x18" + varint(sequence) + b"\0\x08" + payload(24, sequence)
        if code(connected, frame) is not None:
            break
    assert ending(connected.server)[0] == 0x9  # CONNECTION_ID_LIMIT_ERROR


def random_datagrams() -> st.SearchStrategy[bytes]:
    first = st.sampled_from([0x00, 0x40, 0x43, 0x5F, 0x80, 0xC0, 0xC3, 0xD0, 0xE0, 0xF0, 0xFF])
    version = st.sampled_from([b"", b"\0\0\0\1", b"\0\0\0\0", b"\x6b\x33\x43\xcf", b"\xff\0\0\1"])
    body = st.binary(max_size=300)
    return st.builds(lambda f, v, b: bytes([f]) + v + b, first, version, body)


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(datagrams=st.lists(random_datagrams() | st.binary(max_size=100), max_size=8), data=st.data())
@FUZZ
def test_garbage_never_raises(
    connected: Network, datagrams: list[bytes], data: st.DataObject
) -> None:
    assert connected.server is not None
    for garbage in datagrams:
        for peer in (connected.client, connected.server):
            ours = peer.engine.host_cid
            for datagram in (garbage, garbage[:1] + ours + garbage[1:]):
                if datagram:
                    size = data.draw(st.integers(1, len(datagram)))
                    peer.engine.receive(memoryview(datagram), size, SERVER, connected.now)
                    peer.engine.trains(connected.now)
    assert not connected.client.engine.is_closing and not connected.server.engine.is_closing


@given(frames=st.binary(max_size=80))
@FUZZ
def test_sealed_garbage_never_raises(frames: bytes) -> None:
    """The peer has the keys, and no manners."""
    for network in SEALED:
        assert network.server is not None
        network.inject(SERVER, forged(network.client.engine, frames))
        network.server.engine.get_timer()
        if network.server.engine.is_closing:
            network.__init__(make_engine=network._make_server)  # type: ignore[misc]
            network.connect()
            network.settle()


SEALED: list[Network] = []


@pytest.fixture(autouse=True, scope="module")
def sealed() -> None:
    for _, kind in (PAIRS["stock"], PAIRS["fast"]):
        network = Network(make_engine=kind)
        network.connect()
        network.settle()
        SEALED.append(network)


@pytest.mark.parametrize("seed", range(40))
def test_mutated_datagrams_harm_nobody(seed: int) -> None:
    """Each byte that a network damages costs a packet, and nothing else."""
    drawn = random.Random(seed)
    client_kind, server_kind = list(PAIRS.values())[seed % len(PAIRS)]
    network = Network(
        make_engine=client_kind, make_server=server_kind, seed=seed, offload=bool(seed & 4)
    )

    def spoil(to: str, datagram: bytes) -> bytes | None:
        if drawn.random() > 0.1:
            return datagram
        changed = bytearray(datagram)
        for _ in range(drawn.choice([1, 1, 5])):
            changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
        cut = drawn.choice([len(changed)] * 3 + [drawn.randrange(1, len(changed) + 1)])
        return bytes(changed[:cut])

    network.spy = spoil
    network.connect()
    exchange(network, 30_000, seconds=300)


# Small print


def test_trains_join_datagrams_of_one_size(make_network: MakeNetwork) -> None:
    network = make_network()
    client, server = network.connect()
    network.settle()
    server.engine.open_window()
    network.flush()
    client.engine.write(open_stream(client), payload(11_000), False)
    trains = client.engine.trains(network.now)
    assert sum(len(data) for data, _, _ in trains) > 11_000
    assert len(trains) <= 2
    for data, size, to in trains:
        assert size <= DATAGRAM_SIZE and to == SERVER and len(data) > size


def test_facts_are_told(make_network: MakeNetwork) -> None:
    network = make_network()
    network.up.delay = network.down.delay = 0.05
    client, server = network.connect()
    network.settle()
    assert client.engine.is_client and not server.engine.is_client
    assert client.engine.address == SERVER and server.engine.address == CLIENT
    assert client.engine.is_pinned and server.engine.is_pinned
    assert client.engine.smoothed_rtt == pytest.approx(0.1, rel=0.2)
    assert client.engine.send_window == TransportSettings().send_window
    assert client.engine.send_target == 2 * client.engine._loss.congestion_window
    assert client.engine.ending is None
