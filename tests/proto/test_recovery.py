"""Loss recovery of packets and trains side by side (RFC 9002)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.conftest import MakeNetwork
from tests.support.engines import SERVER, Network, open_stream, payload

from tunnel_rs.proto.congestion import registered_name
from tunnel_rs.proto.recovery import MAX_PROBE_INTERVAL, Recovery
from tunnel_rs.proto.sent_trains import SentTrain
from tunnel_rs.proto.transport_settings import CongestionController

SIZE, STEP = 1200, 1160
STREAM = QuicStream(stream_id=0)
RTT = 0.1


@dataclass
class Sender:
    """A recovery in the middle of a connection, and what it told."""

    acked: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    probes: int = 0
    number: int = 10
    now: float = 100.0

    def __post_init__(self) -> None:
        plain = QuicPacketRecovery(
            congestion_control_algorithm=registered_name(CongestionController.CUBIC),
            initial_rtt=0.1,
            max_datagram_size=SIZE,
            peer_completed_address_validation=True,
            send_probe=self.probe,
        )
        self.recovery = Recovery.adopt(plain, max_datagram_size=SIZE, on_train=self.on_train)
        self.space = QuicPacketSpace(is_application_data=True)
        self.recovery.spaces = [self.space]
        self.recovery.handshake_confirmed = True

    def probe(self) -> None:
        self.probes += 1

    def on_train(self, train: SentTrain, acknowledged: bool) -> None:
        numbers = set(range(train.number, train.end))
        self.tell(numbers, acknowledged)

    def on_packet(self, delivery: QuicDeliveryState, number: int) -> None:
        self.tell({number}, delivery is QuicDeliveryState.ACKED)

    def tell(self, numbers: set[int], acknowledged: bool) -> None:
        assert not numbers & (self.acked | self.lost), "told twice"
        (self.acked if acknowledged else self.lost).update(numbers)

    def send_train(self, count: int) -> range:
        first, self.number = self.number, self.number + count
        train = SentTrain(
            first, self.number, STREAM, first * STEP, STEP, STEP, False, SIZE, self.now
        )
        self.recovery.on_train_sent(train, self.space)
        return range(first, self.number)

    def send_packet(self, *, eliciting: bool = True) -> int:
        number, self.number = self.number, self.number + 1
        packet = QuicSentPacket(
            epoch=Epoch.ONE_RTT,
            in_flight=eliciting,
            is_ack_eliciting=eliciting,
            is_crypto_packet=False,
            packet_number=number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=self.now,
            sent_bytes=50,
            delivery_handlers=[(self.on_packet, (number,))],
        )
        self.recovery.on_packet_sent(packet=packet, space=self.space)
        return number

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def hear(self, numbers: Iterable[int], ack_delay: float = 0.0) -> None:
        ranges = RangeSet()
        for number in numbers:
            ranges.add(number)
        self.recovery.on_ack_received(
            ack_rangeset=ranges, ack_delay=ack_delay, now=self.now, space=self.space
        )

    def timer(self) -> float | None:
        return self.recovery.get_loss_detection_time()

    def fire(self) -> None:
        """Let the timer run out."""
        due = self.timer()
        assert due is not None
        self.now = max(self.now, due)
        self.recovery.on_loss_detection_timeout(now=self.now)

    @property
    def window(self) -> int:
        return self.recovery.congestion_window

    @property
    def in_flight(self) -> int:
        return self.recovery.bytes_in_flight


@pytest.fixture
def sender() -> Sender:
    """A sender that has one round trip behind it."""
    made = Sender()
    first = made.send_packet()
    made.wait(RTT)
    made.hear([first])
    made.acked.clear()
    return made


# Acknowledgements


def test_packets_and_trains_of_one_acknowledgement_are_all_acknowledged(sender: Sender) -> None:
    """Also a packet that is far below the largest: it is no loss when it is named itself."""
    packet = sender.send_packet()
    train = sender.send_train(20)
    window = sender.window
    sender.wait(RTT)
    sender.hear([packet, *train])
    assert sender.acked == {packet, *train} and not sender.lost
    assert sender.window >= window and sender.in_flight == 0
    assert sender.space.ack_eliciting_in_flight == 0


def test_trains_between_packets_are_not_lost_when_the_last_packet_is_newest(
    sender: Sender,
) -> None:
    train = sender.send_train(20)
    packets = [sender.send_packet() for _ in range(5)]
    sender.wait(RTT)
    sender.hear([*train, *packets])
    assert not sender.lost and sender.in_flight == 0


def test_an_old_acknowledgement_does_nothing(sender: Sender) -> None:
    train = sender.send_train(5)
    sender.wait(RTT)
    sender.hear(train)
    before = sender.window, sender.recovery.smoothed_rtt
    sender.wait(5)
    sender.hear(train)
    assert (sender.window, sender.recovery.smoothed_rtt) == before


def test_the_round_trip_is_smoothed_as_the_rfc_says(sender: Sender) -> None:
    """RFC 9002 section 5.3, for packets and trains alike."""
    smoothed, variance = sender.recovery._rtt_smoothed, sender.recovery._rtt_variance
    assert smoothed == pytest.approx(RTT) and variance == pytest.approx(RTT / 2)
    for latest in (0.3, 0.3, 0.12, 0.5):
        newest = sender.send_train(1)[0] if latest != 0.12 else sender.send_packet()
        sender.wait(latest)
        sender.hear([newest], ack_delay=0.01)
        adjusted = latest - 0.01
        variance = 3 / 4 * variance + 1 / 4 * abs(smoothed - adjusted)
        smoothed = 7 / 8 * smoothed + 1 / 8 * adjusted
        assert sender.recovery._rtt_variance == pytest.approx(variance)
        assert sender.recovery.smoothed_rtt == pytest.approx(smoothed)


def test_a_claimed_delay_is_capped_and_never_hides_the_path(sender: Sender) -> None:
    for claimed, adjusted in ((5.0, 0.3 - 0.025), (5.0, RTT)):
        smoothed = sender.recovery.smoothed_rtt
        train = sender.send_train(1)
        sender.wait(0.3 if adjusted > RTT else RTT)
        sender.hear(train, ack_delay=claimed)
        assert sender.recovery.smoothed_rtt == pytest.approx(7 / 8 * smoothed + adjusted / 8)


def test_only_the_newest_packet_measures_the_round_trip(sender: Sender) -> None:
    train = sender.send_train(3)
    sender.wait(RTT)
    sender.hear([train[2]])
    smoothed = sender.recovery.smoothed_rtt
    sender.wait(0.001)
    sender.hear([train[1], train[2]])
    assert sender.recovery.smoothed_rtt == smoothed


# Loss


def test_three_packets_behind_are_lost(sender: Sender) -> None:
    train = sender.send_train(10)
    sender.wait(RTT)
    sender.hear([train[5]])
    assert sender.lost == set(train[:3])
    assert sender.acked == {train[5]}
    assert sender.in_flight == 6 * SIZE


def test_a_packet_is_lost_by_trains_and_a_train_by_packets(sender: Sender) -> None:
    packet = sender.send_packet()
    train = sender.send_train(4)
    sender.wait(RTT)
    sender.hear([train[3]])
    assert sender.lost == {packet, train[0]}
    packets = [sender.send_packet() for _ in range(3)]
    sender.hear([packets[2]])
    assert set(train[1:3]) <= sender.lost


def test_what_is_sent_long_before_is_lost_in_time(sender: Sender) -> None:
    """RFC 9002 section 6.1.2: 9/8 of a round trip."""
    train = sender.send_train(2)
    sender.wait(0.01)
    newest = sender.send_packet()
    sender.wait(0.09)
    sender.hear([newest])
    assert not sender.lost
    due = sender.timer()
    smoothed = sender.recovery.smoothed_rtt
    assert due == pytest.approx(100.1 + 9 / 8 * max(smoothed, 0.09))
    sender.fire()
    assert sender.lost == set(train) and sender.timer() is None


@given(st.floats(0.0, 1e7), st.floats(0.001, 2.0), st.floats(0.0, 0.5))
def test_a_loss_timer_that_fires_finds_something_lost(start: float, rtt: float, gap: float) -> None:
    """Whatever the sums of seconds round to; a timer that finds nothing would fire for ever."""
    sender = Sender(now=start)
    old = sender.send_packet()
    train = sender.send_train(1)
    sender.wait(gap)
    newest = sender.send_packet()
    sender.wait(rtt)
    sender.hear([newest])
    for _ in range(2):
        if sender.timer() is None:
            break
        sender.fire()
    assert sender.lost == {old, *train}


def test_a_loss_shrinks_the_window_once(sender: Sender) -> None:
    window = sender.window
    packet = sender.send_packet()
    train = sender.send_train(8)
    sender.wait(RTT)
    sender.hear([train[7]])
    assert packet in sender.lost and len(sender.lost) == 6
    assert sender.window == pytest.approx(0.7 * window, abs=2 * SIZE)


# Persistent congestion (section 7.6)


def lose_everything(sender: Sender, seconds: float, trains: int) -> None:
    for _ in range(trains):
        sender.send_train(4)
        sender.wait(seconds / (trains - 1))
    newest = sender.send_train(4)
    sender.wait(RTT)
    sender.hear([newest[3]])


def duration(sender: Sender) -> float:
    return 3 * sender.recovery.get_probe_timeout()


def test_losing_everything_for_long_is_persistent_congestion(sender: Sender) -> None:
    lose_everything(sender, 1.2 * duration(sender), 3)
    assert sender.window == 2 * SIZE


def test_losing_everything_for_a_while_is_not(sender: Sender) -> None:
    lose_everything(sender, 0.8 * duration(sender), 3)
    assert sender.window > 2 * SIZE


def test_something_that_arrived_between_ends_the_period(sender: Sender) -> None:
    long = 1.2 * duration(sender)
    sender.send_train(4)
    sender.wait(long / 2)
    middle = sender.send_train(4)
    sender.wait(long / 2)
    sender.send_train(4)
    newest = sender.send_train(4)
    sender.wait(RTT)
    sender.hear([middle[2], newest[3]])
    assert sender.window > 2 * SIZE


def test_what_was_sent_before_the_first_round_trip_does_not_count() -> None:
    sender = Sender()
    first = sender.send_packet()
    sender.send_train(4)
    sender.wait(RTT)
    sender.hear([first])
    lose_everything(sender, 0.8 * duration(sender), 3)
    assert sender.window > 2 * SIZE


# Probes


def test_a_silent_path_is_probed_with_the_oldest_data(sender: Sender) -> None:
    train = sender.send_train(5)
    window = sender.window
    expected = sender.now + sender.recovery.get_probe_timeout()
    assert sender.timer() == pytest.approx(expected)
    sender.fire()
    assert sender.probes == 1 and sender.recovery.is_probing
    assert sender.lost == {train[0]}
    assert sender.window == window  # no sign of congestion yet
    assert sender.in_flight == 4 * SIZE


def test_an_older_packet_is_probed_before_a_train(sender: Sender) -> None:
    packet = sender.send_packet()
    sender.send_train(5)
    sender.fire()
    assert sender.lost == {packet}


def test_a_train_is_probed_before_a_younger_packet(sender: Sender) -> None:
    train = sender.send_train(2)
    sender.send_packet()
    sender.fire()
    assert sender.lost == {train[0]}


def test_probes_back_off_to_two_seconds(sender: Sender) -> None:
    sender.send_train(50)
    waits = []
    for _ in range(12):
        before = sender.now
        sender.fire()
        sender.send_packet()
        waits.append(sender.now - before)
    timeout = sender.recovery.get_probe_timeout()
    assert waits[:3] == pytest.approx([timeout, 2 * timeout, 4 * timeout])
    assert waits[5:] == pytest.approx([MAX_PROBE_INTERVAL] * 7)


def test_an_endless_outage_does_not_overflow(sender: Sender) -> None:
    for _ in range(3000):
        sender.send_packet()
        sender.fire()
    due = sender.timer()
    sender.send_packet()
    assert due is None or due - sender.now <= MAX_PROBE_INTERVAL


def test_an_answer_ends_the_probing(sender: Sender) -> None:
    train = sender.send_train(5)
    sender.fire()
    sender.wait(0.01)
    sender.hear([train[4]])
    assert not sender.recovery.is_probing and sender.recovery.probe_count == 0


def test_nothing_in_flight_needs_no_timer(sender: Sender) -> None:
    assert sender.timer() is None
    sender.send_packet(eliciting=False)
    assert sender.timer() is None


# Everything at once


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = st.sampled_from(["train", "packet", "ack packet", "wait", "hear", "fire"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 1 << 20)), min_size=5, max_size=60))


@given(histories())
def test_each_packet_meets_its_fate_exactly_once(history: list[tuple[str, int]]) -> None:
    sender = Sender()
    sent: dict[int, int] = {}
    for kind, value in history:
        if kind == "train":
            sent.update(dict.fromkeys(sender.send_train(1 + value % 9), SIZE))
        elif kind == "packet":
            sent[sender.send_packet()] = 50
        elif kind == "ack packet":
            number = sender.send_packet(eliciting=False)
            sent[number] = 0
        elif kind == "wait":
            sender.wait((value % 1000) / 2000)
        elif kind == "hear" and sent:
            numbers = sorted(sent)
            known = numbers[-1 - value % len(numbers)]
            sender.hear([n for n in numbers if n <= known and (value >> n % 16) & 1 or n == known])
        elif kind == "fire" and sender.timer() is not None:
            sender.fire()
        fated = sender.acked | sender.lost
        assert sender.in_flight == sum(size for n, size in sent.items() if n not in fated)
        assert sender.space.ack_eliciting_in_flight == sum(
            size > 0 for n, size in sent.items() if n not in fated
        )
        assert sender.window >= 2 * SIZE
    if sent:
        sender.wait(60)
        last = sender.send_packet()
        sender.wait(60)
        sender.hear([last])
        assert sender.acked | sender.lost == {*sent, last}
        assert sender.in_flight == 0 and not sender.space.sent_packets


def test_a_discarded_space_is_forgotten(sender: Sender) -> None:
    sender.send_train(5)
    sender.send_packet()
    sender.recovery.discard_space(sender.space)
    assert len(sender.recovery.trains) == 0 and sender.timer() is None


def test_the_datagram_size_reaches_pacer_and_controller(sender: Sender) -> None:
    sender.recovery.set_datagram_size(1452)
    assert sender.recovery.pacer._datagram_size == 1452
    sender.recovery._cc.on_persistent_congestion()
    assert sender.window == 2 * 1452


# Packets that are late


def test_a_window_that_shrank_for_a_late_packet_grows_back(sender: Sender) -> None:
    window = sender.window
    train = sender.send_train(8)
    sender.wait(RTT)
    sender.hear([train[7]])
    assert sender.lost == set(train[:5]) and sender.window < window
    sender.wait(0.001)
    sender.hear(train[3:])
    assert sender.window < window  # three are still missing
    sender.hear(train)
    assert sender.window >= window


def test_after_one_late_packet_the_next_is_waited_for(sender: Sender) -> None:
    for turn in range(2):
        late = sender.send_packet()
        train = sender.send_train(40)
        sender.wait(RTT)
        sender.hear(train)
        assert (late in sender.lost) == (turn == 0)
        sender.wait(0.03)
        sender.hear([late, *train])
    assert late in sender.acked and len(sender.lost) == 1


def test_a_packet_that_never_comes_is_lost_in_time_also_to_a_patient_sender(
    sender: Sender,
) -> None:
    for late in (0.03, None):
        packet = sender.send_packet()
        train = sender.send_train(40)
        sender.wait(RTT)
        sender.hear(train)
        if late:
            sender.wait(late)
            sender.hear([packet, *train])
    sent = sender.now - RTT
    assert packet not in sender.lost
    sender.fire()
    assert packet in sender.lost and sender.now < sent + 2 * RTT


# On a connection


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_the_lost_end_of_a_train_comes_again_after_a_probe_timeout(
    make_network: MakeNetwork, lost: int
) -> None:
    network = make_network()
    network.up.delay = network.down.delay = 0.02
    client, server = network.connect()
    network.settle()
    stream = open_stream(client)
    client.engine.write(stream, b"x", False)
    network.settle()
    arrived: list[bytes] = []
    total = 8

    def drop_the_end(to: str, datagram: bytes) -> bytes | None:
        if to == SERVER and len(datagram) > 600:
            arrived.append(datagram)
            return None if total - lost < len(arrived) <= total else datagram
        return datagram

    network.spy = drop_the_end
    client.engine.write(stream, payload(total * 1150), True)
    start = network.now
    timeout = client.engine._recovery.get_probe_timeout()
    network.run(5, lambda: stream in server.ended)
    assert server.received[stream] == b"x" + payload(total * 1150)
    assert network.now - start < 0.04 + 2 * timeout + 0.15


def test_a_long_transfer_without_loss_sees_none(make_network: MakeNetwork) -> None:
    """Window updates and acknowledgements on both sides are no reason to see losses."""
    network = make_network()
    network.up.delay = network.down.delay = 0.01
    client, server = network.connect()
    server.engine.open_window()
    client.engine.open_window()
    network.settle()
    stream = open_stream(client)
    client.engine.write(stream, payload(1_500_000), True)
    network.run(0.021)
    server.engine.write(stream, payload(1_500_000), True)
    network.run(30, lambda: stream in server.ended and stream in client.ended)
    for peer in (client, server):
        assert peer.received[stream] == payload(1_500_000)
        control = peer.engine._loss._cc
        assert control.ssthresh is None or control.ssthresh == control.congestion_window
        assert peer.engine._packet_number < 3500


def seconds_for_five_megabytes(network: Network) -> float:
    """At 200 Mbit/s; 0.2 would be the line's."""
    for wire in (network.up, network.down):
        wire.rate, wire.queue, wire.delay = 25e6, 500_000, 0.01
    client, server = network.connect()
    server.engine.open_window()
    network.settle()
    stream, start = open_stream(client), network.now
    client.engine.write(stream, payload(5_000_000), True)
    network.run(60, lambda: stream in server.ended)
    assert server.received[stream] == payload(5_000_000)
    return network.now - start


def test_datagrams_that_are_overtaken_cost_little_speed(make_network: MakeNetwork) -> None:
    """One in 200 is 3 ms late, which is some fifty datagrams."""
    network = make_network()
    network.up.late_share, network.up.late = 0.005, 0.003
    assert seconds_for_five_megabytes(network) < 1.4 * seconds_for_five_megabytes(make_network())
