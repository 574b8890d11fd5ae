"""Trains against a model that remembers each packet."""

from dataclasses import dataclass

from aioquic.quic.stream import QuicStream
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.sent_trains import SentTrain, SentTrains

STREAM = QuicStream(stream_id=0)
SIZE, STEP = 1200, 1170


@dataclass(frozen=True)
class Packet:
    """One packet as a train's record describes it."""

    number: int
    offset: int
    length: int
    fin: bool
    size: int
    sent_time: float


def packets(train: SentTrain) -> list[Packet]:
    found = []
    for index in range(train.packets):
        last = index == train.packets - 1
        length = train.last if last else train.step
        found.append(
            Packet(
                train.number + index,
                train.offset + index * train.step,
                length,
                train.fin and last,
                train.size - train.step + length,
                train.sent_time,
            )
        )
    return found


def flat(trains: list[SentTrain]) -> list[Packet]:
    return [packet for train in trains for packet in packets(train)]


@st.composite
def flights(draw: st.DrawFn) -> list[SentTrain]:
    """Trains as a sender makes them: numbers and times rise, with gaps for other packets."""
    number, offset, now = draw(st.integers(1, 50)), 0, 1.0
    trains = []
    for _ in range(draw(st.integers(0, 8))):
        count = draw(st.integers(1, 6))
        last = draw(st.integers(1, STEP))
        fin = draw(st.booleans())
        train = SentTrain(number, number + count, STREAM, offset, STEP, last, fin, SIZE, now)
        trains.append(train)
        number += count + draw(st.integers(0, 3))
        offset = train.stop
        now += draw(st.sampled_from([0.0, 0.01, 0.5]))
    return trains


def filled(trains: list[SentTrain]) -> SentTrains:
    sent = SentTrains()
    for train in trains:
        sent.append(train)
    return sent


def ranges_of(numbers: set[int]) -> list[range]:
    ranges: list[range] = []
    for number in sorted(numbers):
        if ranges and ranges[-1].stop == number:
            ranges[-1] = range(ranges[-1].start, number + 1)
        else:
            ranges.append(range(number, number + 1))
    return ranges


def test_the_size_of_a_train_is_that_of_its_datagrams() -> None:
    train = SentTrain(7, 10, STREAM, 100, STEP, 5, True, SIZE, 1.0)
    assert (train.packets, train.stop, train.sent_bytes) == (3, 100 + 2 * STEP + 5, 2 * SIZE + 35)
    assert sum(packet.size for packet in packets(train)) == train.sent_bytes


@given(flights(), st.sets(st.integers(0, 90)))
def test_an_acknowledgement_takes_exactly_the_packets_it_covers(
    trains: list[SentTrain], numbers: set[int]
) -> None:
    sent = filled(trains)
    acked = sent.take_acknowledged(ranges_of(numbers))
    everything = flat(trains)
    assert flat(acked) == [packet for packet in everything if packet.number in numbers]
    assert flat(list(sent)) == [packet for packet in everything if packet.number not in numbers]


@given(flights(), st.lists(st.sets(st.integers(0, 90)), max_size=5))
def test_nothing_is_acknowledged_twice_or_forgotten(
    trains: list[SentTrain], rounds: list[set[int]]
) -> None:
    sent = filled(trains)
    acked = [p for numbers in rounds for p in flat(sent.take_acknowledged(ranges_of(numbers)))]
    assert sorted(acked + flat(list(sent)), key=lambda p: p.number) == flat(trains)


@given(flights(), st.integers(0, 90), st.sampled_from([0.0, 1.0, 1.01, 1.5, 9.0]))
def test_losses_are_those_of_the_rfc(
    trains: list[SentTrain], largest: int, sent_before: float
) -> None:
    sent = filled(trains)
    lost, oldest = sent.take_lost(largest, 3, sent_before)
    everything = flat(trains)
    expected = [
        packet
        for packet in everything
        if packet.number <= largest - 3
        or (packet.number <= largest and packet.sent_time <= sent_before)
    ]
    assert flat(lost) == expected
    rest = [packet for packet in everything if packet not in expected]
    assert flat(list(sent)) == rest
    may_be_lost = [packet.sent_time for packet in rest if packet.number <= largest]
    assert oldest == (min(may_be_lost) if may_be_lost else None)


@given(flights(), st.lists(st.integers(1, 4), max_size=20))
def test_the_oldest_packets_come_first(trains: list[SentTrain], counts: list[int]) -> None:
    sent = filled(trains)
    taken: list[Packet] = []
    for count in counts:
        train = sent.take_first(count)
        if train is None:
            assert len(sent) == 0 and sent.oldest is None
            break
        assert train.packets <= count
        taken += packets(train)
    assert taken + flat(list(sent)) == flat(trains)


def test_clearing_leaves_nothing() -> None:
    sent = filled([SentTrain(1, 3, STREAM, 0, STEP, STEP, False, SIZE, 1.0)])
    assert sent.oldest is not None
    sent.clear()
    assert len(sent) == 0 and sent.take_first(1) is None
