"""What is different on the fast path: trains, acknowledgements, and the ways back to the slow one.

All other scenarios of `test_engine` and `test_stream_scheduler` run on it too."""

from collections.abc import Callable

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.packet import pull_ack_frame
from tests.support.engines import (
    CLIENT,
    SERVER,
    Network,
    exchange,
    forged,
    open_stream,
    payload,
    varint,
)

from tunnel_rs.proto import engine as engine_module
from tunnel_rs.proto import fast_engine
from tunnel_rs.proto.engine import Engine
from tunnel_rs.proto.fast_engine import ACK_EVERY, MAX_SEGMENTS, MAX_TRAIN, FastEngine

EARLY = 256
ONE_RTT = tls.Epoch.ONE_RTT
STREAM = 0


@pytest.fixture
def network() -> Network:
    """Two fast engines, a stream open between them, and nothing on its way."""
    made = Network(make_engine=FastEngine)
    client, server = made.connect()
    server.engine.open_window()
    client.engine.open_window()
    assert open_stream(client) == STREAM
    client.engine.write(STREAM, b"x", False)
    made.settle()
    server.consume = False
    return made


class Talker:
    """Sends the server packets of our choice, and reads the acknowledgements of what it says."""

    def __init__(self, network: Network) -> None:
        assert network.server is not None
        self.network, self.server = network, network.server.engine
        self.client = network.client.engine
        self.offset = 1
        self.number = self.client._packet_number

    def packet(self, *, skip: int = 0, size: int = 40) -> bytes:
        self.number += skip
        data = payload(size)
        offset = (self.offset | 0xC0 << 56).to_bytes(8, "big")  # all packets are of one size
        frames = b"\x0c" + varint(STREAM) + offset + data
        self.offset += len(data)
        datagram = forged(self.client, frames, number=self.number)
        self.number += 1
        self.client._packet_number = self.number
        return datagram

    def say(self, *datagrams: bytes) -> list[range] | None:
        """What the server acknowledges at once; None when it waits."""
        self.hear(*datagrams)
        return self.answer()

    def hear(self, *datagrams: bytes) -> None:
        size = len(datagrams[0])
        train = memoryview(b"".join(datagrams))
        self.server.receive(train, size, CLIENT, self.network.now)
        while self.server.next_event() is not None:
            pass

    def ping(self) -> bytes:
        datagram = forged(self.client, b"\x01" + bytes(40), number=self.number)
        self.number += 1
        self.client._packet_number = self.number
        return datagram

    def answer(self) -> list[range] | None:
        ranges: list[range] | None = None
        for data, size, _ in self.server.trains(self.network.now):
            for start in range(0, len(data), size):
                ranges = self.ranges(bytes(data[start : start + size])) or ranges
        return ranges

    def ranges(self, datagram: bytes) -> list[range] | None:
        pair = self.client._cryptos[ONE_RTT]
        expected = self.server._packet_number
        _, frames, _ = pair.decrypt_packet(datagram, 9, expected)
        if frames[:2] != b"\x3e\0":  # PATH_ACK of the first path
            return None
        acked, _ = pull_ack_frame(Buffer(data=frames[2:]))
        return list(acked)


def in_trains(sender: Engine) -> int:
    return sum(train.packets for train in sender._recovery.trains)


# The fast path is taken


def test_bulk_leaves_as_trains_and_is_taken_in_as_trains(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = network.client, network.server
    assert server is not None
    slow: list[int] = []
    plain = Engine._take_in

    def count(self: Engine, train: memoryview, *args: object) -> None:
        slow.append(len(train))
        plain(self, train, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "_take_in", count)
    network.offload = True
    server.consume = True
    client.engine.write(STREAM, payload(500_000), False)
    network.flush()
    assert in_trains(client.engine) >= 10
    network.run(5, lambda: len(server.received[STREAM]) == 500_001)
    assert len(slow) <= 3
    assert not client.engine._loss.spaces[2].sent_packets


def test_trains_keep_to_what_kernels_take(network: Network) -> None:
    client = network.client.engine
    client._loss._cc.congestion_window = 10_000_000
    client._recovery.pacer.rate = None
    client.write(STREAM, payload(900_000), False)
    trains = client.trains(network.now)
    assert len(trains) > 10
    for data, size, to in trains:
        assert to == SERVER and len(data) <= MAX_TRAIN
        assert -(-len(data) // size) <= MAX_SEGMENTS


def test_trains_of_large_datagrams_keep_to_what_udp_takes(network: Network) -> None:
    client = network.client.engine
    client._max_datagram_size = 16_384
    client._recovery.set_datagram_size(16_384)
    client._loss._cc.congestion_window = 10_000_000
    client._recovery.pacer.rate = None
    client.write(STREAM, payload(900_000), False)
    trains = client.trains(network.now)
    assert {size for _, size, _ in trains[:-1]} == {16_384}
    assert all(len(data) <= MAX_TRAIN for data, _, _ in trains)
    network.server = None


def test_what_was_received_does_not_share_the_sockets_buffer(network: Network) -> None:
    client, server = network.client, network.server
    assert server is not None
    client.engine.write(STREAM, payload(11_000), False)
    [(data, size, _), *more] = client.engine.trains(network.now)
    assert len(data) > 2 * size
    buffer = bytearray(data)
    server.engine.receive(memoryview(buffer), size, CLIENT, network.now)
    buffer[:] = bytes(len(buffer))
    server.take_events()
    received = bytes(server.received[STREAM])[1:]
    assert received == payload(11_000)[: len(received)] and len(received) > 2000


def test_several_streams_share_a_pass(network: Network) -> None:
    client, server = network.client, network.server
    assert server is not None
    streams = [open_stream(client) for _ in range(3)]
    for stream in streams:
        client.engine.write(stream, payload(1000, stream), False)
    network.run(0.0015)
    assert {train.stream.stream_id for train in client.engine._recovery.trains} == set(streams)
    network.settle()
    assert all(server.received[stream] == payload(1000, stream) for stream in streams)


def test_ids_of_all_lengths_travel_in_trains(network: Network) -> None:
    """One, two, four and eight bytes of varint; the longest are out of a test's reach."""
    client, server = network.client, network.server
    assert server is not None
    server.consume = True
    while True:
        stream = client.engine.open_stream()
        if stream is None:
            break
        client.engine.write(stream, payload(60, stream), False)
    network.settle()
    assert len(server.received) == 256
    for stream, data in server.received.items():
        assert data == (b"x" if stream == STREAM else payload(60, stream))
    for number, size in ((63, 1), (64, 4), (1 << 30, 8)):
        frame, last, room = fast_engine._frame_heads(number, 1000)
        assert len(frame) == len(last) == 1 + size and room == 1000 - 1 - size - 8
        assert (frame[0], last[0]) == (0x0C, 0x0D)


# Acknowledgements


def test_every_eighth_packet_is_acknowledged_at_once_at_first(network: Network) -> None:
    talker = Talker(network)
    first = talker.number
    answers = [talker.say(talker.packet()) for _ in range(16)]
    assert [i for i, answer in enumerate(answers) if answer is not None] == [7, 15]
    assert answers[15] is not None and answers[15][-1] == range(answers[15][-1].start, first + 16)


def test_every_32nd_packet_is_acknowledged_at_once_later(network: Network) -> None:
    talker = Talker(network)
    for _ in range(EARLY + 8):
        talker.say(talker.packet())
    talker.network.now += 1
    talker.answer()
    answers = [talker.say(talker.packet()) for _ in range(2 * ACK_EVERY)]
    assert [i for i, answer in enumerate(answers) if answer is not None] == [31, 63]


def test_a_train_is_acknowledged_once(network: Network) -> None:
    talker = Talker(network)
    train = [talker.packet() for _ in range(40)]
    assert talker.say(*train) is not None
    assert talker.answer() is None


def test_a_gap_is_told_at_once(network: Network) -> None:
    talker = Talker(network)
    first = talker.number
    assert talker.say(talker.packet()) is None
    told = talker.say(talker.packet(skip=1))
    assert told is not None
    assert told[-1] == range(first + 2, first + 3) and told[-2].stop == first + 1


def test_a_packet_that_fills_a_gap_is_told_at_once(network: Network) -> None:
    talker = Talker(network)
    late = talker.packet()
    assert talker.say(talker.packet()) is not None
    assert talker.say(late) is not None
    assert talker.answer() is None


def test_after_a_gap_acknowledgements_are_frequent_again(network: Network) -> None:
    talker = Talker(network)
    for _ in range(EARLY + 64):
        talker.say(talker.packet())
    talker.say(talker.packet(skip=1))
    answers = [talker.say(talker.packet()) for _ in range(16)]
    assert [i for i, answer in enumerate(answers) if answer is not None] == [7, 15]


@pytest.mark.parametrize(
    ("size", "rtt", "low", "high"),
    [
        (1100, 0.001, 0.0005, 0.003),
        (1100, 0.04, 0.004, 0.006),
        (1100, 1.0, 0.009, 0.0101),
        (100, 0.001, 0.009, 0.0101),  # the peer has no more to send: nothing waits
    ],
)
def test_a_single_packet_is_acknowledged_within_ten_milliseconds(
    network: Network, size: int, rtt: float, low: float, high: float
) -> None:
    talker = Talker(network)
    for _ in range(3):
        talker.server._recovery._rtt_smoothed = rtt
        start = network.now
        assert talker.say(talker.packet(size=size)) is None
        due = talker.server.get_timer()
        assert due is not None and low <= due - start <= high
        network.now = due
        talker.server.handle_timer(due)
        assert talker.answer() is not None


def test_a_stream_of_packets_does_not_put_the_acknowledgement_off(network: Network) -> None:
    talker = Talker(network)
    assert talker.say(talker.packet()) is None
    due = talker.server.get_timer()
    for _ in range(5):
        network.now += 0.0001
        talker.say(talker.packet())
        assert talker.server.get_timer() == due


def test_acknowledgements_are_not_acknowledged(network: Network) -> None:
    talker = Talker(network)
    latest = talker.server._packet_number - 1
    for _ in range(50):
        ack = forged(talker.client, b"\x02" + varint(latest) + b"\0\0\0")
        assert talker.say(ack) is None
    assert talker.server._spaces[ONE_RTT].ack_at is None


@pytest.mark.parametrize("together", [True, False])
def test_duplicates_are_dropped(network: Network, together: bool) -> None:
    talker = Talker(network)
    assert network.server is not None
    packets = [talker.packet() for _ in range(6)]
    said = [packets[0], packets[1], packets[1], packets[0], packets[4], packets[2], packets[3]]
    said += [packets[4], packets[5], packets[2]]
    if together:
        network.server.engine.receive(memoryview(b"".join(said)), len(said[0]), CLIENT, network.now)
    else:
        for datagram in said:
            network.server.engine.receive(memoryview(datagram), len(datagram), CLIENT, network.now)
    network.server.take_events()
    assert network.server.received[STREAM] == b"x" + payload(40) * 6
    assert len(talker.server._spaces[ONE_RTT].ack_queue) == 1


def test_a_duplicate_behind_a_late_packet_is_dropped_too(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late packets 5 and then 6, of which 6 had come before."""
    talker = Talker(network)
    late, early, newest = (talker.packet() for _ in range(3))
    talker.say(early)
    talker.say(newest)
    taken: list[bytes] = []
    inner = talker.server._payload_received

    def note(context: object, plain: bytes, required: bool = False) -> tuple[bool, bool]:
        taken.append(plain)
        return inner(context, plain, required)  # type: ignore[arg-type]

    monkeypatch.setattr(talker.server, "_payload_received", note)
    talker.say(late, early, newest)
    assert len(taken) == 1


def test_ranges_are_bounded(network: Network) -> None:
    talker = Talker(network)
    for _ in range(200):
        talker.say(talker.packet(skip=1))
    assert len(talker.server._spaces[ONE_RTT].ack_queue) <= 64
    told = talker.say(talker.packet(skip=1))
    assert told is not None and len(told) <= 64


def test_packets_older_than_anyone_remembers_are_dropped(network: Network) -> None:
    talker = Talker(network)
    ancient = talker.packet()
    for _ in range(300):
        talker.say(talker.packet())
    before = bytes(talker.server._spaces[ONE_RTT].ack_queue[0].start.to_bytes(4, "big"))
    talker.say(ancient)
    assert before == bytes(talker.server._spaces[ONE_RTT].ack_queue[0].start.to_bytes(4, "big"))


def test_an_answer_carries_the_acknowledgement_of_its_question_on_a_long_path(
    network: Network,
) -> None:
    talker = Talker(network)
    talker.server._recovery._rtt_smoothed = 0.02  # the next answer would be too late
    first = talker.number
    assert talker.say(talker.packet()) is None
    talker.server.write(STREAM, b"answer", False)
    trains = talker.server.trains(network.now)
    assert len(trains) == 1
    told = talker.ranges(bytes(trains[0][0]))
    assert told is not None and first in told[-1]
    assert talker.server._spaces[ONE_RTT].ack_at is None


def test_on_a_short_path_one_answer_acknowledges_several_questions(network: Network) -> None:
    talker = Talker(network)
    talker.server._recovery._rtt_smoothed = 0.001
    told = []
    for _ in range(9):
        assert talker.say(talker.packet()) is None
        talker.server.write(STREAM, b"answer", False)
        ((train, _, _),) = talker.server.trains(network.now)
        told.append(talker.ranges(bytes(train)) is not None)
        network.now += 0.0005
    assert told == [False, False, False, True] * 2 + [False]


def test_lone_data_in_order_needs_no_look_at_what_to_send(network: Network) -> None:
    talker = Talker(network)
    talker.answer()
    heard = []
    for _ in range(8):
        talker.hear(talker.packet())
        heard.append(talker.server.has_only_heard)
    assert heard == [True] * 7 + [False]  # so many are acknowledged at once


@pytest.mark.parametrize(
    "disturb",
    [
        lambda talker: talker.server.write(STREAM, b"answer", False),
        lambda talker: talker.server.send_ping(7),
        lambda talker: talker.server.reset(STREAM, 1),
        lambda talker: talker.packet(),  # lost
        lambda talker: talker.hear(talker.ping()),
        lambda talker: talker.server.consumed(STREAM, 8 << 20),
    ],
    ids=["data", "ping", "reset", "gap", "other frames", "limits"],
)
def test_anything_beside_it_is_a_reason_to_look(
    network: Network, disturb: Callable[[Talker], object]
) -> None:
    talker = Talker(network)
    talker.answer()
    disturb(talker)
    talker.hear(talker.packet())
    assert not talker.server.has_only_heard
    talker.answer()


def test_a_violation_is_a_reason_to_look(network: Network) -> None:
    talker = Talker(network)
    talker.answer()
    talker.server._streams[STREAM].max_stream_data_local = talker.offset
    talker.hear(talker.packet())
    assert talker.server.is_closing
    assert not talker.server.has_only_heard


def test_an_acknowledgement_is_a_reason_to_look(network: Network) -> None:
    client, server = network.client, network.server
    assert server is not None
    server.engine.write(STREAM, b"question", False)
    network.run(1, lambda: bool(client.received.get(STREAM)))
    client.engine._recovery._rtt_smoothed = 1.0
    client.engine.write(STREAM, bytes(100), False)
    ((train, size, _),) = client.engine.trains(network.now)
    assert server.engine._space.ack_eliciting_in_flight
    server.engine.trains(network.now)
    server.engine.receive(memoryview(train), size, CLIENT, network.now)
    assert not server.engine._space.ack_eliciting_in_flight
    assert not server.engine.has_only_heard


def test_a_gap_is_told_with_the_next_answer(network: Network) -> None:
    talker = Talker(network)
    talker.server._recovery._rtt_smoothed = 0.001
    assert talker.say(talker.packet()) is None
    told = talker.say(talker.packet(skip=1))
    assert told is not None and len(told) == 2


def test_questions_and_answers_need_one_datagram_each(network: Network) -> None:
    client, server = network.client, network.server
    assert server is not None
    server.consume = True
    before = network.datagrams
    for turn in range(50):
        client.engine.write(STREAM, payload(64, turn), False)
        size = 1 + 64 * (turn + 1)
        network.run(1, lambda size=size: len(server.received[STREAM]) == size)  # type: ignore[misc]
        server.engine.write(STREAM, payload(64, turn), False)
        network.run(
            1,
            lambda turn=turn: len(client.received.get(STREAM, b"")) == 64 * (turn + 1),  # type: ignore[misc]
        )
    assert network.datagrams - before <= 130


# Ways to the slow path and back


def test_keys_change_by_themselves_before_they_are_worn_out(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_engine, "MAX_PACKETS_PER_KEY", 60)
    client, server = network.client, network.server
    assert server is not None
    server.consume = True
    phases = set[int]()
    client.engine.write(STREAM, payload(400_000), False)

    def done() -> bool:
        phases.add(client.engine._cryptos[ONE_RTT].send.key_phase)
        return len(server.received[STREAM]) == 400_001

    network.run(10, done)
    assert server.received[STREAM] == b"x" + payload(400_000)
    assert phases == {0, 1}
    assert in_trains(client.engine) or not client.engine._recovery.is_probing


def test_chacha20_takes_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [tls.CipherSuite.CHACHA20_POLY1305_SHA256]
    monkeypatch.setattr(engine_module, "_CIPHER_SUITES", only)
    network = Network(make_engine=FastEngine)
    client, server = network.connect()
    server.engine.open_window()
    stream = open_stream(client)
    client.engine.write(stream, payload(50_000), False)
    network.flush()
    assert in_trains(client.engine) == 0
    network.run(5, lambda: len(server.received.get(stream, b"")) == 50_000)
    assert server.received[stream] == payload(50_000)
    network.up.loss = network.down.loss = 0.05
    exchange(network, 20_000)


def test_aes256_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [tls.CipherSuite.AES_256_GCM_SHA384]
    monkeypatch.setattr(engine_module, "_CIPHER_SUITES", only)
    network = Network(make_engine=FastEngine)
    client, server = network.connect()
    server.engine.open_window()
    client.engine.write(open_stream(client), payload(50_000), False)
    network.flush()
    assert in_trains(client.engine) > 0
    exchange(network, 100_000)


def test_after_a_probe_the_fast_path_is_taken_again(network: Network) -> None:
    client, server = network.client, network.server
    assert server is not None
    server.consume = True
    network.up.cut = True
    client.engine.write(STREAM, payload(20_000), False)
    network.run(3)
    assert client.engine._recovery.is_probing
    network.up.cut = False
    network.run(10, lambda: len(server.received[STREAM]) == 20_001)
    network.settle()
    client.engine.write(STREAM, payload(20_000), False)
    network.flush()
    assert in_trains(client.engine) > 0


def test_packets_that_are_late_in_a_train_are_put_in_order(network: Network) -> None:
    talker = Talker(network)
    assert network.server is not None
    packets = [talker.packet() for _ in range(5)]
    shuffled = [packets[i] for i in (3, 0, 4, 2, 1)]
    talker.server.receive(memoryview(b"".join(shuffled)), len(packets[0]), CLIENT, network.now)
    network.server.take_events()
    assert network.server.received[STREAM] == b"x" + payload(40) * 5


@pytest.mark.parametrize(
    "odd",
    [
        lambda size: b"\xc3" + bytes(size - 1),
        lambda size: b"\x40" + bytes(size - 1),
        lambda size: bytes(size),
        lambda size: b"\xff" * size,
    ],
    ids=["long header", "unknown id", "zeros", "ones"],
)
def test_an_odd_datagram_in_a_train_costs_only_itself(
    network: Network, odd: Callable[[int], bytes]
) -> None:
    talker = Talker(network)
    assert network.server is not None
    packets = [talker.packet() for _ in range(4)]
    size = len(packets[0])
    train = packets[0] + odd(size) + packets[1] + packets[2] + odd(size) + packets[3] + b"\x40cut"
    talker.server.receive(memoryview(train), size, CLIENT, network.now)
    network.server.take_events()
    assert network.server.received[STREAM] == b"x" + payload(40) * 4
    assert not talker.server.is_closing


def test_control_frames_go_out_while_the_window_is_full(network: Network) -> None:
    """A sender whose window is used up still acknowledges, and pings when it must."""
    client, server = network.client, network.server
    assert server is not None
    client.engine.write(STREAM, payload(200_000), False)
    client.engine.trains(network.now)
    assert client.engine._loss.bytes_in_flight > 0.9 * client.engine._loss.congestion_window
    for _ in range(3):
        said = forged(server.engine, b"\x01" + bytes(30))
        client.engine.receive(memoryview(said), len(said), SERVER, network.now)
    network.now += 0.025
    assert client.engine.trains(network.now)
    assert client.engine._spaces[ONE_RTT].ack_at is None


def test_pacing_of_control_frames_is_not_forgotten_beside_a_full_window(
    network: Network,
) -> None:
    client = network.client.engine
    client.write(STREAM, payload(200_000), False)
    client.trains(network.now)
    client._recovery.pacer.spend(1_000_000)
    client.send_ping(0)
    client.trains(network.now)
    assert client._ping_pending
    due = client._pacing_at
    assert due is not None and due > network.now
