"""What is known of packets in flight, one record for each train instead of each packet."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aioquic.quic.stream import QuicStream


@dataclass(slots=True)
class SentTrain:
    """Packets `number` to `end - 1`, each one STREAM frame of `step` bytes of `stream`, in order
    from `offset`; the last carries `last` bytes and, with `fin`, the end of the stream. `size` is
    the full datagram's size, `sent_time` in seconds. With `stream` None the packets hold DATAGRAM
    frames, `step` bytes of them each and `last` in the last one. `acknowledges` is the largest
    packet number that an ACK frame in it tells of; only trains of one packet carry one."""

    number: int
    end: int
    stream: QuicStream | None
    offset: int
    step: int
    last: int
    fin: bool
    size: int
    sent_time: float
    acknowledges: int | None = None

    @property
    def packets(self) -> int:
        return self.end - self.number

    @property
    def stop(self) -> int:
        """Stream offset behind the last byte."""
        return self.offset + (self.end - self.number - 1) * self.step + self.last

    @property
    def sent_bytes(self) -> int:
        return (self.end - self.number) * self.size - (self.step - self.last)

    def part(self, number: int, end: int) -> "SentTrain":
        """The record of packets `number` to `end - 1` of this train."""
        if number == self.number and end == self.end:
            return self
        is_tail = end == self.end
        return SentTrain(
            number,
            end,
            self.stream,
            self.offset + (number - self.number) * self.step,
            self.step,
            self.last if is_tail else self.step,
            self.fin and is_tail,
            self.size,
            self.sent_time,
        )


class SentTrains:
    """The trains in flight, by packet number."""

    __slots__ = ("_trains",)

    def __init__(self) -> None:
        self._trains: deque[SentTrain] = deque()

    def __len__(self) -> int:
        return len(self._trains)

    def __iter__(self) -> Iterator[SentTrain]:
        return iter(self._trains)

    def append(self, train: SentTrain) -> None:
        self._trains.append(train)

    @property
    def oldest(self) -> SentTrain | None:
        return self._trains[0] if self._trains else None

    def take_acknowledged(self, ranges: Iterable[range]) -> list[SentTrain]:
        """Remove and return what `ranges` (ascending, disjoint) cover, by packet number."""
        pending = list(ranges)
        trains, acked, kept = self._trains, [], []
        index = 0
        largest = pending[-1].stop - 1 if pending else -1
        while trains and trains[0].number <= largest:
            train = trains.popleft()
            while index < len(pending) and pending[index].stop <= train.number:
                index += 1
            position, at = train.number, index
            while position < train.end:
                if at == len(pending) or pending[at].start >= train.end:
                    kept.append(train.part(position, train.end))
                    break
                covered = pending[at]
                if covered.start > position:
                    kept.append(train.part(position, covered.start))
                    position = covered.start
                end = min(covered.stop, train.end)
                acked.append(train.part(position, end))
                position = end
                at += 1
        trains.extendleft(reversed(kept))
        return acked

    def take_lost(
        self, largest_acked: int, packet_threshold: int, sent_before: float
    ) -> tuple[list[SentTrain], float | None]:
        """Remove and return what is lost by RFC 9002 section 6.1: packets numbered up to
        `largest_acked - packet_threshold`, and those up to `largest_acked` sent at or before
        `sent_before`. Also the send time of the oldest packet that may be lost later."""
        lost: list[SentTrain] = []
        trains = self._trains
        while trains and trains[0].number <= largest_acked:
            train = trains[0]
            bound = (
                largest_acked
                if train.sent_time <= sent_before
                else (largest_acked - packet_threshold)
            )
            end = min(train.end, bound + 1)
            if end <= train.number:
                return lost, train.sent_time
            trains.popleft()
            lost.append(train.part(train.number, end))
            if end < train.end:
                trains.appendleft(train.part(end, train.end))
        return lost, None

    def take_first(self, packets: int) -> SentTrain | None:
        """Remove and return up to `packets` of the oldest train."""
        if not self._trains:
            return None
        train = self._trains.popleft()
        end = min(train.end, train.number + packets)
        if end < train.end:
            self._trains.appendleft(train.part(end, train.end))
        return train.part(train.number, end)

    def clear(self) -> None:
        self._trains.clear()
