"""What is sent because there are several paths: control frames, acknowledgements per path, and
packets on paths that carry no data (spec `multipath.md` sections 2 to 5).

Frames about paths go reliably on the data path. Challenges, their answers, acknowledgements and
probes of a path go on that path, outside congestion control: they are few and bounded.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aioquic import tls
from aioquic.buffer import UINT_VAR_MAX_SIZE, size_uint_var
from aioquic.quic.connection import ACK_FRAME_CAPACITY, QuicNetworkPath
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    push_ack_frame,
)
from aioquic.quic.packet_builder import (
    QuicDeliveryState,
    QuicPacketBuilder,
    QuicPacketBuilderStop,
)
from aioquic.quic.recovery import QuicPacketSpace

from tunnel_rs.proto.engine import DATAGRAM_SIZE, Address, Train
from tunnel_rs.proto.multipath_frames import FrameType, encode_numbers
from tunnel_rs.proto.path_context import Path, PathContext

MAX_QUEUED = 512
"""Control frames that wait or are sent again. A peer that makes us say more than it acknowledges
is cut off."""

MAX_OFF_PATH = 32
"""Answers to challenges from addresses that are no path's; more in one batch are not answered."""

MAX_FAREWELLS = 8

MAX_CHALLENGES = 8
"""Challenges of one path that an answer is waited for."""

MAX_MEASUREMENTS = 3
"""Challenges in a row on a validated path; one that does not answer them is not measured."""

MAX_CHALLENGE_INTERVAL = 2.0
"""Seconds between challenges of a path that does not answer; they begin a probe timeout apart."""

_MAX_BACKOFF = 8
_AMPLIFICATION = 3
_SMALLEST_PACKET = 40
_ACK_OF_ACK_EVERY = 8  # as aioquic
_PATH_ACK_CAPACITY = ACK_FRAME_CAPACITY + UINT_VAR_MAX_SIZE

_ONE_RTT = tls.Epoch.ONE_RTT


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """A frame to be sent until it is acknowledged, or until it `matters` no longer."""

    kind: int
    payload: bytes
    matters: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True)
class OffPathAnswer:
    """A PATH_RESPONSE owed to an address that is not its path's. `room`: most bytes to send there,
    three times what came from there (RFC 9000 section 8.1)."""

    path: Path
    address: Address
    token: bytes
    room: int


class PathOutput(PathContext):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue: deque[ControlFrame] = deque()
        self._off_path: deque[OffPathAnswer] = deque()
        self._farewells: deque[tuple[Path, bytes]] = deque(maxlen=MAX_FAREWELLS)
        self._now = 0.0
        """The time of the last call that was given one."""

    # Control frames

    def _say(self, kind: int, payload: bytes, matters: Callable[[], bool] = _always) -> None:
        """Send a frame about paths, reliably."""
        self._queue.append(ControlFrame(kind, payload, matters))
        if len(self._queue) <= MAX_QUEUED:
            return
        self._queue = deque(frame for frame in self._queue if frame.matters())
        if len(self._queue) > MAX_QUEUED:
            self._queue.clear()
            self.close(
                QuicErrorCode.INTERNAL_ERROR, kind, "the peer does not acknowledge control frames"
            )

    def _on_control_delivery(self, delivery: QuicDeliveryState, frame: ControlFrame) -> None:
        if delivery is not QuicDeliveryState.ACKED and frame.matters():
            self._say(frame.kind, frame.payload, frame.matters)

    def _write_control_frames(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        super()._write_control_frames(builder, space)
        if self._is_multipath:
            self._write_queue(builder)

    def _write_queue(self, builder: QuicPacketBuilder) -> None:
        queue = self._queue
        while queue:
            frame = queue[0]
            if not frame.matters():
                queue.popleft()
                continue
            try:
                buf = builder.start_frame(
                    frame.kind,
                    capacity=size_uint_var(frame.kind) + len(frame.payload),
                    handler=self._on_control_delivery,
                    handler_args=(frame,),
                )
            except QuicPacketBuilderStop:
                if builder.packet_is_empty:
                    raise  # there is no room at all
                builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
                continue
            buf.push_bytes(frame.payload)
            queue.popleft()

    # Acknowledgements

    def _write_ack_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float
    ) -> None:
        if not len(space.ack_queue):
            space.ack_at = None  # a later acknowledgement of ours has covered it and arrived
        elif self._is_multipath and self._handshake_confirmed and space.is_application_data:
            self._write_path_ack(builder, self._path.id, space, now)
        else:
            super()._write_ack_frame(builder=builder, space=space, now=now)

    def _write_path_ack(
        self, builder: QuicPacketBuilder, path_id: int, space: QuicPacketSpace, now: float
    ) -> None:
        received = space.largest_received_time
        assert received is not None
        delay = int(max(0.0, now - received) * 1_000_000) >> self._local_ack_delay_exponent
        # Begun as an ACK: for the builder only that neither elicits an answer nor is in flight.
        buf = builder.start_frame(
            QuicFrameType.ACK,
            capacity=_PATH_ACK_CAPACITY,
            handler=self._on_ack_delivery,
            handler_args=(space, space.largest_received_packet),
        )
        buf.seek(buf.tell() - 1)
        buf.push_uint_var(FrameType.PATH_ACK)
        buf.push_uint_var(path_id)
        ranges = push_ack_frame(buf, space.ack_queue, delay, builder.remaining_buffer_space)
        space.ack_at = None
        if ranges > 1 and builder.packet_number % _ACK_OF_ACK_EVERY == 0:
            self._write_ping_frame(builder, comment="ACK-of-ACK trigger")

    def _amplification_blocked_timers(self) -> tuple[bool, bool]:
        ack_blocked, probe_blocked = super()._amplification_blocked_timers()
        if self._is_multipath and self._handshake_confirmed:
            # Ours are longer than what aioquic reckons with.
            needed = _SMALLEST_PACKET + _PATH_ACK_CAPACITY
            ack_blocked = not self._network_paths[0].can_send(needed)
        return ack_blocked, probe_blocked

    def _write_drained_acks(self, builder: QuicPacketBuilder) -> None:
        """What still came in on abandoned paths is acknowledged at once, on the data path."""
        for path in self._live:
            if path.drain_at is None or path is self._path:
                continue
            space = path.space
            if space is None or space.ack_at is None:
                continue
            if len(space.ack_queue):
                self._write_path_ack(builder, path.id, space, self._now)
            space.ack_at = None

    def _drained_ack_trains(self, now: float) -> list[Train]:
        """They wait neither for the window nor for the pacer of the data path, which is current."""
        builder = self._builder(DATAGRAM_SIZE)
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
        try:
            self._write_drained_acks(builder)
        except QuicPacketBuilderStop:
            pass  # many at once: the rest has its turn next
        return self._flushed(builder, self._network_paths[0], now)

    def _owes_drained_acks(self) -> bool:
        return any(
            path.drain_at is not None and path.space is not None and path.space.ack_at is not None
            for path in self._live
        )

    # Challenges

    def _write_path_frames(
        self, builder: QuicPacketBuilder, path: QuicNetworkPath, now: float
    ) -> None:
        if not self._is_multipath:
            super()._write_path_frames(builder, path, now)

    def _write_challenge(self, builder: QuicPacketBuilder, path: Path, now: float) -> None:
        used = path.network_paths[0]
        self._write_path_challenge_frame(builder=builder, network_path=used)
        token = used.local_challenges[-1]
        if len(path.challenges) >= MAX_CHALLENGES:
            del path.challenges[next(iter(path.challenges))]
        path.challenges[token] = (now, path.address)
        interval = self._loss.get_probe_timeout() * 2 ** min(path.challenge_count, _MAX_BACKOFF)
        path.challenge_count += 1
        path.challenge_at = now + min(interval, MAX_CHALLENGE_INTERVAL)
        if path.is_validated and path.challenge_count >= MAX_MEASUREMENTS:
            path.challenge_at = None

    def _on_path_challenge_delivery(
        self, delivery: QuicDeliveryState, network_path: QuicNetworkPath
    ) -> None:
        if not self._is_multipath:  # else a schedule tells when the next is due
            super()._on_path_challenge_delivery(delivery, network_path)

    # Packets

    def _builder(self, size: int) -> QuicPacketBuilder:
        """For one packet on the current path that is built by hand."""
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version or QuicProtocolVersion.VERSION_1,
        )
        return builder

    def _may_send(self, path: Path) -> bool:
        """Whether a packet may leave on it: the peer gave an id for it, and the amplification
        limit of an address that is not validated has room (RFC 9000 section 8)."""
        if self._peer_id(path) is None or path.drain_at is not None:
            return False
        used = path.network_paths[0]
        return bool(
            self._is_client
            or used.is_validated
            or used.bytes_sent + _SMALLEST_PACKET <= _AMPLIFICATION * used.bytes_received
        )

    def _speaks_at(self, path: Path) -> float | None:
        """When a path that carries no data has something to send: 0.0 when that is now."""
        probing = self._probe_pending if path is self._path else path.context["_probe_pending"]
        if probing or path.pings or path.network_paths[0].remote_challenges:
            return 0.0
        space = path.space
        assert space is not None
        ack, challenge = space.ack_at, path.challenge_at
        if ack is None or challenge is None:
            return ack if challenge is None else challenge
        return min(ack, challenge)

    def _schedule_ack(self, now: float) -> None:
        """Acknowledge at once what should not wait; the fast path knows."""

    def _wants_turn(self, path: Path, now: float) -> bool:
        """Whether a path that is not current may have something to send now."""
        due = self._speaks_at(path)
        return due is not None and due <= now and self._may_send(path)

    def _idle_path_trains(self, path: Path, now: float) -> list[Train]:
        """All that a path without data has to send; it is made current."""
        self._enter(path)
        self._schedule_ack(now)
        due = self._speaks_at(path)
        if due is None or due > now or not self._may_send(path):
            return []
        used, space = path.network_paths[0], self._space
        builder = self._builder(DATAGRAM_SIZE)
        if not (self._is_client or used.is_validated):
            builder.max_total_bytes = _AMPLIFICATION * used.bytes_received - used.bytes_sent
        try:
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
            if space.ack_at is not None and space.ack_at <= now:
                self._write_ack_frame(builder=builder, space=space, now=now)
            self._write_validation(builder, path, now)
            if self._ping_pending or self._probe_pending:
                self._write_ping_frame(builder, self._ping_pending)
                self._ping_pending.clear()
                self._probe_pending = False
        except QuicPacketBuilderStop:
            pass
        return self._flushed(builder, used, now)

    def _validation_trains(self, path: Path, now: float) -> list[Train]:
        """Challenges and their answers on the data path, which is current. They wait neither for
        the window nor for the pacer."""
        used = path.network_paths[0]
        challenges = path.challenge_at is not None and path.challenge_at <= now
        if not (challenges or used.remote_challenges) or not self._may_send(path):
            return []
        builder = self._builder(DATAGRAM_SIZE)
        if not (self._is_client or used.is_validated):
            builder.max_total_bytes = _AMPLIFICATION * used.bytes_received - used.bytes_sent
        try:
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
            self._write_validation(builder, path, now)
        except QuicPacketBuilderStop:
            pass
        return self._flushed(builder, used, now)

    def _write_validation(self, builder: QuicPacketBuilder, path: Path, now: float) -> None:
        if path.challenge_at is not None and path.challenge_at <= now:
            self._write_challenge(builder, path, now)
        answers = path.network_paths[0].remote_challenges
        while answers:
            self._write_path_response_frame(builder=builder, challenge=answers[0])
            answers.popleft()

    def _flushed(
        self, builder: QuicPacketBuilder, used: QuicNetworkPath, now: float
    ) -> list[Train]:
        datagrams = self._flush_builder(
            builder=builder, network_path=used, peer_cid=self._peer_cid.cid, now=now
        )
        return [(datagram, len(datagram), address) for datagram, address in datagrams]

    def _last_words(self, path: Path, now: float) -> list[Train]:
        """Control frames and acknowledgements on an abandoned path, when nothing else is left."""
        space = self._space
        acks = space.ack_at is not None and space.ack_at <= now
        if not (self._queue or acks or self._owes_drained_acks()) or self._peer_id(path) is None:
            return []
        builder = self._builder(DATAGRAM_SIZE)
        try:
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
            if acks:
                self._write_ack_frame(builder=builder, space=space, now=now)
            self._write_drained_acks(builder)
            self._write_queue(builder)
        except QuicPacketBuilderStop:
            pass
        return self._flushed(builder, path.network_paths[0], now)

    # To addresses that are no path's

    def _off_path_train(
        self, path: Path, address: Address, frames: list[tuple[int, bytes]], *, fill: int
    ) -> list[Train]:
        """One packet of frames that nothing depends on with the id and keys of `path`, outside
        recovery and congestion control, padded to `fill` bytes. Makes `path` current."""
        self._enter(path)
        sizes = [size_uint_var(kind) + len(payload) for kind, payload in frames]
        builder = self._builder(max(fill, _SMALLEST_PACKET + sum(sizes)))
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
        for (kind, payload), size in zip(frames, sizes, strict=True):
            builder.start_frame(kind, capacity=size).push_bytes(payload)
        builder._datagram_needs_padding = fill > 0
        datagrams, _ = builder.flush()
        self._packet_number = builder.packet_number
        return [(datagram, len(datagram), address) for datagram in datagrams]

    def _say_farewell(self, path: Path, code: int) -> None:
        """Tell the peer on `path` itself, too, that we leave it. What carries data may be dead
        without our having noticed, and the peer is not to move to where we no longer are."""
        if path.network_paths[0].is_validated and self._peer_id(path) is not None:
            self._farewells.append((path, encode_numbers(path.id, code)))

    def _farewell_trains(self) -> list[Train]:
        trains: list[Train] = []
        while self._farewells:
            path, payload = self._farewells.popleft()
            frame = int(FrameType.PATH_ABANDON), payload
            trains += self._off_path_train(path, path.address, [frame], fill=0)
        return trains

    def _off_path_answers(self) -> list[Train]:
        trains: list[Train] = []
        while self._off_path:
            answer = self._off_path.popleft()
            path = answer.path
            if path.drain_at is not None or self._peer_id(path) is None:
                path = self._data_path
            frames = [(int(QuicFrameType.PATH_RESPONSE), answer.token)]
            frames += self._beside_answer(answer)
            trains += self._off_path_train(
                path, answer.address, frames, fill=min(DATAGRAM_SIZE, answer.room)
            )
        return trains

    def _beside_answer(self, answer: OffPathAnswer) -> list[tuple[int, bytes]]:
        """Probing frames to send in the same packet."""
        return []
