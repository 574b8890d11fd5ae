"""The QUIC engine: one connection as a sans-IO state machine with raw public keys.

Feed it trains of datagrams, take events and trains to send, ask for the next timer. A *train* is a
buffer of datagrams of one size (the last may be shorter) from or to one address, as UDP
segmentation offload and the relay protocol carry them. Addresses are opaque hashable values.
"""

import hashlib
import hmac
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Self

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    pull_quic_transport_parameters,
)
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace

from tunnel_rs.proto import aioquic_contract
from tunnel_rs.proto.ack_frequency import ACK_FREQUENCY, AckFrequency, min_ack_delay
from tunnel_rs.proto.congestion import registered_name
from tunnel_rs.proto.credentials import Credentials
from tunnel_rs.proto.datagrams import MAX_FRAME, largest_payload
from tunnel_rs.proto.flow_control import DIALLED_WINDOW, INITIAL_STREAM_WINDOW, window_for
from tunnel_rs.proto.mtu_discovery import MtuDiscovery
from tunnel_rs.proto.path_moves import PathMoves
from tunnel_rs.proto.recovery import Recovery
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.proto.traversal import Traversal
from tunnel_rs.values import EndpointId

aioquic_contract.check()

Address = Hashable
Train = tuple[bytes | memoryview, int, Address]
"""Datagrams back to back, the size of each but the last, and where they go."""

CONNECTION_ID_LENGTH = 8
DATAGRAM_SIZE = 1200
STRANGER_WINDOW = 65_536
"""Connection window of a peer that has not been authenticated by the application yet."""

LargestDatagram = Callable[[Address], int]
"""The largest UDP payload worth probing for towards an address."""

ReceiveBuffer = Callable[[Address], int | None]
"""Bytes of datagrams from an address that may wait to be read; None when nothing is known."""

_LARGEST_DATAGRAM = 65_527
_PACKET_OVERHEAD = 1 + 2 + 16  # first byte, packet number, authentication tag; and the peer's id
_MAX_TRAIN = 60_000
_MAX_SEGMENTS = 60
_MAX_CRYPTO = 65_536
"""Most handshake bytes of a peer at each encryption level; aioquic keeps up to 16 MiB of an
unfinished TLS message."""
_MAX_REASON = 256
_CERT_NONE = 0  # as ssl.CERT_NONE: there is no certificate; accept_peer and the proof judge
_MIN_STATELESS_RESET = 21  # RFC 9000 section 10.3
_CIPHER_SUITES = [
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
]
_ONE_RTT = tls.Epoch.ONE_RTT
_FIRST_FLIGHT, _CONNECTED = QuicConnectionState.FIRSTFLIGHT, QuicConnectionState.CONNECTED
_ENDED = (
    QuicConnectionState.CLOSING,
    QuicConnectionState.DRAINING,
    QuicConnectionState.TERMINATED,
)


class ResetTokens:
    """Stateless reset tokens that survive a restart (RFC 9000 section 10.3.2).

    A server that lost its state can end connections of its former life at once; clients need not
    wait for a timeout.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"reset tokens").digest()

    def token(self, connection_id: bytes) -> bytes:
        return hmac.digest(self._key, connection_id, "sha256")[:16]


def _smallest(_: Address) -> int:
    return DATAGRAM_SIZE


def _unknown(_: Address) -> None:
    return None


def _configuration(
    settings: TransportSettings, *, is_client: bool, alpn: str | None
) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=None if alpn is None else [alpn],
        cipher_suites=_CIPHER_SUITES,
        congestion_control_algorithm=registered_name(settings.congestion_controller),
        connection_id_length=CONNECTION_ID_LENGTH,
        idle_timeout=settings.idle_timeout,
        is_client=is_client,
        max_data=min(DIALLED_WINDOW, settings.receive_window) if is_client else STRANGER_WINDOW,
        max_datagram_frame_size=MAX_FRAME if settings.datagrams else None,
        max_datagram_size=DATAGRAM_SIZE,
        max_stream_data=min(INITIAL_STREAM_WINDOW, settings.receive_window),
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=_CERT_NONE,
    )


class Engine(PathMoves):
    """One connection. Call `receive`, then `next_event` until None, then `trains`, then
    `get_timer`; after any other call that changes something, `trains` and `get_timer`."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        settings: TransportSettings,
        identity: Credentials,
        reset_tokens: ResetTokens,
        *,
        accept_peer: Callable[[EndpointId], bool],
        largest_datagram: LargestDatagram,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
        traversal: Traversal | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._settings = settings
        self._traversal = traversal
        self._identity = identity
        self._reset_tokens = reset_tokens
        self._accept_peer = accept_peer
        self._recovery = Recovery.adopt(
            self._loss, max_datagram_size=self._max_datagram_size, on_train=self._on_train
        )
        self._setup_streams(
            stream_window=settings.receive_window,
            connection_window=configuration.max_data,
            streams=0 if self._is_client else settings.max_streams,
        )
        if not self._is_client:
            first = self._host_cids[0]
            first.stateless_reset_token = reset_tokens.token(first.cid)
        self._largest_datagram = largest_datagram
        self.receive_buffer: ReceiveBuffer = _unknown
        """Set it before the handshake is complete."""
        self._granted: int | None = None
        self._is_trusted = False
        self._mtu = MtuDiscovery()
        self._mtu_address: Address = None
        self._peer_largest_datagram = _LARGEST_DATAGRAM
        self._ack_frequency: AckFrequency | None = None
        self._candidates: dict[Address, None] = {}
        self._keep_alive_at: float | None = None
        self._silent_since: float | None = None
        self._silence_timeout = settings.silence_timeout
        self._path_is_down = False
        self._heard_at: float | None = None
        self._key_used_from = 0
        self._first_flight: list[Train] = []
        self._close_datagrams: list[tuple[bytes, Address]] = []
        self._close_repeat_due = False
        self._datagrams_after_close = 0
        self.was_closed_by_peer = False
        self.timed_out = False
        """Ended because nothing was heard from the peer."""
        self.refused_peer: EndpointId | None = None
        """A key the other side showed and `accept_peer` did not want."""

    @classmethod
    def client(
        cls,
        settings: TransportSettings,
        identity: Credentials,
        reset_tokens: ResetTokens,
        *,
        peer: EndpointId,
        alpn: str | None,
        candidates: Iterable[Address],
        now: float,
        largest_datagram: LargestDatagram = _smallest,
        traversal: Traversal | None = None,
    ) -> Self:
        """A connection to `peer`, dialled at all `candidates` (at least one) at once."""
        configuration = _configuration(settings, is_client=True, alpn=alpn)
        identity.configure(configuration, peer=peer)
        engine = cls(
            configuration,
            settings,
            identity,
            reset_tokens,
            accept_peer=peer.__eq__,
            largest_datagram=largest_datagram,
            traversal=traversal,
        )
        engine._candidates = dict.fromkeys(candidates)
        engine.connect(next(iter(engine._candidates)), now)
        return engine

    @classmethod
    def server(
        cls,
        settings: TransportSettings,
        identity: Credentials,
        reset_tokens: ResetTokens,
        *,
        alpn: str | None,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None = None,
        largest_datagram: LargestDatagram = _smallest,
        traversal: Traversal | None = None,
    ) -> Self:
        """A connection somebody opens to us; any key may, the application authenticates."""
        configuration = _configuration(settings, is_client=False, alpn=alpn)
        identity.configure(configuration, peer=None)
        return cls(
            configuration,
            settings,
            identity,
            reset_tokens,
            accept_peer=lambda _: True,
            largest_datagram=largest_datagram,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
            traversal=traversal,
        )

    # Facts

    @property
    def peer(self) -> EndpointId | None:
        """The key the handshake proved; None before that."""
        return self._identity.proven_peer(self.tls) if self._handshake_complete else None

    @property
    def is_client(self) -> bool:
        return self._is_client

    @property
    def is_closing(self) -> bool:
        """Nothing more can be sent or received but a close."""
        state = self._state
        return self._close_pending or (state is not _CONNECTED and state is not _FIRST_FLIGHT)

    @property
    def is_terminated(self) -> bool:
        """The state may be dropped: the closing or draining period is over."""
        return self._state is QuicConnectionState.TERMINATED

    @property
    def ending(self) -> events.ConnectionTerminated | None:
        """Why the connection ends or has ended, as soon as it is known; the event of the same
        content comes only after the closing period. Its `frame_type` is None when an application
        ended it."""
        return self._close_event

    @property
    def address(self) -> Address:
        """Where the peer is reached now."""
        address: Address = self._network_paths[0].addr
        return address

    @property
    def is_pinned(self) -> bool:
        """Whether a valid answer has decided between the candidates."""
        return not self._candidates

    def silent_for(self, now: float) -> float:
        """Seconds since we asked and got no answer; 0.0 when nothing is unanswered."""
        return 0.0 if self._silent_since is None else now - self._silent_since

    @property
    def path_is_down(self) -> bool:
        """Whether `path_lost` was called for the present address."""
        return self._path_is_down

    @property
    def smoothed_rtt(self) -> float:
        """Seconds."""
        return self._recovery.smoothed_rtt

    @property
    def send_window(self) -> int:
        """Most bytes that should be unsent over all streams."""
        return self._settings.send_window

    @property
    def send_target(self) -> int:
        """How many unsent bytes keep the path busy: twice what the window lets fly."""
        return 2 * self._loss.congestion_window

    def largest_datagram_payload(self, stream_id: int) -> int:
        """Most bytes that may accompany the client's stream `stream_id` in one datagram now; 0
        when the peer takes none."""
        limit = self._remote_max_datagram_frame_size or 0
        if not self._settings.datagrams or not limit:
            return 0
        return largest_payload(self._datagram_room, limit, stream_id // 4)

    def send_datagrams(self, stream_id: int, payloads: Sequence[bytes]) -> int:
        """Send payloads of at most `largest_datagram_payload` bytes beside a stream, each once and
        in no order. Returns how many were dropped, because too much waits already."""
        return self._outgoing.add(stream_id // 4, payloads, self._loss.congestion_window)

    def take_datagrams(self) -> dict[int, list[bytes]]:
        """What has come beside streams since the last call, by the stream's id."""
        return {4 * flow: payloads for flow, payloads in self._arrived.take().items()}

    def open_window(self) -> None:
        """Grant the full connection window: the application knows the peer now."""
        self._is_trusted = True
        self._look_at_buffer()

    def consumed(self, stream_id: int, n: int) -> bool:
        if self._granted is not None:
            self._fit_window(self._granted)
        return super().consumed(stream_id, n)

    def _look_at_buffer(self) -> None:
        """The socket may be another one than before."""
        self._granted = self.receive_buffer(self.address)
        if self._is_trusted:
            self._fit_window(self._granted)

    def _fit_window(self, granted: int | None) -> None:
        wanted = self._settings.receive_window
        if granted is not None:
            wanted = window_for(wanted, granted, self.smoothed_rtt)
        self.grow_connection_window(wanted)

    # Dialling

    def add_candidate(self, address: Address) -> list[Train]:
        """Dial `address` too, from now on; returns the first flight for it. Does nothing once an
        answer has decided."""
        if not self._candidates or address in self._candidates:
            return []
        self._candidates[address] = None
        return [(data, size, address) for data, size, _ in self._first_flight]

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        """End the connection; the reason is cut to what fits beside a handshake."""
        reason = reason_phrase.encode()[:_MAX_REASON].decode(errors="ignore")
        super().close(error_code, frame_type, reason)

    def request_key_update(self) -> None:
        """Change the keys with the next packet. Does nothing while it is not known that the peer
        has the current ones (RFC 9001 section 6.1), as it could not follow."""
        space = self._space
        if self._key_used_from == 0 or space.largest_acked_packet >= self._key_used_from:
            self._key_used_from = self._packet_number
            super().request_key_update()

    # The present path

    def path_lost(self) -> None:
        """Nothing can be sent to the present address for now: silence says nothing of the peer, so
        that only the idle timeout ends the connection."""
        self._path_is_down = True

    def tolerate_silence(self) -> None:
        """From now on only the idle timeout ends the connection: the caller sees to silence."""
        self._silence_timeout = None

    def ask(self, now: float) -> None:
        """Make sure that the peer is there: it is asked at once, whatever timers were set. Call it
        too when a path that was lost works again."""
        if self._handshake_confirmed and not self.is_closing:
            self._path_is_down = False
            self._silent_since = None
            self._recovery.probe_at_once(now)

    # Input

    def receive(self, train: memoryview, segment_size: int, address: Address, now: float) -> None:
        """Take in a train of datagrams to one connection id that came from `address`."""
        if not self._is_too_late(now):
            self._take_in(train, segment_size, address, now)

    def _is_too_late(self, now: float) -> bool:
        """Whether the idle timeout is over, and with it the connection. Who was stopped for longer
        finds packets from before, and is not to take them for signs of life."""
        if not self._is_overdue(now):
            return False
        self.handle_timer(now)
        return self.is_terminated

    def _is_overdue(self, now: float) -> bool:
        """Whether the idle timeout is over, and `handle_timer` has yet to hear of it. What is sent
        meanwhile would begin another one."""
        return self._close_at is not None and now > self._close_at and self._state not in _ENDED

    def _take_in(self, train: memoryview, segment_size: int, address: Address, now: float) -> None:
        """What `receive` does, for the path the train belongs to."""
        if self._candidates:
            if address not in self._candidates:
                return
            self._network_paths[0].addr = address
        if self._state in _ENDED:
            self._repeat_close()
            return
        for start in range(0, len(train), segment_size):
            if self.is_closing:
                return
            datagram = bytes(train[start : start + segment_size])
            if self.is_stateless_reset(datagram):
                self._was_reset(datagram, now)
                return
            self.receive_datagram(datagram, address, now)
        if self._candidates and self._state is not QuicConnectionState.FIRSTFLIGHT:
            self._candidates = {}
        if self._heard_at == now:
            self._silent_since = None
            self._keep_alive_at = now + self._keep_alive

    @property
    def _keep_alive(self) -> float:
        return self._keep_alive_within(self._idle_timeout())

    def _keep_alive_within(self, idle_timeout: float) -> float:
        return min(self._settings.keep_alive, idle_timeout / 3)

    def is_stateless_reset(self, datagram: bytes) -> bool:
        """Whether the peer says with it that it has forgotten this connection (RFC 9000 section
        10.3.1). It comes under a made-up connection id. Only the tokens of the peer's ids in use
        are compared."""
        if len(datagram) < _MIN_STATELESS_RESET or datagram[0] & 0x80:
            return False
        tokens = self.probed_reset_tokens()
        if self._peer_cid.stateless_reset_token:
            tokens.append(self._peer_cid.stateless_reset_token)
        return any(hmac.compare_digest(datagram[-16:], token) for token in tokens)

    def _was_reset(self, datagram: bytes, now: float) -> None:
        self._was_forgotten()

    def _was_forgotten(self) -> None:
        self.was_closed_by_peer = True
        self._terminate(QuicErrorCode.NO_ERROR, "the peer has forgotten this connection")

    def _terminate(self, code: int, reason: str) -> None:
        """End at once, without a word to the peer."""
        self._close_event = events.ConnectionTerminated(
            error_code=code, frame_type=QuicFrameType.PADDING, reason_phrase=reason
        )
        self._close_end()

    # Output

    def trains(self, now: float) -> list[Train]:
        """Everything that may leave now."""
        if self._close_repeat_due:
            self._close_repeat_due = False
            return _as_trains(self._close_datagrams)
        if self._state in _ENDED or not self._network_paths:
            return []
        confirmed = self._handshake_confirmed and not self.is_closing
        if confirmed and self._mtu_address != self.address:
            self._begin_path(now)
        trains = self._packets(now)
        if confirmed:
            trains += self._mtu_probe(now)
        if self._ack_eliciting_sent_since_receipt and self._silent_since is None:
            self._silent_since = now
        if self._candidates and trains:
            self._first_flight = trains
            return [(data, size, to) for to in self._candidates for data, size, _ in trains]
        return trains

    @property
    def has_only_heard(self) -> bool:
        """Whether there is nothing to send for what has come since `trains` was called, but an
        acknowledgement that `get_timer` knows of."""
        return False

    def urgent_trains(self, now: float) -> list[Train]:
        """What should not wait for a look at all that may have to be sent; call `trains` later in
        the same turn for the rest."""
        return self.trains(now)

    def _packets(self, now: float) -> list[Train]:
        """All packets that may leave now, but path MTU probes."""
        if not self._has_work(now):
            self._pacing_at = None  # nothing waits for it any more
            return []
        closing = self._close_pending
        datagrams = self.datagrams_to_send(now)
        if closing:
            self._close_datagrams = datagrams
        return _as_trains(datagrams)

    def _begin_path(self, now: float) -> None:
        """The peer is reached at another address than before: nothing is known of that path."""
        moved, self._mtu_address = self._mtu_address is not None, self.address
        wanted = min(self._largest_datagram(self.address), self._peer_largest_datagram)
        self._mtu.restart(wanted)
        self._use_datagram_size()
        self._look_at_buffer()
        if moved:
            self._recovery.restart()
            self.ask(now)

    def _mtu_probe(self, now: float) -> list[Train]:
        """A probe for a larger datagram size, when one is due. It is outside congestion control
        (RFC 9000 section 14.4)."""
        if not self._network_paths[0].is_validated:
            return []
        size = self._mtu.next_probe(now)
        if size is None:
            return []
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version or QuicProtocolVersion.VERSION_1,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[_ONE_RTT])
        builder.start_frame(
            QuicFrameType.PING, handler=self._on_mtu_probe_delivery, handler_args=(size,)
        )
        builder._datagram_needs_padding = True
        datagrams, packets = builder.flush()
        self._packet_number = builder.packet_number
        for packet in packets:
            packet.in_flight = False
            packet.sent_time = now
            self._loss.on_packet_sent(packet=packet, space=self._space)
        return [(datagram, len(datagram), self.address) for datagram in datagrams]

    def _on_mtu_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        if delivery is not QuicDeliveryState.ACKED:
            self._mtu.lost(size)
        elif self._mtu.acknowledged(size):
            self._use_datagram_size()

    def _use_datagram_size(self) -> None:
        self._max_datagram_size = self._mtu.size
        self._recovery.set_datagram_size(self._mtu.size)
        self._outgoing.fit(self._datagram_room)

    @property
    def _datagram_room(self) -> int:
        """Bytes for frames in a 1-RTT packet."""
        return self._max_datagram_size - len(self._peer_cid.cid) - _PACKET_OVERHEAD

    def _has_control_work(self, now: float) -> bool:
        frequency = self._ack_frequency
        if frequency is not None:
            frequency.window_is(self._loss.congestion_window // self._max_datagram_size)
            if frequency.is_due:
                return True
        return super()._has_control_work(now)

    def _write_control_frames(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        super()._write_control_frames(builder, space)
        if self._ack_frequency is not None and self._ack_frequency.is_due:
            buf = builder.start_frame(
                ACK_FREQUENCY,
                capacity=2 + 4 * 8,
                handler=self._on_ack_frequency_delivery,
                handler_args=(self._ack_frequency,),
            )
            buf.push_bytes(self._ack_frequency.next_frame())

    def _on_ack_frequency_delivery(
        self, delivery: QuicDeliveryState, frequency: AckFrequency
    ) -> None:
        if delivery is not QuicDeliveryState.ACKED:
            frequency.is_due = True

    def _repeat_close(self) -> None:
        """Answer packets that cross our close with the close, less and less often
        (RFC 9000 section 10.2.1)."""
        self._datagrams_after_close += 1
        if self._datagrams_after_close.bit_count() == 1:
            self._close_repeat_due = bool(self._close_datagrams)

    # Time

    def get_timer(self) -> float | None:
        """When `handle_timer` wants to be called, on the clock of `now`."""
        timer: float | None
        if self._state is _CONNECTED and self._has_one_space:
            timer = self._established_timer()
        else:
            timer = super().get_timer()
            if timer is None or self._state in _ENDED:
                return timer
        if self._keep_alive_at is not None:
            timer = min(timer, self._keep_alive_at)
        if (ends := self._silence_ends) is not None:
            timer = min(timer, ends)
        return timer

    @property
    def _has_one_space(self) -> bool:
        """The handshake is over, and the address in use is validated."""
        return self._handshake_confirmed and self._network_paths[0].is_validated

    def _established_timer(self) -> float:
        """What aioquic's `get_timer` tells when there is one packet number space and the address
        is validated. It is asked after each batch of packets."""
        timer = self._close_at
        assert timer is not None, "there is an idle timeout from the first packet on"
        self._loss_at = self._recovery.data_timer(self._space)
        for at in (self._space.ack_at, self._loss_at, self._pacing_at):
            if at is not None and at < timer:
                timer = at
        return timer

    @property
    def _silence_ends(self) -> float | None:
        """When a peer that answers nothing is given up."""
        if self._silence_timeout is None or self._silent_since is None or self._path_is_down:
            return None
        return self._silent_since + self._silence_timeout

    def _note_time_out(self) -> None:
        self.timed_out = self.is_terminated
        if self.timed_out and self.ending is not None:
            self.ending.reason_phrase = "nothing was heard for the idle timeout"

    def handle_timer(self, now: float) -> None:
        """Let time pass; `trains` and `next_event` may have something afterwards."""
        if self.is_terminated:
            return
        if self._state in _ENDED:
            super().handle_timer(now)
            return
        if (ends := self._silence_ends) is not None and now >= ends:
            self.timed_out = True
            silence = now - (self._silent_since or now)
            self._terminate(QuicErrorCode.NO_ERROR, f"no answer for {silence:.0f} s")
            return
        super().handle_timer(now)
        self._note_time_out()
        if self._mtu.timed_out(self._recovery.probe_count, now):
            self._use_datagram_size()
        if self._keep_alive_at is not None and now >= self._keep_alive_at:
            self._keep_alive_at = now + self._keep_alive
            self.send_ping(0)

    # aioquic's hooks

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._space = self._spaces[_ONE_RTT]
        self._identity.install(self.tls, is_client=self._is_client, accept_peer=self._judge_peer)

    def _judge_peer(self, claimed: EndpointId) -> bool:
        accepted = self._accept_peer(claimed)
        if not accepted:
            self.refused_peer = claimed
        return accepted

    def _alpn_handler(self, alpn_protocol: str) -> None:
        if not self._is_client:
            self._identity.check_client_offer(self.tls)
        super()._alpn_handler(alpn_protocol)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        parameters = pull_quic_transport_parameters(Buffer(data=data))
        if parameters.ack_delay_exponent is not None:
            # aioquic 1.7.2 reads it and keeps the default.
            self._remote_ack_delay_exponent = parameters.ack_delay_exponent
        if parameters.max_udp_payload_size is not None:
            self._peer_largest_datagram = parameters.max_udp_payload_size
        delay = min_ack_delay(data)
        if delay is not None:
            self._ack_frequency = AckFrequency(delay)
        self._peer_allows_moves = not parameters.disable_active_migration

    def _idle_timeout(self) -> float:
        # RFC 9000 sections 10.1 and 18.2; aioquic takes 0 for a timeout of no time.
        timeout: float = self._configuration.idle_timeout
        theirs = self._remote_max_idle_timeout
        if theirs and theirs < timeout:
            timeout = theirs
        return max(timeout, 3 * self._loss.get_probe_timeout())

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self._heard_at = context.time
        return super()._payload_received(context, plain, crypto_frame_required)

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        if buf.pull_uint_var() >= self._packet_number:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "acknowledges a packet never sent"
            )
        buf.seek(start)
        super()._handle_ack_frame(context, frame_type, buf)

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        stop = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(start)
        if stop > _MAX_CRYPTO:
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too long a handshake"
            )
        super()._handle_crypto_frame(context, frame_type, buf)
        if self._handshake_complete and self._identity.proven_peer(self.tls) is None:
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.certificate_required,
                frame_type,
                "a raw public key is required",
            )

    def _handle_connection_close_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if self._close_event is None:
            self.was_closed_by_peer = True
        super()._handle_connection_close_frame(context, frame_type, buf)

    def _replenish_connection_ids(self) -> None:
        known = {cid.sequence_number for cid in self._host_cids}
        super()._replenish_connection_ids()
        for connection_id in self._host_cids:
            if connection_id.sequence_number not in known:
                _set_reset_token(connection_id, self._reset_tokens)
                # aioquic tells only when the frame has been written, which is after the shell has
                # looked; a peer that uses the id at once would be taken for a stranger.
                self._events.append(events.ConnectionIdIssued(connection_id=connection_id.cid))


def _set_reset_token(connection_id: QuicConnectionId, tokens: ResetTokens) -> None:
    connection_id.stateless_reset_token = tokens.token(connection_id.cid)


def _as_trains(datagrams: list[tuple[bytes, Address]]) -> list[Train]:
    """Join runs of datagrams of one size to one address; a shorter one may end a run."""
    trains: list[Train] = []
    run: list[bytes] = []
    total = 0
    to: Address = None
    for datagram, address in datagrams:
        fits = (
            run
            and address == to
            and len(run[-1]) == len(run[0]) >= len(datagram)
            and len(run) < _MAX_SEGMENTS
            and total + len(datagram) <= _MAX_TRAIN
        )
        if not fits:
            if run:
                trains.append((b"".join(run), len(run[0]), to))
            run, total, to = [], 0, address
        run.append(datagram)
        total += len(datagram)
    if run:
        trains.append((b"".join(run), len(run[0]), to))
    return trains
