"""One connection from the first datagram to the last, on good networks and bad, against friends
and foes."""

import random
from collections.abc import Callable

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.events import ConnectionTerminated, PingAcknowledged
from aioquic.quic.packet import encode_quic_retry, pull_quic_header
from tests.proto.conftest import MakeNetwork
from tests.support.engines import (
    CLIENT,
    CLIENT_IDENTITY,
    PAIRS,
    SERVER,
    SERVER_IDENTITY,
    TOKENS,
    Network,
    Peer,
    ending,
    exchange,
    forged,
    open_stream,
    payload,
    varint,
)

from tunnel_rs.proto.engine import (
    DATAGRAM_SIZE,
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
    exchange(network, 60_000 if loss < 0.2 else 25_000, streams=3)


@pytest.mark.parametrize("offload", [False, True], ids=["single", "trains"])
def test_both_directions_arrive_whole_out_of_order_and_twice(
    make_network: MakeNetwork, offload: bool
) -> None:
    network = make_network(seed=12, offload=offload)
    network.connect()
    for wire in (network.up, network.down):
        wire.jitter, wire.duplicates, wire.loss = 0.004, 0.05, 0.01
    exchange(network, 60_000, streams=2)


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
    size = drawn.choice([1, 1_160, 5_000, 15_000])
    exchange(network, size, streams=drawn.choice([1, 2, 5]), seconds=300)
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
    up, data = open_stream(client), payload(120_000)
    client.engine.write(up, data, True)
    server.engine.write(up, b"", False)
    chosen = [p for p, name in ((client, "client"), (server, "server")) if who in (name, "both")]
    phases = set()
    for _ in range(6):
        network.run(0.003)
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


def test_the_peers_unit_of_acknowledgement_delays_is_used() -> None:
    """RFC 9000 section 18.2; aioquic 1.7.2 takes 3 for everybody."""

    class Coarse(Engine):
        def _initialize(self, peer_cid: bytes) -> None:
            self._local_ack_delay_exponent = 10
            super()._initialize(peer_cid)

    network = Network(make_engine=Engine, make_server=Coarse)
    client, server = network.connect()
    assert client.engine._remote_ack_delay_exponent == 10
    assert server.engine._remote_ack_delay_exponent == 3


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
    assert ending(client) == ending(server) == (1, "nothing was heard for the idle timeout")
    assert client.engine.get_timer() is None
    client.engine.handle_timer(network.now + 1)
    assert client.engine.trains(network.now + 1) == []


def test_who_was_stopped_beyond_the_idle_timeout_takes_old_packets_for_no_sign_of_life(
    make_network: MakeNetwork,
) -> None:
    quick = TransportSettings(idle_timeout=30.0)
    network = make_network(quick, quick)
    client, server = network.connect()
    network.settle()
    server.engine.send_ping(7)
    [(ping, _, _)] = server.engine.trains(network.now)
    network.now += 40.0
    network.inject(CLIENT, bytes(ping))
    assert client.engine.is_terminated and client.engine.timed_out
    assert ending(client) == (1, "nothing was heard for the idle timeout")


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


def test_addresses_may_change_again_and_again(make_network: MakeNetwork) -> None:
    network = make_network(seed=8, offload=True)
    client, server = network.connect()
    server.engine.open_window()
    network.up.delay = network.down.delay = 0.01
    stream, data = open_stream(client), payload(600_000)
    client.engine.write(stream, data, True)
    network.run(0.05)
    server.engine.write(stream, data, True)
    for turn in range(12):
        network.client_address = f"address {turn}"
        network.run(0.1)
    network.run(60, lambda: stream in server.ended and stream in client.ended)
    assert server.received[stream] == data and client.received[stream] == data
    exchange(network, 1000)
    assert server.engine.address == "address 11"
    assert len(server.engine._network_paths) <= 8


def test_a_client_may_change_the_connection_id_it_uses(make_network: MakeNetwork) -> None:
    """Real iroh does; the fast path follows."""
    network = make_network()
    client, server = network.connect()
    server.engine.open_window()
    network.settle()
    stream, data = open_stream(client), payload(300_000)
    client.engine.write(stream, data, True)
    for _ in range(5):
        network.run(0.002)
        client.engine.change_connection_id()
    network.run(10, lambda: stream in server.ended)
    assert server.received[stream] == data
    exchange(network, 50_000)
    assert len(server.engine._host_cids) <= 8


def test_a_client_answers_a_retry(make_network: MakeNetwork) -> None:
    """RFC 9000 section 8.1.2: prove your address first."""
    network = make_network()
    client = network.client.engine
    source, token = b"new id!!", b"a token"
    first = client.original_destination_connection_id
    retry = encode_quic_retry(
        version=1,
        source_cid=source,
        destination_cid=client.host_cid,
        original_destination_cid=first,
        retry_token=token,
    )
    client.trains(network.now)
    client.receive(memoryview(retry), len(retry), SERVER, network.now)
    [(data, size, _)] = client.trains(network.now)
    header = pull_quic_header(Buffer(data=bytes(data[:size])), 8)
    assert (header.destination_cid, header.token) == (source, token)
    server = type(client).server(
        TransportSettings(),
        SERVER_IDENTITY,
        TOKENS,
        alpn="multi-forward/1",
        original_destination_connection_id=first,
        retry_source_connection_id=source,
    )
    network.server = Peer(server)
    server.receive(memoryview(bytes(data)), size, CLIENT, network.now)
    network.connect()
    exchange(network, 1000)


# Larger datagrams


def with_path(make_network: MakeNetwork, mtu: int, worth: int) -> Network:
    """Both sides find `worth` worth probing for, and `mtu` bytes pass."""
    network = make_network()
    network.mtu = mtu
    client, server = network.connect()
    for peer in (client, server):
        peer.engine._largest_datagram = lambda _: worth
        peer.engine._mtu_address = None
    return network


@pytest.mark.parametrize(
    ("mtu", "worth", "found"), [(65_000, 16_384, 16_384), (1452, 1452, 1452), (1300, 1452, 1280)]
)
def test_datagrams_grow_to_what_the_path_carries(
    make_network: MakeNetwork, mtu: int, worth: int, found: int
) -> None:
    network = with_path(make_network, mtu, worth)
    network.run(20)
    for peer in (network.client, network.server):
        assert peer is not None
        assert found <= peer.engine._max_datagram_size <= mtu
        assert peer.engine._loss.congestion_window >= 10 * 1200
    assert network.server is not None
    network.server.engine.open_window()
    exchange(network, 300_000)


def test_a_path_that_carries_less_than_before_is_noticed(make_network: MakeNetwork) -> None:
    network = with_path(make_network, 65_000, 1452)
    network.run(5)
    client, server = network.connect()
    server.engine.open_window()
    assert client.engine._max_datagram_size == 1452
    network.mtu = 1250
    stream, data = open_stream(client), payload(100_000)
    client.engine.write(stream, data, True)
    network.run(30, lambda: stream in server.ended)
    assert server.received[stream] == data
    assert client.engine._max_datagram_size == 1200


def test_lost_probes_are_no_sign_of_congestion(make_network: MakeNetwork) -> None:
    network = with_path(make_network, 1250, 1452)
    client, _ = network.connect()
    window = client.engine._loss.congestion_window
    network.run(20)
    assert client.engine._loss.congestion_window >= window
    assert client.engine._loss.bytes_in_flight == 0
