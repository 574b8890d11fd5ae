"""Loss recovery (RFC 9002): aioquic's for single packets, and the same rules for trains."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import (
    K_PERSISTENT_CONGESTION_THRESHOLD,
    QuicPacketRecovery,
    QuicPacketSpace,
)

from tunnel_rs.proto.congestion import Sent, WindowControl
from tunnel_rs.proto.pacer import Pacer
from tunnel_rs.proto.reordering import Reordering
from tunnel_rs.proto.sent_trains import SentTrain, SentTrains

MAX_PROBE_INTERVAL = 2.0
"""Longest wait between two probes, seconds. RFC 9002 section 6.2 doubles without end, so that a
path which comes back after an outage would be noticed minutes later; noq caps it here too."""

_MIN_RTT = 0.001  # as aioquic
_MAX_BACKOFF = 16
_ALL = 1 << 62
_TICK = 0.000_001
"""A loss timer that is due finds its packet lost, however sums of seconds are rounded."""


class Recovery(QuicPacketRecovery):
    """Made from aioquic's by `adopt`. `on_train` is told what became of each (part of a) train:
    True for acknowledged, False for lost."""

    trains: SentTrains
    reordering: Reordering
    answered_at: float
    """When something was last acknowledged."""
    on_train: Callable[[SentTrain, bool], None]

    @classmethod
    def adopt(
        cls,
        recovery: QuicPacketRecovery,
        *,
        max_datagram_size: int,
        on_train: Callable[[SentTrain, bool], None],
    ) -> "Recovery":
        """Turn a fresh aioquic recovery into ours; how it is made is aioquic's business."""
        recovery.__class__ = cls
        assert isinstance(recovery, Recovery)
        recovery._pacer = Pacer(max_datagram_size=max_datagram_size)  # type: ignore[assignment]
        recovery.trains = SentTrains()
        recovery.reordering = Reordering()
        recovery.answered_at = -math.inf
        recovery.on_train = on_train
        return recovery

    @property
    def pacer(self) -> Pacer:
        pacer: object = self._pacer
        assert isinstance(pacer, Pacer)
        return pacer

    @property
    def _control(self) -> WindowControl:
        control: object = self._cc
        assert isinstance(control, WindowControl)
        return control

    @property
    def smoothed_rtt(self) -> float:
        """Seconds; the initial guess before the first sample."""
        return self._rtt_smoothed if self._rtt_initialized else self._rtt_initial

    @property
    def probe_count(self) -> int:
        """Probe timeouts in a row."""
        return self._pto_count

    def set_datagram_size(self, size: int) -> None:
        """Count windows and bursts in datagrams of `size` from now on."""
        self.pacer.set_datagram_size(size)
        self._control.set_datagram_size(size)

    @property
    def is_probing(self) -> bool:
        """A probe timeout has fired and nothing has been acknowledged since."""
        return self._pto_count > 0

    def restart(self) -> None:
        """Begin anew, for another path (RFC 9000 section 9.4)."""
        self._pto_count = 0
        self._rtt_initialized = False
        self._rtt_min = math.inf
        self._rtt_latest = self._rtt_smoothed = self._rtt_variance = 0.0
        self.reordering.restart()
        self._control.restart()

    def learn_rtt(self, now: float, rtt: float) -> None:
        """A round trip in seconds that was measured otherwise, when there is no sample yet."""
        if not self._rtt_initialized:
            self._sample_rtt(now, rtt, 0.0)

    def forgive(self) -> None:
        """Probe timeouts so far say nothing of what comes: the backoff begins anew."""
        self._pto_count = 0

    def give_up(self, now: float) -> None:
        """Nothing is in flight any more: all goes back to be sent again, on another path."""
        self._pto_count = 0
        self.hand_over(now)

    def hand_over(self, now: float) -> None:
        """As `give_up`, on a path that is kept and asked on."""
        for space in self.spaces:
            packets = list(space.sent_packets.values())
            self._on_packets_lost(congestion_event=False, now=now, packets=packets, space=space)
            space.loss_time = None
            if not space.is_application_data:
                continue
            while (train := self.trains.take_first(_ALL)) is not None:
                space.ack_eliciting_in_flight -= train.packets
                self._cc.on_packets_expired(packets=[train])  # type: ignore[list-item]
                self.on_train(train, False)

    def probe_at_once(self, now: float) -> None:
        """Send a probe, as if its timeout had come; the backoff begins anew."""
        self._pto_count = 0
        self.reschedule_data(now=now)

    def get_loss_detection_time(self, *, amplification_limited: bool = False) -> float | None:
        due = super().get_loss_detection_time(amplification_limited=amplification_limited)
        if due is None or self._pto_count == 0 or self._get_loss_space() is not None:
            return due
        return min(due, self._time_of_last_sent_ack_eliciting_packet + MAX_PROBE_INTERVAL)

    def data_timer(self, space: QuicPacketSpace) -> float | None:
        """`get_loss_detection_time` once the handshake is confirmed: `space` is the only one left,
        and nothing limits what may be sent."""
        if space.loss_time is not None:
            loss_time: float = space.loss_time
            return loss_time
        if not space.ack_eliciting_in_flight:
            return None
        sent_at: float = self._time_of_last_sent_ack_eliciting_packet
        timeout: float = self.get_probe_timeout()
        if self._pto_count:
            timeout = min(timeout * 2**self._pto_count, MAX_PROBE_INTERVAL)
        return sent_at + timeout

    def on_train_sent(self, train: SentTrain, space: QuicPacketSpace) -> None:
        """Account for a train that has just been built."""
        self.trains.append(train)
        space.ack_eliciting_in_flight += train.packets
        self._time_of_last_sent_ack_eliciting_packet = train.sent_time
        self._cc.on_packet_sent(packet=train)  # type: ignore[arg-type]

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        # One pass over packets and trains, and only then a look at what is lost: packets that this
        # very acknowledgement covers must not be taken for lost.
        largest = ack_rangeset.bounds().stop - 1
        if space.is_application_data and self.reordering.is_watching:
            self._look_for_late(ack_rangeset, largest, now)
        acked: list[Sent] = []
        newest = -1
        is_eliciting = False
        if space.is_application_data and self.trains:
            for train in self.trains.take_acknowledged(ack_rangeset):
                acked.append(train)
                newest, is_eliciting = train.end - 1, True
                space.ack_eliciting_in_flight -= train.packets
                self._cc.on_packet_acked(now=now, packet=train)  # type: ignore[arg-type]
                self.on_train(train, True)
        packets = space.sent_packets
        for packet in _take_acknowledged(packets, ack_rangeset) if packets else ():
            acked.append(packet)
            newest = max(newest, packet.packet_number)
            if packet.is_ack_eliciting:
                is_eliciting = True
                space.ack_eliciting_in_flight -= 1
            if packet.in_flight:
                self._cc.on_packet_acked(now=now, packet=packet)
            for handler, args in packet.delivery_handlers:
                handler(QuicDeliveryState.ACKED, *args)
        if not acked:
            return
        self.answered_at = now
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        if newest == largest and is_eliciting:
            sent_time = max(packet.sent_time or 0.0 for packet in acked)
            self._sample_rtt(now, now - sent_time, ack_delay)
        self._detect_loss(now=now, space=space)
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def on_loss_detection_timeout(self, *, now: float) -> None:
        super().on_loss_detection_timeout(now=now)
        self._pto_count = min(self._pto_count, _MAX_BACKOFF)  # 2 to its power is a float

    def _sample_rtt(self, now: float, latest: float, ack_delay: float) -> None:
        """RFC 9002 section 5. (aioquic 1.7.2 takes the variance against the smallest round trip
        instead of the smoothed one, and so waits far too long on a path with queues.)"""
        ack_delay = min(ack_delay, self.max_ack_delay)
        self._rtt_latest = max(latest, _MIN_RTT)
        self._rtt_min = min(self._rtt_min, self._rtt_latest)
        if self._rtt_latest > self._rtt_min + ack_delay:
            self._rtt_latest -= ack_delay
        if self._rtt_initialized:
            difference = abs(self._rtt_smoothed - self._rtt_latest)
            self._rtt_variance += (difference - self._rtt_variance) / 4
            self._rtt_smoothed += (self._rtt_latest - self._rtt_smoothed) / 8
        else:
            self._rtt_initialized = True
            self._rtt_first_sample_time = now
            self._rtt_variance = latest / 2
            self._rtt_smoothed = latest
        self._cc.on_rtt_measurement(now=now, rtt=latest)
        self._update_pacer()

    def _update_pacer(self) -> None:
        self._pacer.update_rate(
            congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed
        )

    def _look_for_late(self, ranges: RangeSet, largest: int, now: float) -> None:
        """What was declared lost and is acknowledged after all was late."""
        if self.reordering.acknowledge(ranges, largest=largest, now=now, rtt=self._longest_rtt):
            self._control.undo_loss()
            self._update_pacer()

    @property
    def _longest_rtt(self) -> float:
        """What losses in time are measured by (RFC 9002 section 6.1.2)."""
        if not self._rtt_initialized:
            return self._rtt_initial
        return max(self._rtt_latest, self._rtt_smoothed)

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        now += _TICK
        if not space.is_application_data:
            super()._detect_loss(now=now, space=space)
            return
        space.loss_time = None
        if not space.sent_packets and not self.trains:
            return
        delay = self.reordering.loss_delay(self._longest_rtt)
        if space.sent_packets:
            self._detect_lost_packets(now, delay, space)
        lost, oldest_sent = self.trains.take_lost(
            space.largest_acked_packet, self.reordering.packet_threshold, now - delay
        )
        if oldest_sent is not None:
            due = oldest_sent + delay
            space.loss_time = due if space.loss_time is None else min(space.loss_time, due)
        if lost:
            self._lose(lost, now, space)

    def _detect_lost_packets(self, now: float, delay: float, space: QuicPacketSpace) -> None:
        largest = space.largest_acked_packet
        threshold, sent_before = largest - self.reordering.packet_threshold, now - delay
        lost: list[QuicSentPacket] = []
        for number, packet in space.sent_packets.items():
            if number > largest:
                break
            assert packet.sent_time is not None
            if number <= threshold or packet.sent_time <= sent_before:
                lost.append(packet)
            elif space.loss_time is None or space.loss_time > packet.sent_time + delay:
                space.loss_time = packet.sent_time + delay
        if not lost:
            return
        recovery_start = self._control.recovery_start
        self._on_packets_lost(
            now=now,
            packets=lost,
            persistent_congestion=self._in_persistent_congestion(packets=lost),
            space=space,
        )
        self._watch_for(
            [
                (packet.packet_number, packet.packet_number + 1, packet.sent_time or 0.0)
                for packet in lost
                if packet.in_flight
            ],
            recovery_start,
            now,
        )

    def _lose(self, lost: Sequence[SentTrain], now: float, space: QuicPacketSpace) -> None:
        packets: Sequence[Sent] = lost
        recovery_start = self._control.recovery_start
        self._cc.on_packets_lost(now=now, packets=packets)  # type: ignore[arg-type]
        if self._is_persistent(lost):
            self._cc.on_persistent_congestion()
        self._update_pacer()
        for train in lost:
            space.ack_eliciting_in_flight -= train.packets
            self.on_train(train, False)
        numbers = [(train.number, train.end, train.sent_time) for train in lost]
        self._watch_for(numbers, recovery_start, now)

    def _watch_for(
        self, lost: Iterable[tuple[int, int, float]], recovery_start: float, now: float
    ) -> None:
        """Packets from, below and sent at, just declared lost, may be late; the window shrank for
        them if the recovery period is no longer the one that began at `recovery_start`."""
        if self._control.recovery_start != recovery_start:
            self.reordering.begin_event()
        rtt = self._longest_rtt
        for number, end, sent_time in lost:
            self.reordering.declare(number, end, sent_time, now=now, rtt=rtt)

    def _is_persistent(self, lost: Sequence[SentTrain]) -> bool:
        """RFC 9002 section 7.6.2; a gap in numbers may hide an acknowledgement and ends a run."""
        if not self._rtt_initialized:
            return False
        duration = self.get_probe_timeout() * K_PERSISTENT_CONGESTION_THRESHOLD
        start, expected = float("inf"), -1
        for train in lost:
            if train.sent_time > self._rtt_first_sample_time:
                if train.number != expected or start == float("inf"):
                    start = train.sent_time
                elif train.sent_time - start > duration:
                    return True
            expected = train.end
        return False

    def reschedule_data(self, *, now: float, speed_up_handshake: bool = False) -> None:
        oldest = self.trains.oldest
        if oldest is None or speed_up_handshake or self._has_older_packet(oldest):
            super().reschedule_data(now=now, speed_up_handshake=speed_up_handshake)
            return
        # A probe carries the oldest data again (RFC 9002 section 6.2.4). As in aioquic the packet
        # counts as gone, but not as a sign of congestion.
        train = self.trains.take_first(1)
        assert train is not None
        for space in self.spaces:
            if space.is_application_data:
                space.ack_eliciting_in_flight -= train.packets
        self._cc.on_packets_expired(packets=[train])  # type: ignore[list-item]
        self.on_train(train, False)
        self._send_probe()

    def _has_older_packet(self, oldest: SentTrain) -> bool:
        return any(
            packet.is_crypto_packet
            or (packet.is_ack_eliciting and packet.packet_number < oldest.number)
            for space in self.spaces
            for packet in space.sent_packets.values()
        )

    def discard_space(self, space: QuicPacketSpace) -> None:
        if space.is_application_data:
            self.trains.clear()
        super().discard_space(space)


def _take_acknowledged(
    packets: dict[int, QuicSentPacket], ranges: Iterable[range]
) -> list[QuicSentPacket]:
    """Remove and return what `ranges` (ascending) cover of `packets` (in order of number)."""
    numbers = list(packets)
    taken: list[QuicSentPacket] = []
    for covered in ranges:
        start = bisect_left(numbers, covered.start)
        stop = bisect_left(numbers, covered.stop, start)
        taken += [packets.pop(number) for number in numbers[start:stop]]
    return taken
