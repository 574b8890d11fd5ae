"""The engine with a hand-built path for established STREAM and DATAGRAM traffic.

aioquic spends some 30 microseconds a packet on generality: builders, buffers, one object and one
callback for each packet. In the middle of a transfer nearly all packets are alike: one STREAM frame
each way. These are sealed, opened, accounted for and acknowledged as trains here; everything else
(handshake, control frames, probes, migration, key updates) falls to the code below.
"""

from typing import Any, ClassVar

from aioquic import tls
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.quic.stream import QuicStream

from tunnel_rs.proto import ack_frames
from tunnel_rs.proto.datagrams import DATAGRAM_HEAD
from tunnel_rs.proto.engine import CONNECTION_ID_LENGTH, Address, Train
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.packet_protection import (
    MAX_PACKETS_PER_KEY,
    TrainOpener,
    TrainSealer,
    is_supported,
)
from tunnel_rs.proto.path_context import Path
from tunnel_rs.proto.send_buffer import view
from tunnel_rs.proto.sent_trains import SentTrain
from tunnel_rs.proto.stream_run import StreamRun

MAX_TRAIN = 65_000
"""Bytes of one train; UDP carries at most 65,507."""
MAX_SEGMENTS = 44
"""Datagrams of one train; kernels take 64."""

ACK_EVERY = 32
"""Ack-eliciting packets that are acknowledged at once; few while windows are small."""
_ACK_EVERY_EARLY = 8
_EARLY_PACKETS = 256
_MIN_ACK_DELAY, _MAX_ACK_DELAY = 0.002, 0.010
_LONE_PACKET = 1000
"""Bytes of frames; a peer that sends less has no more to send, and waits for no acknowledgement."""
_LEAD_EVERY = 4
"""Packets that an answer acknowledges at once; before that it leaves them to the next one."""
_MAX_LEAD = 80

_SCRATCH = memoryview(bytearray(MAX_TRAIN))
"""Where trains are sealed; each is copied out before the next one begins."""

_ONE_RTT = tls.Epoch.ONE_RTT
_ACK = bytes([QuicFrameType.ACK])
_STREAM, _FIN, _LEN, _OFF = 0x08, 0x01, 0x02, 0x04
_MAX_HEAD = 25
"""Longest head of a STREAM frame: type, stream id, offset, length."""


class FastEngine(MultipathEngine):
    """See `Engine`."""

    PER_PATH: ClassVar[tuple[str, ...]] = (
        *MultipathEngine.PER_PATH,
        "_ack_early_until",
        "_ack_now",
        "_received_count",
        "_unacknowledged",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_supported = False
        self._sealed_with: tuple[object, int] | None = None
        self._packets_with_key = 0
        self._unacknowledged = 0
        self._received_count = 0
        self._ack_early_until = _EARLY_PACKETS
        self._ack_now = False
        self._streams_turn = False
        self._must_look = True
        """Something has come since `trains` that may be answered."""

    @property
    def has_only_heard(self) -> bool:
        return not (
            self._must_look
            or self._close_pending
            or self._ack_now
            or self._unacknowledged >= _ACK_EVERY_EARLY
            or self._work
            or self._outgoing
            or self._limits_changed
            or self._raised_windows
            or self._ping_pending
            or self._probe_pending
            or self._queue
        )

    # Sending

    def trains(self, now: float) -> list[Train]:
        trains = super().trains(now)
        self._must_look = False
        return trains

    def urgent_trains(self, now: float) -> list[Train]:
        data = self._data_path
        if (
            not self._can_send_trains()
            or self._is_overdue(now)
            or data is not self._path
            or data.drain_at is not None
            or self._mtu_address != self.address
        ):
            return []
        return self._data_trains(now)

    def _packets(self, now: float) -> list[Train]:
        if not self._can_send_trains():
            return super()._packets(now)
        self._schedule_ack(now)
        trains: list[Train] = []
        if self._work or self._outgoing:
            trains = self._data_trains(now)
        else:
            self._pacing_at = None
        if self._has_slow_work(now):
            pacing_at = self._pacing_at
            trains += super()._packets(now)
            if pacing_at is not None:
                self._pacing_at = min(pacing_at, self._pacing_at or pacing_at)
        return trains

    def _can_send_trains(self) -> bool:
        return (
            self._is_supported
            and self._state is QuicConnectionState.CONNECTED
            and not self._close_pending
            and not self._loss._pto_count
            and self._network_paths[0].is_validated
            and not self._pair._update_key_requested
        )

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._pair = self._keys

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        self._is_supported = is_supported(self._pair.send) and is_supported(self._pair.recv)

    def _new_context(self, path: Path) -> dict[str, Any]:
        return super()._new_context(path) | {
            "_ack_early_until": _EARLY_PACKETS,
            "_ack_now": False,
            "_received_count": 0,
            "_unacknowledged": 0,
        }

    def _wants_turn(self, path: Path, now: float) -> bool:
        if path.context["_unacknowledged"] and self._may_send(path):
            return True  # perhaps enough to be acknowledged at once
        return super()._wants_turn(path, now)

    @property
    def _ack_head(self) -> bytes:
        """How an ACK frame about the current path begins."""
        return self._path.ack_head if self._is_multipath else _ACK

    def _has_slow_work(self, now: float) -> bool:
        """Whether the slow path has something to do beside what waits for the window."""
        for stream in self._work:
            if not _is_plain(stream):
                return True
        return self._has_control_work(now)

    def _write_datagrams(self, builder: QuicPacketBuilder) -> None:
        if not self._can_send_trains():
            super()._write_datagrams(builder)

    def _write_streams(self, builder: QuicPacketBuilder) -> None:
        if not self._can_send_trains():
            super()._write_streams(builder)
            return
        plain = {stream: None for stream in self._work if _is_plain(stream)}
        for stream in plain:
            del self._work[stream]
        try:
            super()._write_streams(builder)
        finally:
            self._work.update(plain)

    def _data_trains(self, now: float) -> list[Train]:
        """Trains of DATAGRAM and STREAM packets, as far as windows and pacing allow."""
        size = self._max_datagram_size
        window = self._loss.congestion_window - self._loss.bytes_in_flight
        pacer = self._recovery.pacer
        budget = min(window // size, pacer.available(now))
        trains: list[Train] = []
        self._pacing_at = None
        if budget > 0:
            sealer = self._sealer()
            if self._outgoing:
                # Streams that wait have half of the packets: neither can starve the other.
                self._streams_turn = not self._streams_turn
                share = (budget + self._streams_turn) // 2 if self._work else budget
                budget -= self._datagram_trains(sealer, share, now, trains)
            if self._work:
                budget = self._stream_trains(sealer, budget, now, trains)
                if self._outgoing and budget > 0:  # what streams could not use
                    budget -= self._datagram_trains(sealer, budget, now, trains)
        if (self._work or self._outgoing) and window >= size and budget <= 0:
            self._pacing_at = pacer.next_send_time(now)
        # Freshly built packets restart the idle timer like any other (RFC 9000 section 10.1).
        if trains and not self._ack_eliciting_sent_since_receipt:
            self._ack_eliciting_sent_since_receipt = True
            self._close_at = now + self._idle_timeout()
        return trains

    def _datagram_trains(
        self, sealer: TrainSealer, budget: int, now: float, trains: list[Train]
    ) -> int:
        """Append trains of what waits in datagrams; returns how many packets there are."""
        outgoing, room = self._outgoing, self._datagram_room
        sent = 0
        packets: list[bytes] = []
        total = 0
        while sent < budget and (frames := outgoing.take(room)):
            sent += 1
            # A shorter packet ends a train, a longer one begins the next.
            if packets and (
                not len(packets[-1]) == len(packets[0]) >= len(frames)
                or len(packets) == MAX_SEGMENTS
                or total + self._max_datagram_size > MAX_TRAIN
            ):
                trains.append(self._datagram_train(sealer, packets, now))
                packets, total = [], 0
            packets.append(frames)
            total += len(frames) + sealer.overhead
        if packets:
            trains.append(self._datagram_train(sealer, packets, now))
        elif budget:
            outgoing.fit(room)  # none fits: packets have room for less than when it was queued
        return sent

    def _datagram_train(self, sealer: TrainSealer, packets: list[bytes], now: float) -> Train:
        lead = b""
        if len(packets) == 1:
            lead = self._ack_lead(now, self._datagram_room - len(packets[0]))
            packets[0] = lead + packets[0]
        number = self._packet_number
        end = sealer.seal_each(_SCRATCH, number, packets)
        step = len(packets[0])
        record = SentTrain(
            number,
            number + len(packets),
            None,
            0,
            step,
            len(packets[-1]),
            False,
            step + sealer.overhead,
            now,
            self._space.largest_received_packet if lead else None,
        )
        self._sent(record, end)
        return bytes(_SCRATCH[:end]), record.size, self.address

    def _stream_trains(
        self, sealer: TrainSealer, budget: int, now: float, trains: list[Train]
    ) -> int:
        """Append trains of STREAM packets; returns what is left of `budget`."""
        for stream in list(self._work):
            while budget > 0 and _is_plain(stream) and stream in self._work:
                sent = self._stream_train(sealer, stream, budget, now)
                if sent is None:
                    break
                record, end = sent
                budget -= record.packets
                trains.append((bytes(_SCRATCH[:end]), record.size, self.address))
            if budget <= 0:
                break
        return budget

    def _sealer(self) -> TrainSealer:
        pair = self._pair
        return TrainSealer(
            pair.send,
            key_phase=pair.key_phase,
            spin=self._spin_bit,
            peer_id=self._peer_cid.cid,
            path_id=self._path.id,
        )

    def _stream_train(
        self, sealer: TrainSealer, stream: QuicStream, budget: int, now: float
    ) -> tuple[SentTrain, int] | None:
        """One train of `stream` in our buffer, and where it ends. None when flow control holds it
        back. The stream leaves or changes its place in the service order."""
        sender = stream.sender
        pending = sender._pending[0]
        start = pending.start
        credit = sender.highest_offset + self._remote_max_data - self._remote_max_data_used
        stop = min(pending.stop, stream.max_stream_data_remote, credit)
        if stop <= start:
            del self._work[stream]
            self._flow_blocked[stream] = None
            return None
        stream_id = stream.stream_id
        assert stream_id is not None
        number, size = self._packet_number, self._max_datagram_size
        frame, last_frame, step = _frame_heads(stream_id, size - sealer.overhead)
        segments = min(budget, MAX_SEGMENTS, MAX_TRAIN // size, -(-(stop - start) // step))
        stop = min(stop, start + segments * step)
        fin = stop == sender._buffer_fin
        if not fin:
            last_frame = frame
        lead = self._ack_lead(now, step - (stop - start)) if segments == 1 else b""
        base = start - sender._buffer_start
        with view(sender._buffer, base, base + stop - start) as part:
            end = sealer.seal(_SCRATCH, number, frame, start, part, step, lead + last_frame)
        record = SentTrain(
            number,
            number + segments,
            stream,
            start,
            step,
            stop - start - (segments - 1) * step,
            fin,
            size,
            now,
            self._space.largest_received_packet if lead else None,
        )
        self._took(record, stream)
        self._sent(record, end)
        return record, end

    def _took(self, record: SentTrain, stream: QuicStream) -> None:
        """Account for data that has gone from `stream` into a train."""
        sender = stream.sender
        sender._pending.subtract(record.offset, record.stop)
        if record.stop > sender.highest_offset:
            self._remote_max_data_used += record.stop - sender.highest_offset
            sender.highest_offset = record.stop
        if record.fin:
            sender._pending_eof = False
        del self._work[stream]
        if len(sender._pending) or sender._pending_eof:
            self._work[stream] = None
        else:
            sender.buffer_is_empty = True

    def _sent(self, record: SentTrain, end: int) -> None:
        """Account for a sealed train."""
        self._packet_number = record.end
        self._recovery.on_train_sent(record, self._space)
        self._recovery.pacer.spend(record.sent_bytes)
        self._network_paths[0].bytes_sent += end
        self._count_sealed(record.packets)

    def _count_sealed(self, packets: int) -> None:
        """Update the key long before it has sealed too much (RFC 9001 section 6.6)."""
        pair = self._pair
        key = (pair.send.aead, pair.key_phase)
        if self._sealed_with != key:
            self._sealed_with, self._packets_with_key = key, 0
        self._packets_with_key += packets
        if self._packets_with_key > MAX_PACKETS_PER_KEY:
            self.request_key_update()

    # Receiving

    def _take_in(self, train: memoryview, segment_size: int, address: Address, now: float) -> None:
        if self._path is not self._data_path:
            self._must_look = True
        if not self._can_receive_trains(train, address):
            self._count_slow(train, segment_size)
            super()._take_in(train, segment_size, address, now)
            return
        position = 0
        while position < len(train):
            position += self._receive_plain(train[position:], segment_size, now)
            if position >= len(train) or self.is_closing:
                return
            odd = train[position : position + segment_size]
            self._count_slow(odd, segment_size)
            super()._take_in(odd, segment_size, address, now)
            position += segment_size
            if not self._can_receive_trains(train[position:], address):
                if position < len(train):
                    super()._take_in(train[position:], segment_size, address, now)
                return

    def _count_slow(self, train: memoryview, segment_size: int) -> None:
        self._must_look = True
        self._unacknowledged += -(-len(train) // segment_size)

    def _can_receive_trains(self, train: memoryview, address: Address) -> bool:
        if not self._is_supported or len(train) <= CONNECTION_ID_LENGTH or self.is_closing:
            return False
        paths = self._network_paths
        if not paths or paths[0].addr != address or not paths[0].is_validated:
            return False
        ours = bytes(train[1 : 1 + CONNECTION_ID_LENGTH])
        if not self._is_client:
            # A client that changes the id it uses is dealt with by the slow path, once.
            return ours == self.host_cid
        return any(ours == known.cid for known in self._host_cids)

    def _receive_plain(self, train: memoryview, segment_size: int, now: float) -> int:
        """Take in packets up to the first that is not plain; returns its offset."""
        space = self._space
        opener = TrainOpener(self._pair.recv, CONNECTION_ID_LENGTH, self._path.id)
        opened, stopped = opener.open(train, segment_size, space.expected_packet_number)
        if not opened:
            return stopped
        try:
            eliciting = self._take_opened(opened, train, now)
        except QuicConnectionError as exc:
            self.close(
                error_code=exc.error_code,
                frame_type=exc.frame_type,
                reason_phrase=exc.reason_phrase,
            )
            return len(train)
        if self.is_closing:
            return len(train)
        self._heard(now)
        self._received_count += len(opened)
        self._unacknowledged += eliciting
        if eliciting:
            largest = max(len(opened[0][1]), len(opened[-1][1]))
            due = now + self._ack_patience(largest)
            if space.ack_at is None or due < space.ack_at:
                space.ack_at = due
        return stopped

    def _take_opened(self, opened: list[tuple[int, bytes]], train: memoryview, now: float) -> int:
        """Take in packets; returns how many elicit an acknowledgement."""
        space = self._space
        eliciting = 0
        run: StreamRun | None = None
        first = end = space.largest_received_packet + 1
        for number, frames in opened:
            if number != end or number <= space.largest_received_packet:
                self._note_received(space, first, end, now)
                first = end = number
                if number in space.received_packets:
                    continue
                # A gap, or a packet that fills one: the sender wants to know at once.
                self._ack_now = True
                self._ack_early_until = self._received_count + _EARLY_PACKETS
            end = number + 1
            if run is not None and run.take(frames):
                eliciting += 1
                continue
            said = self._take_ack(frames, now)
            rest = self._take_datagrams(said)
            if not rest and frames:
                eliciting += bool(said)
                continue
            if run is not None:
                self._finish_run(run)
            run = self._begin_run(rest) if len(rest) > _MAX_HEAD else None
            if run is not None:
                eliciting += 1
                continue
            eliciting += self._take_frames(rest, train, now) or len(rest) < len(said)
            if self.is_closing:
                return eliciting
        if run is not None:
            self._finish_run(run)
        self._note_received(space, first, end, now)
        return eliciting

    def _take_ack(self, frames: bytes, now: float) -> bytes:
        """Take in the acknowledgement for this path that a packet begins with; returns what follows
        it. What is wrong or unusual is left to aioquic's parser."""
        head = self._ack_head
        if not frames.startswith(head):
            return frames
        ack = ack_frames.read(frames, len(head))
        if ack is None:
            return frames
        acknowledged, delay, end = ack
        if acknowledged.bounds().stop > self._packet_number:
            return frames  # packets that were never sent
        self._must_look = True  # there may be room for what waits
        self._recovery.on_ack_received(
            ack_rangeset=acknowledged,
            ack_delay=(delay << self._remote_ack_delay_exponent) / 1_000_000,
            now=now,
            space=self._space,
        )
        return frames[end:]

    def _take_datagrams(self, frames: bytes) -> bytes:
        """Take in the DATAGRAM frames a packet begins with; returns what follows them."""
        if frames[:1] != DATAGRAM_HEAD or not self._settings.datagrams:
            return frames
        return frames[self._arrived.add_frames(frames) :]

    def _note_received(self, space: QuicPacketSpace, start: int, end: int, now: float) -> None:
        """Remember packets `start` to `end - 1`, none of which had been received."""
        if start == end:
            return
        if end - 1 > space.largest_received_packet:
            space.largest_received_packet = end - 1
            space.largest_received_time = now
            space.expected_packet_number = end
        window = space.received_packets
        if end - start > 1:
            window._received.update(range(max(start, end - window._size), end - 1))
        window.add(end - 1)
        space.ack_queue.add(start, end)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()

    def _begin_run(self, frames: bytes) -> StreamRun | None:
        """Read a packet of more than `_MAX_HEAD` bytes that is one in-order STREAM frame of a
        stream we know, without FIN. None, and nothing done, for anything else."""
        kind = frames[0]
        if kind & 0xF8 != _STREAM or kind & _FIN or not kind & _OFF:
            return None
        first = frames[1]
        if first < 0x40:
            stream_id, offset_at = first, 2
        else:
            offset_at = 1 + (1 << (first >> 6))
            mask = (1 << (8 * (offset_at - 1) - 2)) - 1
            stream_id = int.from_bytes(frames[1:offset_at], "big") & mask
        stream = self._streams.get(stream_id)
        if stream is None:
            return None
        size = 1 << (frames[offset_at] >> 6)
        at = offset_at + size
        offset = int.from_bytes(frames[offset_at:at], "big") & (1 << (8 * size - 2)) - 1
        data_at = at
        if kind & _LEN:
            size = 1 << (frames[at] >> 6)
            data_at = at + size
            length = int.from_bytes(frames[at:data_at], "big") & (1 << (8 * size - 2)) - 1
            if data_at + length != len(frames):
                return None
        receiver = stream.receiver
        if (
            offset != receiver._buffer_start
            or offset != receiver.highest_offset
            or data_at == len(frames)
            or receiver._buffer
            or receiver._final_size is not None
            or receiver.is_finished
        ):
            return None
        run = StreamRun(
            stream,
            self._local_max_data,
            frames,
            offset_at=offset_at,
            width=at - offset_at,
            data_at=data_at,
        )
        if not run.is_within_limits:
            raise QuicConnectionError(
                error_code=QuicErrorCode.FLOW_CONTROL_ERROR,
                frame_type=kind,
                reason_phrase="Over data limit",
            )
        return run

    def _finish_run(self, run: StreamRun) -> None:
        run.commit()
        stream_id = run.stream.stream_id
        assert stream_id is not None
        data = run.pieces[0] if len(run.pieces) == 1 else b"".join(run.pieces)
        self._events.append(StreamDataReceived(data=data, end_stream=False, stream_id=stream_id))
        if self._connection_window.update(self._local_max_data.used):
            self._limits_changed = True

    def _take_frames(self, frames: bytes, train: memoryview, now: float) -> int:
        """Any other packet: aioquic's parser. Returns 1 when it elicits an acknowledgement."""
        self._must_look = True
        context = QuicReceiveContext(
            epoch=_ONE_RTT,
            host_cid=bytes(train[1 : 1 + CONNECTION_ID_LENGTH]),
            network_path=self._network_paths[0],
            quic_logger_frames=None,
            time=now,
            version=None,
        )
        eliciting, _ = self._payload_received(context, frames)
        return int(eliciting)

    def _heard(self, now: float) -> None:
        if self.is_closing:
            return  # what came has ended the connection, and its time runs
        self._path.heard_at = now
        idle_timeout = self._idle_timeout()
        self._close_at = now + idle_timeout
        self._ack_eliciting_sent_since_receipt = False
        self._silent_since = None
        self._keep_alive_at = now + self._keep_alive_within(idle_timeout)

    # Acknowledging

    def _ack_patience(self, size: int) -> float:
        """Seconds that the acknowledgement of packets of up to `size` bytes may wait for more."""
        if size < _LONE_PACKET:
            return _MAX_ACK_DELAY
        return min(max(_MIN_ACK_DELAY, self.smoothed_rtt / 8), _MAX_ACK_DELAY)

    def _schedule_ack(self, now: float) -> None:
        """At the end of a batch: acknowledge at once on a gap, and when enough has come."""
        if not self._unacknowledged:
            return
        early = self._received_count < self._ack_early_until
        space = self._space
        if space.ack_at is not None and (
            self._ack_now or self._unacknowledged >= (_ACK_EVERY_EARLY if early else ACK_EVERY)
        ):
            space.ack_at = now

    def _ack_lead(self, now: float, room: int) -> bytes:
        """An ACK frame to put before the data of a small packet, so that answers carry the
        acknowledgement of their questions; empty when it does not fit, or when the next answer is
        early enough: reading one costs the peer half as much as the data."""
        space = self._space
        if space.ack_at is None or room < _MAX_LEAD or len(space.ack_queue) > ack_frames.MAX_RANGES:
            return b""
        if space.ack_at > now + self.smoothed_rtt and self._unacknowledged < _LEAD_EVERY:
            return b""
        received = space.largest_received_time
        assert received is not None
        delay = int(max(0.0, now - received) * 1_000_000) >> self._local_ack_delay_exponent
        space.ack_at = None
        self._unacknowledged = 0
        self._ack_now = False
        return ack_frames.write(self._ack_head, space.ack_queue, delay)

    def _write_ack_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float
    ) -> None:
        super()._write_ack_frame(builder=builder, space=space, now=now)
        if space.is_application_data:
            self._unacknowledged = 0
            self._ack_now = False


def _is_plain(stream: QuicStream) -> bool:
    """Whether what the stream has to send next is data for trains."""
    sender = stream.sender
    return (
        len(sender._pending) > 0
        and sender._reset_error_code is None
        and not stream.receiver.stop_pending
        and not stream.is_blocked
    )


def _frame_heads(stream_id: int, room: int) -> tuple[bytes, bytes, int]:
    """Type and stream id of a STREAM frame that fills its packet, without and with FIN, and how
    many data bytes fit in `room`. The offset is always written in 8 bytes."""
    kind = _STREAM | _OFF
    if stream_id < 0x40:
        number = bytes([stream_id])
    elif stream_id < 0x4000_0000:
        number = (stream_id | 0x8000_0000).to_bytes(4, "big")
    else:
        number = (stream_id | 0xC000_0000_0000_0000).to_bytes(8, "big")
    return bytes([kind]) + number, bytes([kind | _FIN]) + number, room - 1 - len(number) - 8
