"""DATAGRAM frames: the queues, and how both engines carry them beside streams."""

from itertools import pairwise

import pytest
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.conftest import MakeNetwork
from tests.support.engines import (
    SERVER,
    Network,
    Peer,
    exchange,
    forged,
    open_stream,
    payload,
    varint,
)

from tunnel_rs.proto.datagrams import (
    HEAD,
    MAX_ARRIVED,
    MAX_QUEUE,
    MIN_QUEUE,
    ArrivedDatagrams,
    OutgoingDatagrams,
    largest_payload,
)
from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.transport_settings import TransportSettings

flows = st.integers(0, 70) | st.integers(0, (1 << 60) - 1)
contents = st.binary(max_size=80)


# The queue of those to send


@given(st.lists(st.tuples(flows, contents), max_size=40), st.integers(100, 300))
def test_what_is_queued_is_read_from_the_packets_in_order(
    sent: list[tuple[int, bytes]], room: int
) -> None:
    outgoing, arrived = OutgoingDatagrams(), ArrivedDatagrams()
    expected: dict[int, list[bytes]] = {}
    for flow, content in sent:
        assert outgoing.add(flow, [content], MAX_QUEUE) == 0
        expected.setdefault(flow, []).append(content)
    while packet := outgoing.take(room):
        assert len(packet) <= room
        assert arrived.add_frames(packet) == len(packet)
    assert len(outgoing) == outgoing.octets == 0
    assert arrived.take() == expected
    assert arrived.take() == {}


@given(st.integers(0, 20_000), flows, st.sampled_from([0, 900, 65_535]))
def test_the_largest_payload_just_fits(room: int, flow: int, limit: int) -> None:
    largest = largest_payload(room, limit, flow)
    outgoing = OutgoingDatagrams()
    outgoing.add(flow, [bytes(largest)], MAX_QUEUE)
    if largest:
        frame = outgoing.take(room)
        assert len(frame) <= limit
        assert largest > 16_300 or min(room, limit) - len(frame) == 0
    else:
        assert min(room, limit) <= HEAD


def test_a_packet_takes_as_many_whole_frames_as_fit() -> None:
    outgoing = OutgoingDatagrams()
    outgoing.add(1, [bytes(200)] * 8, MAX_QUEUE)
    assert len(outgoing.take(1425)) == 6 * 204
    assert len(outgoing.take(1428)) == 2 * 204
    assert outgoing.take(1428) == b""


def test_the_oldest_are_dropped_when_a_window_full_waits() -> None:
    outgoing, arrived = OutgoingDatagrams(), ArrivedDatagrams()
    numbered = [i.to_bytes(4, "big") + bytes(996) for i in range(1000)]
    dropped = sum(outgoing.add(0, [each], window=200_000) for each in numbered)
    assert dropped == outgoing.dropped == 1000 - 200_000 // 1004
    while packet := outgoing.take(1200):
        arrived.add_frames(packet)
    assert arrived.take()[0] == numbered[dropped:]


@pytest.mark.parametrize(("window", "limit"), [(1, MIN_QUEUE), (1 << 30, MAX_QUEUE)])
def test_the_queue_is_bounded_whatever_the_window_is(window: int, limit: int) -> None:
    outgoing = OutgoingDatagrams()
    for _ in range(2000):
        outgoing.add(0, [bytes(1000)], window)
    assert limit - 1004 < outgoing.octets <= limit


def test_frames_that_no_longer_fit_are_dropped_and_counted() -> None:
    outgoing = OutgoingDatagrams()
    outgoing.add(0, [bytes(2000), b"short", bytes(1500)], MAX_QUEUE)
    outgoing.fit(1400)
    assert outgoing.dropped == 2
    assert outgoing.octets == len(outgoing.take(1400)) == 4 + 5


# Reading


@given(st.binary(max_size=300))
def test_no_bytes_can_break_the_reader(frames: bytes) -> None:
    arrived = ArrivedDatagrams()
    stop = arrived.add_frames(b"\x31" + frames)
    assert 0 <= stop <= len(frames) + 1
    total = sum(len(each) for payloads in arrived.take().values() for each in payloads)
    assert total <= len(frames)


@given(st.lists(contents.filter(len), min_size=1, max_size=5), st.data())
def test_reading_stops_at_a_frame_that_is_cut_off(sent: list[bytes], data: st.DataObject) -> None:
    outgoing, arrived = OutgoingDatagrams(), ArrivedDatagrams()
    outgoing.add(5, sent, MAX_QUEUE)
    packet = outgoing.take(1000)
    ends = [0]
    for each in sent:
        ends.append(ends[-1] + 4 + len(each))
    cut = data.draw(st.integers(1, len(packet) - 1))
    stop = arrived.add_frames(packet[:cut])
    assert stop == max(end for end in ends if end <= cut)
    whole = sum(end <= cut for _, end in pairwise(ends))
    assert arrived.take().get(5, []) == sent[:whole]


def test_empty_payloads_are_bounded_in_number() -> None:
    arrived = ArrivedDatagrams()
    for _ in range(40):
        arrived.add_frames(b"\x31\x01\x07" * 300 + b"\x00")
    assert len(arrived.take()[7]) == MAX_ARRIVED
    assert arrived.dropped == 40 * 300 - MAX_ARRIVED


def test_a_frame_without_a_flow_is_dropped() -> None:
    arrived = ArrivedDatagrams()
    arrived.add(b"")
    arrived.add(b"\xc0\x00")
    assert arrived.add_frames(b"\x31\x00\x31\x01\x40\x31\x02\x07x") == 9
    assert arrived.take() == {7: [b"x"]}
    assert arrived.dropped == 4


# Between two engines


class Flow:
    """A stream of the client's, and what goes beside it."""

    def __init__(self, network: Network) -> None:
        client, server = network.connect()
        client.engine.open_window()
        server.engine.open_window()
        self.network, self.client, self.server = network, client, server
        self.id = open_stream(client)
        network.settle()

    def arrived(self, peer: Peer) -> list[bytes]:
        return peer.engine.take_datagrams().get(self.id, [])

    def room(self, peer: Peer) -> int:
        return peer.engine.largest_datagram_payload(self.id)


@pytest.fixture
def flow(make_network: MakeNetwork) -> Flow:
    return Flow(make_network(seed=11))


def test_datagrams_go_both_ways_and_small_ones_share_packets(flow: Flow) -> None:
    sent = [payload(200, i) for i in range(50)]
    packets = flow.network.datagrams
    flow.client.engine.send_datagrams(flow.id, sent)
    flow.server.engine.send_datagrams(flow.id, [b"", b"answer"])
    flow.network.run(0.01)
    assert flow.arrived(flow.server) == sent
    assert flow.arrived(flow.client) == [b"", b"answer"]
    assert flow.network.datagrams - packets < 20


def test_the_largest_payload_passes_and_tells_the_size_of_the_path(flow: Flow) -> None:
    largest = flow.room(flow.client)
    assert largest == 1200 - 8 - 19 - 4
    flow.client.engine.send_datagrams(flow.id, [payload(largest)])
    flow.network.settle()
    assert flow.arrived(flow.server) == [payload(largest)]


def test_a_lost_datagram_is_not_sent_again_and_holds_up_nothing(flow: Flow) -> None:
    network = flow.network
    network.up.cut = True
    flow.client.engine.send_datagrams(flow.id, [b"lost"])
    network.run(0.001)
    network.up.cut = False
    flow.client.engine.send_datagrams(flow.id, [b"kept"])
    network.run(0.002)
    assert flow.arrived(flow.server) == [b"kept"]
    network.settle()
    assert flow.arrived(flow.server) == []
    assert flow.client.engine._loss.bytes_in_flight == 0
    assert not flow.client.engine._recovery.trains


def test_a_lost_tail_is_probed_for_and_leaves_nothing_in_flight(flow: Flow) -> None:
    network = flow.network
    network.up.cut = True
    flow.client.engine.send_datagrams(flow.id, [b"lost"])
    network.run(0.5)
    network.up.cut = False
    network.run(5)
    assert flow.client.engine._loss.bytes_in_flight == 0
    assert flow.client.engine.silent_for(network.now) == 0.0


def test_on_a_path_that_is_full_datagrams_are_dropped_and_not_late(flow: Flow) -> None:
    network = flow.network
    network.up.delay = 0.05
    for i in range(4000):
        flow.client.engine.send_datagrams(flow.id, [i.to_bytes(4, "big") + bytes(996)])
    engine = flow.client.engine
    assert engine._outgoing.dropped >= 3500
    assert engine._outgoing.octets <= MAX_QUEUE
    network.run(3)
    got = flow.arrived(flow.server)
    assert 100 < len(got) + engine._outgoing.dropped <= 4000
    assert got[-1][:4] == (3999).to_bytes(4, "big")
    assert got == sorted(got)
    assert engine._loss.bytes_in_flight == 0


def test_streams_and_datagrams_share_the_path(flow: Flow) -> None:
    network, client, server = flow.network, flow.client, flow.server
    network.up.delay = network.down.delay = 0.01
    data = payload(600_000)
    client.engine.write(flow.id, data, True)
    got = 0

    def more() -> bool:
        nonlocal got
        client.engine.send_datagrams(flow.id, [bytes(1000)] * 3)
        got += len(flow.arrived(server))
        return flow.id in server.ended

    network.run(60, more)
    assert server.received[flow.id] == data
    assert got > 100


@pytest.mark.parametrize("trouble", ["loss", "jitter", "duplicates"])
def test_datagrams_beside_a_transfer_on_a_bad_path_harm_neither(
    make_network: MakeNetwork, trouble: str
) -> None:
    network = make_network(seed=5)
    flow = Flow(network)
    for wire in (network.up, network.down):
        setattr(wire, trouble, 0.02)
    sent = [i.to_bytes(4, "big") + payload(300, i) for i in range(300)]
    got: list[bytes] = []
    left = list(sent)

    def trickle(to: str, datagram: bytes) -> bytes:
        if left:
            flow.client.engine.send_datagrams(flow.id, [left.pop()])
        got.extend(flow.arrived(flow.server))
        return datagram

    network.spy = trickle
    exchange(network, 100_000, streams=2)
    network.settle()
    got += flow.arrived(flow.server)
    assert len(got) == len(set(got)) > 100
    assert set(got) <= set(sent)
    assert flow.client.engine._loss.bytes_in_flight == 0


def test_a_flow_of_another_stream_is_told_apart(flow: Flow) -> None:
    other = open_stream(flow.client)
    flow.client.engine.send_datagrams(flow.id, [b"one"])
    flow.client.engine.send_datagrams(other, [b"two"])
    flow.network.run(0.01)
    assert flow.server.engine.take_datagrams() == {flow.id: [b"one"], other: [b"two"]}


def test_when_packets_shrink_what_is_too_long_is_dropped(flow: Flow) -> None:
    engine = flow.client.engine
    engine._mtu.size = 1400
    engine._use_datagram_size()
    long = flow.room(flow.client)
    engine.send_datagrams(flow.id, [payload(long), b"short"])
    engine._mtu.size = 1200
    engine._use_datagram_size()
    assert flow.room(flow.client) == long - 200
    flow.network.run(0.01)
    assert flow.arrived(flow.server) == [b"short"]
    assert engine._outgoing.dropped == 1


def test_longer_connection_ids_leave_nothing_stuck(flow: Flow) -> None:
    engine = flow.client.engine
    engine.send_datagrams(flow.id, [payload(flow.room(flow.client)), b"short"])
    taken = engine._outgoing
    taken.fit(engine._datagram_room - 4)
    flow.network.run(0.01)
    assert flow.arrived(flow.server) == [b"short"]


@pytest.mark.parametrize("frame", [b"\x31\x05\x00peer", b"\x30datagram"])
def test_a_side_that_does_not_want_datagrams_gets_none(
    make_network: MakeNetwork, frame: bytes
) -> None:
    without = TransportSettings(datagrams=False)
    flow = Flow(make_network(server_settings=without))
    assert flow.room(flow.client) == flow.room(flow.server) == 0
    flow.network.inject(SERVER, forged(flow.client.engine, frame))
    ending = flow.server.engine.ending
    assert ending is not None
    assert ending.error_code == QuicErrorCode.PROTOCOL_VIOLATION  # RFC 9221 section 3


def test_a_datagram_without_length_is_understood(flow: Flow) -> None:
    flow.network.inject(SERVER, forged(flow.client.engine, b"\x30" + varint(0) + b"to the end"))
    assert flow.arrived(flow.server) == [b"to the end"]


def test_datagrams_before_and_behind_other_frames_are_understood(flow: Flow) -> None:
    ping, data = b"\x01", b"\x0e\x00\x00\x05hello"
    one, two = b"\x31\x04\x00one", b"\x31\x04\x00two"
    flow.network.inject(SERVER, forged(flow.client.engine, one + ping + data + two + ping))
    assert flow.arrived(flow.server) == [b"one", b"two"]
    assert flow.server.received[flow.id] == b"hello"


def test_a_datagram_that_is_longer_than_its_packet_ends_the_connection(flow: Flow) -> None:
    flow.network.inject(SERVER, forged(flow.client.engine, b"\x31\x04\x00one\x31\x40\xff\x00two"))
    assert flow.server.engine.ending is not None


# The fast path


def test_a_burst_leaves_as_one_train_and_acknowledgements_cost_no_record() -> None:
    flow = Flow(Network(make_engine=FastEngine, offload=True))
    flow.network.down.cut = True
    flow.client.engine.send_datagrams(flow.id, [bytes(200)] * 45)
    trains = flow.client.engine.trains(flow.network.now)
    assert [len(data) // size for data, size, _ in trains] == [9]
    assert [train.packets for train in flow.client.engine._recovery.trains] == [9]
    slow = flow.client.engine._loss.spaces[2].sent_packets.values()
    assert not any(packet.is_ack_eliciting for packet in slow)


def test_packets_of_different_sizes_share_a_train_only_at_its_end() -> None:
    flow = Flow(Network(make_engine=FastEngine))
    sizes = [1000, 1000, 700, 1000, 1100]
    flow.client.engine.send_datagrams(flow.id, [bytes(size) for size in sizes])
    trains = flow.client.engine.trains(flow.network.now)
    assert [(len(data), size) for data, size, _ in trains] == [
        (2 * 1031 + 731, 1031),
        (1031, 1031),
        (1131, 1131),
    ]


def test_an_answer_carries_the_acknowledgement_of_its_question_on_a_long_path() -> None:
    flow = Flow(Network(make_engine=FastEngine))
    flow.server.engine._loss._rtt_smoothed = 0.02  # the next answer would be too late
    before = flow.network.datagrams
    flow.client.engine.send_datagrams(flow.id, [b"question"])
    flow.network.run(0.0015)
    assert flow.arrived(flow.server) == [b"question"]
    flow.server.engine.send_datagrams(flow.id, [b"answer"])
    flow.network.run(0.0015)
    assert flow.arrived(flow.client) == [b"answer"]
    assert flow.network.datagrams - before == 2
    assert flow.client.engine._loss.bytes_in_flight == 0


def test_what_streams_cannot_use_is_left_to_datagrams() -> None:
    flow = Flow(Network(make_engine=FastEngine))
    engine = flow.client.engine
    engine._streams[flow.id].max_stream_data_remote = 10  # the peer takes no more
    engine.write(flow.id, bytes(100_000), False)
    sent = [bytes(1000)] * 9
    engine.send_datagrams(flow.id, sent)
    flow.network.run(0.002)
    assert flow.arrived(flow.server) == sent
