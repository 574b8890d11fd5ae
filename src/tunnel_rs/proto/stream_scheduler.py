"""Which frames go into the next 1-RTT packet: aioquic's connection, visiting only what has work.

aioquic walks over all streams and limits for each packet, raises windows when bytes arrive and does
not reserve stream ids. This subclass keeps a service order of streams that have something to send,
opens windows when the application has consumed, and reserves ids when they are asked for.
"""

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic.connection import (
    Limit,
    QuicConnection,
    QuicNetworkPath,
    QuicReceiveContext,
    stream_is_client_initiated,
)
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamReset
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import (
    QuicDeliveryState,
    QuicPacketBuilder,
)
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from tunnel_rs.proto.datagrams import ArrivedDatagrams, OutgoingDatagrams
from tunnel_rs.proto.flow_control import ConnectionWindow, StreamWindow
from tunnel_rs.proto.send_buffer import SMALL, SendBuffer
from tunnel_rs.proto.sent_trains import SentTrain

_LIMIT_FRAME_CAPACITY = 9
_STREAM_LIMIT_FRAME_CAPACITY = 17
_ONE_RTT = tls.Epoch.ONE_RTT


def _wants_to_speak(path: QuicNetworkPath) -> bool:
    """Whether frames that belong to one path wait to be sent on it."""
    return bool(path.remote_challenges) or not (path.is_validated or path.local_challenge_sent)


def _id(stream: QuicStream) -> int:
    """A data stream's id; only crypto streams have none."""
    assert stream.stream_id is not None
    return stream.stream_id


class StreamScheduler(QuicConnection):
    """Streams, flow control and 1-RTT packet contents."""

    _space: QuicPacketSpace
    """That of 1-RTT packets."""

    def _setup_streams(self, *, stream_window: int, connection_window: int, streams: int) -> None:
        """Call once after construction, before the handshake. Windows in bytes."""
        initial = min(stream_window, self._configuration.max_stream_data)
        self._stream_window_initial = initial
        self._stream_window_maximum = stream_window
        self._windows: dict[int, StreamWindow] = {}
        self._connection_window = ConnectionWindow(connection_window)
        self._local_max_streams_bidi = Limit(
            frame_type=QuicFrameType.MAX_STREAMS_BIDI, name="max_streams_bidi", value=streams
        )
        self._local_max_streams_uni = Limit(
            frame_type=QuicFrameType.MAX_STREAMS_UNI, name="max_streams_uni", value=0
        )
        self._work: dict[QuicStream, None] = {}
        self._flow_blocked: dict[QuicStream, None] = {}
        self._raised_windows: dict[int, None] = {}
        self._limits_changed = False
        self._outgoing = OutgoingDatagrams()
        self._arrived = ArrivedDatagrams()
        self.total_unsent = 0
        """Bytes written to all streams and not yet acknowledged."""

    # What the application does

    def open_stream(self) -> int | None:
        """Reserve the next bidirectional stream. None while the peer's limit is reached."""
        stream_id = self._local_next_stream_id_bidi
        if stream_id // 4 >= self._remote_max_streams_bidi:
            return None
        self._get_or_create_stream_for_send(stream_id)
        return stream_id

    def has_stream(self, stream_id: int) -> bool:
        """Whether the stream has state here, and may still cause events."""
        return stream_id in self._streams

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, fin: bool) -> None:
        """Queue bytes (copied at once) and, with `fin`, the end of our direction. Writing to a
        stream that was stopped or has finished is dropped."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return
        sender = stream.sender
        if type(sender._buffer) is bytearray and len(sender._buffer) + len(data) > SMALL:
            sender._buffer = SendBuffer(sender._buffer)  # type: ignore[assignment]
        sender.write(data, end_stream=fin)  # type: ignore[arg-type]
        self.total_unsent += len(data)
        self._work[stream] = None

    def release(self) -> None:
        """The connection is over for good: give back what its streams hold, which could wait long
        for the garbage collector."""
        for stream in self._streams.values():
            stream.sender._buffer = bytearray()
            stream.receiver._buffer = bytearray()

    def reset(self, stream_id: int, code: int) -> None:
        """Abort our direction."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender.is_finished:
            return
        if stream.sender._reset_error_code is None:  # else the peer's STOP_SENDING was first
            self.total_unsent -= self.unsent(stream_id)
            stream.sender.reset(code)
            self._flow_blocked.pop(stream, None)
            self._work[stream] = None

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            stream.receiver.stop(code)
            self._work[stream] = None

    @property
    def is_drained(self) -> bool:
        """Whether all written bytes, and ends of directions, have been acknowledged."""
        return not self.total_unsent and all(
            stream.sender._buffer_fin is None
            or stream.sender._reset_error_code is not None
            or stream.sender.is_finished
            for stream in self._streams.values()
        )

    def unsent(self, stream_id: int) -> int:
        """Bytes written and not yet acknowledged."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return len(stream.sender._buffer)

    def consumed(self, stream_id: int, n: int) -> bool:
        """Count n received bytes as passed on; opens the stream's and the connection's window.
        Whether there are limits to tell the peer."""
        self._connection_window.consumed += n
        if self._connection_window.update(self._local_max_data.used):
            self._limits_changed = True
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            self._windows.pop(stream_id, None)
            return self._limits_changed
        window = self._windows.get(stream_id)
        if window is None:
            window = StreamWindow(self._stream_window_initial, self._stream_window_maximum)
            self._windows[stream_id] = window
        if window.consume(n):
            stream.max_stream_data_local = window.limit
            self._raised_windows[stream_id] = None
        return self._limits_changed or bool(self._raised_windows)

    def grow_connection_window(self, size: int) -> None:
        """Trust the peer with a window of `size` bytes over all streams."""
        self._connection_window.trust(size)
        if self._connection_window.update(self._local_max_data.used):
            self._limits_changed = True

    # What the peer does

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        limit = self._local_max_streams_bidi
        used = limit.used
        stream = super()._get_or_create_stream(frame_type, stream_id)
        if limit.used != used and limit.value != limit.sent:
            self._limits_changed = True  # what was not worth telling may be now
        return stream

    def _handle_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        super()._handle_stream_frame(context, frame_type, buf)
        self._after_receiving(buf, start)

    def _handle_reset_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        events_before = len(self._events)
        super()._handle_reset_stream_frame(context, frame_type, buf)
        if len(self._events) > events_before:
            self._write_off_undelivered(self._events[-1])
        self._after_receiving(buf, start)

    def _write_off_undelivered(self, event: QuicEvent) -> None:
        """Bytes below a reset's final size that will never reach the application are consumed."""
        assert isinstance(event, StreamReset)
        receiver = self._streams[event.stream_id].receiver
        assert receiver._final_size is not None
        self._connection_window.consumed += receiver._final_size - receiver._buffer_start

    def _after_receiving(self, buf: Buffer, start: int) -> None:
        if self._connection_window.update(self._local_max_data.used):
            self._limits_changed = True
        end = buf.tell()
        buf.seek(start)
        stream = self._streams.get(buf.pull_uint_var())
        buf.seek(end)
        if stream is not None and stream.is_finished:
            self._forget(stream)

    def _handle_stop_sending_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        known = self._streams.get(stream_id)
        if known is not None and known.sender._reset_error_code is not None:
            buf.pull_uint_var()
            return  # said again, as our acknowledgement was lost; or our reset has crossed it
        buf.seek(start)
        unsent = self.unsent(stream_id)
        super()._handle_stop_sending_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sender.reset_pending:
            self.total_unsent -= unsent
            self._flow_blocked.pop(stream, None)
            self._work[stream] = None

    def _handle_max_data_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        super()._handle_max_data_frame(context, frame_type, buf)
        self._unblock_flow()

    def _handle_max_stream_data_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        super()._handle_max_stream_data_frame(context, frame_type, buf)
        self._unblock_flow()

    def _unblock_flow(self) -> None:
        if self._flow_blocked:
            self._work.update(self._flow_blocked)
            self._flow_blocked.clear()

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        super()._unblock_streams(is_unidirectional)
        self._unblock_flow()

    def _forget(self, stream: QuicStream) -> None:
        """Drop the state of a stream that has ended both ways; the peer may open another."""
        if self._streams.pop(_id(stream), None) is None:
            return
        self._work.pop(stream, None)
        self._flow_blocked.pop(stream, None)
        self._raised_windows.pop(_id(stream), None)
        self._windows.pop(_id(stream), None)
        if stream_is_client_initiated(_id(stream)) != self._is_client:
            self._local_max_streams_bidi.value += 1
            self._limits_changed = True

    def _on_stream_delivery(
        self, delivery: QuicDeliveryState, stream: QuicStream, start: int, stop: int, fin: bool
    ) -> None:
        sender = stream.sender
        before = len(sender._buffer)
        sender.on_data_delivery(delivery, start, stop, fin)
        self.total_unsent -= before - len(sender._buffer)
        if delivery is not QuicDeliveryState.ACKED:
            self._flow_blocked.pop(stream, None)
            self._work[stream] = None
        elif stream.is_finished:
            self._forget(stream)

    def _on_train(self, train: SentTrain, acknowledged: bool) -> None:
        """What `_on_stream_delivery` does, for a train."""
        if acknowledged and train.acknowledges is not None:
            self._space.ack_queue.subtract(0, train.acknowledges + 1)
        if train.stream is None:
            return  # datagrams are not sent again
        sender = train.stream.sender
        in_order = train.offset == sender._buffer_start and not len(sender._acked)
        if acknowledged and in_order and not train.fin and sender._reset_error_code is None:
            size = train.stop - train.offset
            del sender._buffer[:size]
            sender._buffer_start += size
            self.total_unsent -= size
            if sender._buffer_start == sender._buffer_fin and sender._acked_fin:
                sender.is_finished = True
                if train.stream.is_finished:
                    self._forget(train.stream)
        else:
            delivery = QuicDeliveryState.ACKED if acknowledged else QuicDeliveryState.LOST
            self._on_stream_delivery(delivery, train.stream, train.offset, train.stop, train.fin)

    def _on_reset_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        stream.sender.on_reset_delivery(delivery)
        if delivery is not QuicDeliveryState.ACKED:
            self._work[stream] = None
        elif stream.is_finished:
            self._forget(stream)

    def _on_stop_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        if delivery is not QuicDeliveryState.ACKED and not stream.receiver.is_finished:
            stream.receiver.stop_pending = True
            self._work[stream] = None

    # What goes into packets

    def _has_work(self, now: float) -> bool:
        """Whether a transmit pass could produce anything; cheap, errs towards True."""
        if not self._handshake_confirmed or self._close_pending:
            return True
        return bool(self._work or self._outgoing) or self._has_control_work(now)

    def _has_control_work(self, now: float) -> bool:
        """Whether there is anything to send beside data of streams and datagrams."""
        ack_at = self._space.ack_at
        if ack_at is not None and ack_at <= now:
            return True
        # Asked for each packet of a lone exchange: written out, `any` takes four times as long.
        for cid in self._host_cids:
            if not cid.was_sent:
                return True
        for path in self._network_paths:
            if _wants_to_speak(path):
                return True
        return bool(
            self._ping_pending
            or self._probe_pending
            or self._limits_changed
            or self._raised_windows
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or not self._crypto_streams[_ONE_RTT].sender.buffer_is_empty
        )

    def _write_application(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        crypto = self._cryptos[_ONE_RTT]
        if not crypto.send.is_valid():
            return
        self._streams_queue.clear()  # aioquic's service order; ours is _work
        space = self._space
        while True:
            ack_due = space.ack_at is not None and space.ack_at <= now
            if not ack_due:
                self._pacing_at = self._loss._pacer.next_send_time(now=now)
                if self._pacing_at is not None:
                    return
            builder.start_packet(QuicPacketType.ONE_RTT, crypto)
            if ack_due:
                self._write_ack_frame(builder=builder, space=space, now=now)
            if self._handshake_complete:
                self._write_path_frames(builder, network_path, now)
                self._write_control_frames(builder, space)
            self._write_probes(builder, space)
            self._write_datagrams(builder)
            self._write_streams(builder)
            if builder.packet_is_empty:
                return
            self._loss._pacer.update_after_send(now=now)

    def _write_path_frames(
        self, builder: QuicPacketBuilder, path: QuicNetworkPath, now: float
    ) -> None:
        if not (path.is_validated or path.local_challenge_sent):
            self._write_path_challenge_frame(builder=builder, network_path=path)
            if path.validation_deadline is None:
                # RFC 9000 section 8.2.4: three times the larger of both probe timeouts.
                timeout = max(self._loss.get_probe_timeout(), 2 * self._configuration.initial_rtt)
                path.validation_deadline = now + 3 * timeout
        while path.remote_challenges:
            self._write_path_response_frame(builder=builder, challenge=path.remote_challenges[0])
            path.remote_challenges.popleft()

    def _write_control_frames(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        if self._handshake_done_pending:
            self._write_handshake_done_frame(builder=builder)
            self._handshake_done_pending = False
        for connection_id in self._host_cids:
            if not connection_id.was_sent:
                self._write_new_connection_id_frame(builder=builder, connection_id=connection_id)
        while self._retire_connection_ids:
            self._write_retire_connection_id_frame(
                builder=builder, sequence_number=self._retire_connection_ids[0]
            )
            self._retire_connection_ids.pop(0)
        if self._streams_blocked_pending:
            self._write_streams_blocked_frame(
                builder=builder,
                frame_type=QuicFrameType.STREAMS_BLOCKED_BIDI,
                limit=self._remote_max_streams_bidi,
            )
            self._streams_blocked_pending = False
        if self._limits_changed:
            self._write_connection_limits(builder=builder, space=space)
            self._limits_changed = False
        while self._raised_windows:
            stream_id = next(iter(self._raised_windows))
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._write_stream_limits(builder=builder, space=space, stream=stream)
            self._raised_windows.pop(stream_id, None)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        self._local_max_data.value = max(self._local_max_data.value, self._connection_window.limit)
        streams = self._local_max_streams_bidi
        for limit in (self._local_max_data, streams):
            left, granted = limit.sent - limit.used, limit.value - limit.sent
            if granted == 0 or (limit is streams and left >= granted):
                continue  # MAX_STREAMS are batched: told when they double what is left
            buf = builder.start_frame(
                limit.frame_type,
                capacity=_LIMIT_FRAME_CAPACITY,
                handler=self._on_limit_delivery,
                handler_args=(limit,),
            )
            buf.push_uint_var(limit.value)
            limit.sent = limit.value

    def _on_limit_delivery(self, delivery: QuicDeliveryState, limit: Limit) -> None:
        if delivery is not QuicDeliveryState.ACKED:
            limit.sent = 0
            self._limits_changed = True

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        buf = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=_STREAM_LIMIT_FRAME_CAPACITY,
            handler=self._on_stream_limit_delivery,
            handler_args=(stream,),
        )
        buf.push_uint_var(_id(stream))
        buf.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _on_stream_limit_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        if delivery is not QuicDeliveryState.ACKED and not stream.receiver.is_finished:
            self._raised_windows[_id(stream)] = None

    def _write_probes(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        if self._ping_pending:
            self._write_ping_frame(builder, self._ping_pending)
            self._ping_pending.clear()
        if self._probe_pending:
            self._write_ping_frame(builder, comment="probe")
            self._probe_pending = False
        crypto_stream = self._crypto_streams[_ONE_RTT]
        if not crypto_stream.sender.buffer_is_empty:
            self._write_crypto_frame(builder=builder, space=space, stream=crypto_stream)

    def _write_datagrams(self, builder: QuicPacketBuilder) -> None:
        frames = self._outgoing.take(builder.remaining_flight_space)
        if frames:
            buf = builder.start_frame(frames[0], capacity=len(frames))
            buf.push_bytes(frames[1:])

    def _handle_datagram_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        super()._handle_datagram_frame(context, frame_type, buf)
        event = self._events.pop()
        assert isinstance(event, DatagramFrameReceived)
        self._arrived.add(event.data)

    def _write_streams(self, builder: QuicPacketBuilder) -> None:
        work = self._work
        while work:
            stream = next(iter(work))
            if stream.receiver.stop_pending and not stream.receiver.is_finished:
                self._write_stop(builder, stream)
            sender = stream.sender
            if sender.reset_pending:
                self._write_reset(builder, stream)
            if sender.buffer_is_empty or sender._reset_error_code is not None:
                del work[stream]
                continue
            if stream.is_blocked:
                del work[stream]
                self._flow_blocked[stream] = None
                continue
            room = builder.remaining_flight_space - self._stream_overhead(stream)
            if room <= 0:
                return
            if not self._write_stream(builder, stream, room):
                continue
            del work[stream]
            if not sender.buffer_is_empty:
                work[stream] = None  # to the end of the service order

    def _stream_overhead(self, stream: QuicStream) -> int:
        offset = stream.sender.next_offset
        return 3 + size_uint_var(_id(stream)) + (size_uint_var(offset) if offset else 0)

    def _write_stream(self, builder: QuicPacketBuilder, stream: QuicStream, room: int) -> bool:
        """Write one STREAM frame of at most `room` data bytes; False when there was none."""
        sender = stream.sender
        highest = sender.highest_offset
        credit = self._remote_max_data - self._remote_max_data_used
        overhead = self._stream_overhead(stream)
        frame = sender.get_frame(room, min(highest + credit, stream.max_stream_data_remote))
        if frame is None:
            self._work.pop(stream)
            if not sender.buffer_is_empty:
                self._flow_blocked[stream] = None
            return False
        kind = QuicFrameType.STREAM_BASE | 2 | (4 if frame.offset else 0) | int(frame.fin)
        buf = builder.start_frame(
            kind,
            capacity=overhead,
            handler=self._on_stream_delivery,
            handler_args=(stream, frame.offset, frame.offset + len(frame.data), frame.fin),
        )
        buf.push_uint_var(_id(stream))
        if frame.offset:
            buf.push_uint_var(frame.offset)
        buf.push_uint16(len(frame.data) | 0x4000)
        buf.push_bytes(frame.data)
        self._remote_max_data_used += sender.highest_offset - highest
        return True

    def _write_reset(self, builder: QuicPacketBuilder, stream: QuicStream) -> None:
        buf = builder.start_frame(
            QuicFrameType.RESET_STREAM,
            capacity=1 + 3 * 8,
            handler=self._on_reset_delivery,
            handler_args=(stream,),
        )
        frame = stream.sender.get_reset_frame()
        buf.push_uint_var(frame.stream_id)
        buf.push_uint_var(frame.error_code)
        buf.push_uint_var(frame.final_size)

    def _write_stop(self, builder: QuicPacketBuilder, stream: QuicStream) -> None:
        buf = builder.start_frame(
            QuicFrameType.STOP_SENDING,
            capacity=1 + 2 * 8,
            handler=self._on_stop_delivery,
            handler_args=(stream,),
        )
        frame = stream.receiver.get_stop_frame()
        buf.push_uint_var(frame.stream_id)
        buf.push_uint_var(frame.error_code)
