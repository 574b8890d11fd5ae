"""Streams: order, endings, windows, limits, and that nothing of them stays behind."""

import random

import pytest
from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset
from tests.proto.conftest import MakeNetwork
from tests.support.engines import (
    PAIRS,
    SERVER,
    Network,
    Peer,
    exchange,
    forged,
    open_stream,
    payload,
    varint,
)

from tunnel_rs.proto.engine import STRANGER_WINDOW
from tunnel_rs.proto.flow_control import HELD_LIMIT, INITIAL_STREAM_WINDOW
from tunnel_rs.proto.send_buffer import SMALL, SendBuffer
from tunnel_rs.proto.transport_settings import TransportSettings

STEP = 1200 - 8 - 3 - 16 - 10
"""Data bytes of a full packet of the fast path, of a stream with a one-byte id."""


@pytest.fixture
def network(make_network: MakeNetwork) -> Network:
    made = make_network(seed=7)
    made.connect()
    made.settle()
    return made


def both(network: Network) -> tuple[Peer, Peer]:
    assert network.server is not None
    return network.client, network.server


def assert_empty(*peers: Peer) -> None:
    """Neither streams nor any trace of them are left."""
    for peer in peers:
        engine = peer.engine
        assert engine.total_unsent == 0
        for table in (
            engine._streams,
            engine._windows,
            engine._work,
            engine._flow_blocked,
            engine._raised_windows,
            engine._streams_queue,
        ):
            assert not table
        assert engine._connection_window.consumed == engine._local_max_data.used


# Writing and ending


@pytest.mark.parametrize(
    "size", [1, STEP - 1, STEP, STEP + 1, 2 * STEP, 10 * STEP, 44 * STEP, 44 * STEP + 1, 100 * STEP]
)
def test_an_end_at_a_packet_border_is_no_trouble(network: Network, size: int) -> None:
    client, server = both(network)
    server.engine.open_window()
    stream = open_stream(client)
    client.engine.write(stream, payload(size), True)
    network.run(5, lambda: stream in server.ended)
    server.engine.write(stream, payload(size, 1), True)
    network.run(5, lambda: stream in client.ended)
    assert server.received[stream] == payload(size) and client.received[stream] == payload(size, 1)
    network.settle()
    assert_empty(client, server)


def test_an_empty_stream_is_only_an_end(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"", True)
    network.settle()
    assert stream in server.ended and server.received[stream] == b""
    server.engine.write(stream, b"", True)
    network.settle()
    assert stream in client.ended
    assert_empty(client, server)


def test_an_end_may_come_long_after_the_data(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"data", False)
    network.settle()
    assert stream not in server.ended
    client.engine.write(stream, b"", True)
    network.settle()
    assert server.received[stream] == b"data" and stream in server.ended


def test_single_bytes_arrive_in_order(network: Network) -> None:
    client, server = both(network)
    network.up.loss = 0.1
    stream = open_stream(client)
    for byte in payload(300):
        client.engine.write(stream, bytes([byte]), False)
        network.run(0.0005)
    network.run(20, lambda: len(server.received.get(stream, b"")) == 300)
    assert server.received[stream] == payload(300)


def test_one_direction_goes_on_after_the_other_has_ended(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"question", True)
    network.settle()
    for part in range(5):
        server.engine.write(stream, payload(10_000, part), False)
        network.settle()
    assert client.received[stream] == b"".join(payload(10_000, part) for part in range(5))
    assert stream not in client.ended
    server.engine.write(stream, b"", True)
    network.settle()
    assert stream in client.ended
    assert_empty(client, server)


def test_what_is_written_is_copied_at_once(network: Network) -> None:
    client, server = both(network)
    stream, buffer = open_stream(client), bytearray(b"before")
    client.engine.write(stream, memoryview(buffer), True)
    buffer[:] = b"after!"
    network.settle()
    assert server.received[stream] == b"before"


def test_writing_to_a_stream_that_is_over_is_dropped(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"x", True)
    network.settle()
    server.engine.write(stream, b"y", True)
    network.settle()
    for peer in (client, server):
        assert not peer.engine.has_stream(stream)
        peer.engine.write(stream, b"late", False)
        peer.engine.reset(stream, 1)
        peer.engine.stop(stream, 1)
        assert peer.engine.unsent(stream) == 0
    network.settle()
    assert_empty(client, server)


def test_unsent_bytes_are_counted_until_they_are_acknowledged(network: Network) -> None:
    client, server = both(network)
    server.engine.open_window()
    network.settle()
    first, second = open_stream(client), open_stream(client)
    client.engine.write(first, payload(50_000), False)
    client.engine.write(second, payload(30_000), False)
    assert (client.engine.unsent(first), client.engine.unsent(second)) == (50_000, 30_000)
    assert client.engine.total_unsent == 80_000
    network.flush()
    assert client.engine.total_unsent == 80_000
    network.run(0.004)
    assert 0 < client.engine.total_unsent < 80_000
    network.settle()
    assert client.engine.total_unsent == client.engine.unsent(first) == 0


def test_much_unsent_leaves_bytearrays_and_holds_nothing_once_it_is_acknowledged(
    network: Network,
) -> None:
    client, _ = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"little", False)
    sender = client.engine._streams[stream].sender
    assert type(sender._buffer) is bytearray
    client.engine.write(stream, bytes(SMALL), False)
    held = vars(sender)["_buffer"]
    assert isinstance(held, SendBuffer)
    assert client.engine.unsent(stream) == SMALL + len(b"little")
    network.settle()
    assert not held._blocks


def test_a_connection_that_is_over_gives_back_the_bytes_it_holds(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, bytes(3_000_000), False)
    held = [each.sender for each in client.engine._streams.values()]
    assert [len(sender._buffer) for sender in held] == [3_000_000]
    client.engine.release()
    assert [len(sender._buffer) for sender in held] == [0]


# Resetting and stopping


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_reset_reaches_the_peer_with_its_code(network: Network, loss: float) -> None:
    client, server = both(network)
    network.up.loss = network.down.loss = loss
    stream = open_stream(client)
    client.engine.write(stream, payload(30_000), False)
    network.run(0.002)
    client.engine.reset(stream, 77)
    assert client.engine.unsent(stream) == client.engine.total_unsent == 0
    network.run(20)
    [event] = server.event(StreamReset)
    assert isinstance(event, StreamReset)
    assert (event.stream_id, event.error_code) == (stream, 77)
    server.engine.write(stream, b"", True)
    network.run(20)
    assert_empty(client, server)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_stop_ends_the_peers_sending(network: Network, loss: float) -> None:
    client, server = both(network)
    network.up.loss = network.down.loss = loss
    stream = open_stream(client)
    client.engine.write(stream, payload(300_000), False)
    network.run(0.01 if not loss else 1.0)
    server.engine.stop(stream, 78)
    network.run(20)
    [event] = client.event(StopSendingReceived)
    assert isinstance(event, StopSendingReceived)
    assert (event.stream_id, event.error_code) == (stream, 78)
    [reset] = server.event(StreamReset)
    assert isinstance(reset, StreamReset) and reset.error_code == 78
    assert client.engine.total_unsent == 0
    client.engine.write(stream, b"ignored", False)
    server.engine.write(stream, b"", True)
    network.run(20)
    assert_empty(client, server)


def test_a_reset_after_everything_was_acknowledged_does_nothing(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"all of it", True)
    network.settle()
    client.engine.reset(stream, 1)
    server.engine.stop(stream, 1)
    network.settle()
    assert not server.event(StreamReset) and stream in server.ended


def test_a_reset_of_both_directions_at_once_leaves_nothing(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, payload(40_000), False)
    network.settle()
    server.engine.write(stream, payload(40_000), False)
    network.flush()
    for peer in (client, server):
        peer.engine.reset(stream, 5)
        peer.engine.stop(stream, 6)
    network.settle()
    assert_empty(client, server)


def test_a_reset_while_the_window_is_closed_gives_the_window_back(network: Network) -> None:
    client, server = both(network)
    server.consume = False
    stream = open_stream(client)
    client.engine.write(stream, payload(STRANGER_WINDOW + 10_000), False)
    network.settle()
    assert len(server.received[stream]) == STRANGER_WINDOW
    assert client.engine._flow_blocked
    client.engine.reset(stream, 1)
    network.settle()
    assert not client.engine._flow_blocked
    server.engine.consumed(stream, STRANGER_WINDOW)
    server.engine.write(stream, b"", True)
    server.consume = True
    network.settle()
    assert_empty(client, server)
    exchange(network, 200_000)


def test_lost_bytes_of_a_reset_stream_are_not_sent_again(network: Network) -> None:
    client, server = both(network)
    server.engine.open_window()
    network.settle()
    stream = open_stream(client)
    network.up.cut = True
    client.engine.write(stream, payload(10_000), False)
    network.run(0.001)
    network.up.cut = False
    client.engine.reset(stream, 1)
    network.run(5)
    assert stream not in server.received
    assert server.event(StreamReset)
    server.engine.write(stream, b"", True)
    network.settle()
    assert_empty(client, server)


def test_thousands_of_reset_streams_cost_no_credit(make_network: MakeNetwork) -> None:
    network = make_network(seed=2)
    client, server = network.connect()
    network.up.loss = 0.02
    for turn in range(1000):
        stream = client.engine.open_stream()
        if stream is None:
            network.run(5, lambda: client.engine._remote_max_streams_bidi * 4 > 0)
            stream = open_stream(client)
        client.engine.write(stream, payload(2000), False)
        if turn % 3 == 0:
            network.flush()
        client.engine.reset(stream, turn)
        if turn % 10 == 9:
            network.run(0.01)
            for opened in list(server.engine._streams):
                server.engine.reset(opened, 0)
            network.run(0.01)
    network.up.loss = 0.0
    network.run(10)
    for opened in list(server.engine._streams):
        server.engine.reset(opened, 0)
    network.run(10)
    assert_empty(client, server)
    window = server.engine._connection_window
    assert window.limit - server.engine._local_max_data.used >= window.size // 2
    assert (
        client.engine._remote_max_data - client.engine._remote_max_data_used >= STRANGER_WINDOW // 2
    )


# Windows


def test_a_peer_is_held_at_the_stream_window_until_the_application_consumes(
    network: Network,
) -> None:
    client, server = both(network)
    server.engine.open_window()
    server.consume = False
    stream = open_stream(client)
    client.engine.write(stream, payload(3 * INITIAL_STREAM_WINDOW), True)
    network.run(60)
    assert len(server.received[stream]) == INITIAL_STREAM_WINDOW
    server.engine.consumed(stream, INITIAL_STREAM_WINDOW)
    network.run(60)
    assert len(server.received[stream]) == 3 * INITIAL_STREAM_WINDOW
    assert server.received[stream] == payload(3 * INITIAL_STREAM_WINDOW)


@pytest.mark.parametrize(("delay", "most"), [(0.001, 100_000), (0.05, 510_000)])
def test_what_may_be_on_its_way_fits_the_socket_s_buffer(
    network: Network, delay: float, most: int
) -> None:
    client, server = both(network)
    network.up.delay = network.down.delay = delay
    stream = open_stream(client)
    client.engine.write(stream, payload(2_000), False)
    network.run(5)
    server.engine.receive_buffer = lambda _: 100_000
    server.engine.open_window()
    seen: list[int] = []

    def look() -> bool:
        limit = client.engine._remote_max_data
        seen.append(limit - server.engine._local_max_data.used)
        return stream in server.ended

    client.engine.write(stream, payload(1_200_000), True)
    network.run(60, look)
    assert server.received[stream] == payload(2_000) + payload(1_200_000)
    assert 0.6 * most < max(seen) <= most


def test_windows_stay_at_what_the_settings_allow(make_network: MakeNetwork) -> None:
    small = TransportSettings(receive_window=20_000)
    network = make_network(small, small)
    client, server = network.connect()
    server.engine.open_window()
    server.consume = False
    stream = open_stream(client)
    client.engine.write(stream, payload(100_000), True)
    network.run(5)
    assert len(server.received[stream]) == 20_000
    server.consume = True
    server.engine.consumed(stream, 20_000)
    network.run(20, lambda: stream in server.ended)
    assert server.received[stream] == payload(100_000)
    assert all(window.size <= 20_000 for window in server.engine._windows.values())


def test_a_stalled_stream_does_not_stop_its_siblings(network: Network) -> None:
    client, server = both(network)
    for stalled_at, sender in ((server, client), (client, server)):
        stalled_at.engine.open_window()
        stalled_at.consume = False
        if sender is client:
            stalled = open_stream(client)
        else:
            stalled = open_stream(client)
            client.engine.write(stalled, b"go", False)
            network.settle()
        sender.engine.write(stalled, payload(2 * INITIAL_STREAM_WINDOW), False)
        network.run(20)
        assert len(stalled_at.received[stalled]) == INITIAL_STREAM_WINDOW
        stalled_at.consume = True
    exchange(network, 300_000, streams=2)


def test_all_stalled_streams_together_are_held_at_the_limit(make_network: MakeNetwork) -> None:
    """64 MiB are too much for a test; a peer that only says it sends is as good."""
    network = make_network()
    client, server = network.connect()
    server.engine.open_window()
    server.consume = False
    network.settle()
    stream, granted = 0, 0
    while server.engine._local_max_data.used + INITIAL_STREAM_WINDOW <= (
        server.engine._local_max_data.value
    ):
        last = b"\x0e" + varint(stream) + varint(INITIAL_STREAM_WINDOW - 1) + b"\x01x"
        network.inject(SERVER, forged(client.engine, last))
        assert not server.engine.is_closing
        granted += INITIAL_STREAM_WINDOW
        stream += 4
    assert HELD_LIMIT - 8_388_608 <= granted <= HELD_LIMIT
    last = b"\x0e" + varint(stream) + varint(INITIAL_STREAM_WINDOW - 1) + b"\x01x"
    for _ in range(9):
        network.inject(SERVER, forged(client.engine, last))
    assert server.engine._local_max_data.value <= HELD_LIMIT
    assert server.engine.is_closing == (
        server.engine._local_max_data.used + INITIAL_STREAM_WINDOW
        > server.engine._local_max_data.value
    )


def test_a_stranger_is_held_until_its_window_is_opened(network: Network) -> None:
    client, server = both(network)
    server.consume = False
    streams = [open_stream(client) for _ in range(4)]
    for stream in streams:
        client.engine.write(stream, payload(50_000), True)
    network.run(10)
    assert sum(len(data) for data in server.received.values()) == STRANGER_WINDOW
    server.engine.open_window()
    network.flush()
    network.run(10)
    assert all(server.received[stream] == payload(50_000) for stream in streams)


def test_a_fast_reader_gets_a_larger_window(network: Network) -> None:
    client, server = both(network)
    server.engine.open_window()
    stream = open_stream(client)
    client.engine.write(stream, payload(4 * INITIAL_STREAM_WINDOW), False)
    network.run(30)
    assert len(server.received[stream]) == 4 * INITIAL_STREAM_WINDOW
    assert server.engine._windows[stream].size == TransportSettings().receive_window


def test_windows_open_although_their_frames_are_lost(make_network: MakeNetwork) -> None:
    small = TransportSettings(receive_window=8_192)
    network = make_network(small, small, seed=9)
    client, server = network.connect()
    server.engine.open_window()
    network.down.loss = 0.4
    stream = open_stream(client)
    client.engine.write(stream, payload(200_000), True)
    network.run(200, lambda: stream in server.ended)
    assert server.received[stream] == payload(200_000)


# Stream limits


def test_ids_are_reserved_when_they_are_asked_for(network: Network) -> None:
    client, server = both(network)
    assert [open_stream(client) for _ in range(3)] == [0, 4, 8]
    assert client.engine.has_stream(4) and not server.engine.has_stream(4)
    client.engine.write(8, b"last first", False)
    network.settle()
    assert server.received[8] == b"last first"
    assert server.engine.has_stream(0)


def test_a_server_cannot_open_streams_to_its_client(network: Network) -> None:
    _, server = both(network)
    assert server.engine.open_stream() is None


def test_no_stream_can_be_opened_before_the_handshake(make_network: MakeNetwork) -> None:
    assert make_network().client.engine.open_stream() is None


def test_the_peers_limit_makes_us_wait(make_network: MakeNetwork) -> None:
    network = make_network(server_settings=TransportSettings(max_streams=5))
    client, server = network.connect()
    streams = [open_stream(client) for _ in range(5)]
    assert client.engine.open_stream() is None
    for stream in streams:
        client.engine.write(stream, b"x", True)
    network.settle()
    assert client.engine.open_stream() is None
    server.engine.write(streams[2], b"", True)
    network.settle()
    assert client.engine.open_stream() == 20
    assert client.engine.open_stream() is None


def test_streams_that_ended_are_replaced_however_many_are_held(make_network: MakeNetwork) -> None:
    """The peer may have `max_streams` open at any time, also after some have come and gone."""
    network = make_network(server_settings=TransportSettings(max_streams=16))
    client, server = network.connect()
    for _ in range(5):
        stream = open_stream(client)
        client.engine.write(stream, b"x", True)
        network.settle()
        server.engine.write(stream, b"", True)
        network.settle()
    held = []
    for _ in range(16):
        stream = open_stream(client)
        held.append(stream)
        client.engine.write(stream, b"x", False)
        network.settle()
    assert client.engine.open_stream() is None
    assert len(server.engine._streams) == 16


def test_thousands_of_short_streams_leave_nothing_behind(make_network: MakeNetwork) -> None:
    network = make_network(seed=4)
    client, server = network.connect()
    network.up.loss = network.down.loss = 0.01
    done, open_now = 0, set[int]()

    def turn() -> bool:
        nonlocal done
        while done < 1500 and (stream := client.engine.open_stream()) is not None:
            client.engine.write(stream, b"request %d" % stream, True)
            open_now.add(stream)
            done += 1
        for stream in list(open_now & server.ended):
            server.ended.discard(stream)
            server.engine.write(stream, server.received.pop(stream), True)
        for stream in list(open_now & client.ended):
            assert client.received.pop(stream) == b"request %d" % stream
            open_now.discard(stream)
        return done >= 1500 and not open_now

    network.run(600, turn)
    assert done == 1500 and not open_now
    network.up.loss = network.down.loss = 0.0
    network.run(5)
    assert_empty(client, server)


def test_many_streams_share_the_path(network: Network) -> None:
    client, server = both(network)
    server.engine.open_window()
    streams = [open_stream(client) for _ in range(50)]
    for stream in streams:
        client.engine.write(stream, payload(20_000, stream), True)
    network.run(0.02)
    begun = sum(bool(server.received.get(stream)) for stream in streams)
    assert begun >= 5
    network.run(30, lambda: set(streams) <= server.ended)
    assert all(server.received[stream] == payload(20_000, stream) for stream in streams)


def test_a_stream_event_is_told_for_each_piece(network: Network) -> None:
    client, server = both(network)
    stream = open_stream(client)
    client.engine.write(stream, b"piece", True)
    network.settle()
    assert server.event(StreamDataReceived) == [
        StreamDataReceived(data=b"piece", end_stream=True, stream_id=stream)
    ]


# Everything at once


class Conversation:
    """Random streams in which each side writes, ends, resets, stops, and consumes late; what must
    hold whatever they do."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        client_kind, server_kind = list(PAIRS.values())[seed % len(PAIRS)]
        small = TransportSettings(
            receive_window=self.random.choice([2_000, 30_000, 8_388_608]),
            max_streams=self.random.choice([2, 16]),
        )
        self.network = Network(
            small,
            small,
            make_engine=client_kind,
            make_server=server_kind,
            seed=seed,
            offload=self.random.random() < 0.5,
        )
        client, server = self.network.connect()
        self.peers = (client, server)
        if self.random.random() < 0.7:
            server.engine.open_window()
        for wire in (self.network.up, self.network.down):
            wire.loss = self.random.choice([0.0, 0.02, 0.2])
            wire.jitter = self.random.choice([0.0, 0.01])
            wire.duplicates = self.random.choice([0.0, 0.05])
        self.written: dict[tuple[int, int], bytearray] = {}
        self.finished: set[tuple[int, int]] = set()
        self.aborted: set[tuple[int, int]] = set()
        self.unconsumed: dict[tuple[int, int], int] = {}
        self.seen: dict[tuple[int, int], int] = {}
        for peer in self.peers:
            peer.consume = False

    def streams(self) -> list[int]:
        return [i for i in range(0, self.peers[0].engine._local_next_stream_id_bidi, 4)]

    def act(self) -> None:
        who = self.random.randrange(2)
        peer = self.peers[who]
        if who == 0 and self.random.random() < 0.2:
            peer.engine.open_stream()
        known = [i for i in self.streams() if peer.engine.has_stream(i)]
        if not known:
            return
        stream = self.random.choice(known)
        key = (who, stream)
        what = self.random.random()
        if what < 0.5 and key not in self.finished | self.aborted:
            data = payload(self.random.choice([1, 100, 1170, 5_000, 20_000]), stream)
            self.written.setdefault(key, bytearray()).extend(data)
            fin = self.random.random() < 0.3
            peer.engine.write(stream, data, fin)
            if fin:
                self.finished.add(key)
        elif what < 0.6 and key not in self.finished | self.aborted:
            peer.engine.write(stream, b"", True)
            self.finished.add(key)
        elif what < 0.65:
            peer.engine.reset(stream, 9)
            self.aborted.add(key)
        elif what < 0.7:
            peer.engine.stop(stream, 8)
            self.aborted.add((1 - who, stream))
        elif what < 0.72:
            peer.engine.request_key_update()

    def consume(self, share: float) -> None:
        for who, peer in enumerate(self.peers):
            for stream, data in peer.received.items():
                done = self.seen.get((who, stream), 0)
                n = int((len(data) - done) * share)
                if n:
                    peer.engine.consumed(stream, n)
                    self.seen[who, stream] = done + n

    def check(self) -> None:
        for who, peer in enumerate(self.peers):
            engine = peer.engine
            assert not engine.is_closing, engine.ending
            assert engine.total_unsent == sum(engine.unsent(i) for i in engine._streams) >= 0
            for stream, data in peer.received.items():
                assert self.written.get((1 - who, stream), b"").startswith(data)

    def wind_up(self) -> None:
        for wire in (self.network.up, self.network.down):
            wire.loss = 0.0
        for _ in range(400):
            self.consume(1.0)
            for who, peer in enumerate(self.peers):
                for stream in list(peer.engine._streams):
                    if (who, stream) not in self.finished | self.aborted:
                        peer.engine.write(stream, b"", True)
                        self.finished.add((who, stream))
            self.network.run(0.5)
            if not any(peer.engine._streams for peer in self.peers):
                break
        self.consume(1.0)
        self.network.run(2)


@pytest.mark.parametrize("seed", range(24))
def test_whatever_streams_do_every_byte_and_every_credit_is_accounted_for(seed: int) -> None:
    talk = Conversation(seed)
    for _ in range(150):
        for _ in range(talk.random.randrange(4)):
            talk.act()
        if talk.random.random() < 0.5:
            talk.consume(talk.random.choice([0.3, 1.0]))
        talk.network.run(talk.random.choice([0.0001, 0.002, 0.05]))
        talk.check()
    talk.wind_up()
    talk.check()
    assert_empty(*talk.peers)
    for who, peer in enumerate(talk.peers):
        for stream in talk.streams():
            sent = (1 - who, stream)
            if sent in talk.finished and sent not in talk.aborted:
                assert peer.received.get(stream, b"") == talk.written.get(sent, b"")
                assert stream in peer.ended
