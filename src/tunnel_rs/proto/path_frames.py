"""What the peer says of paths, and on which of them (draft-ietf-quic-multipath sections 3 and 4;
spec `multipath.md` sections 2 to 4). Whatever breaks a rule closes the connection.
"""

from collections.abc import Callable
from functools import partial

from aioquic import tls
from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import (
    NON_ACK_ELICITING_FRAME_TYPES,
    PROBING_FRAME_TYPES,
    QuicErrorCode,
    QuicFrameType,
    pull_ack_frame,
)
from aioquic.quic.stream import StreamFinishedError

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.aioquic_contract import FRAME_HANDLERS
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.multipath_frames import (
    MAX_PATH_ID,
    RESET_TOKEN_SIZE,
    FrameType,
    MultipathParameters,
    NewConnectionId,
    numbers,
)
from tunnel_rs.proto.path_context import Path
from tunnel_rs.proto.path_output import MAX_OFF_PATH, OffPathAnswer
from tunnel_rs.proto.path_timers import PathTimers

FrameHandler = Callable[[QuicReceiveContext, int, Buffer], None]

_AMPLIFICATION = 3
_ONLY_ONE_RTT = frozenset((tls.Epoch.ONE_RTT,))
_SILENT_FRAMES = frozenset(NON_ACK_ELICITING_FRAME_TYPES) | {
    FrameType.PATH_ACK,
    FrameType.PATH_ACK_ECN,
}
_OF_FIRST_PATH = (
    QuicFrameType.ACK,
    QuicFrameType.ACK_ECN,
    QuicFrameType.NEW_CONNECTION_ID,
    QuicFrameType.RETIRE_CONNECTION_ID,
)
_PROBING_FRAMES = frozenset(PROBING_FRAME_TYPES) | {FrameType.PATH_NEW_CONNECTION_ID}


def violation(frame_type: int, reason: str) -> QuicConnectionError:
    """What closes the connection with PROTOCOL_VIOLATION when it is raised."""
    return QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, frame_type, reason)


class PathFrames(PathTimers):
    """See the module."""

    _datagram_size = 0
    """Of the datagram that is being read; 0 once a challenge in it was answered off its path."""

    # Negotiation

    def _own_parameters(self) -> MultipathParameters:
        """What we say of paths; nothing when the setting is off."""
        if not self._settings.multipath:
            return MultipathParameters()
        return MultipathParameters(max_path_id=self._local_max_path)

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + self._own_parameters().encode()

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        try:
            theirs = MultipathParameters.find(data)
        except ProtocolError as exc:
            raise QuicConnectionError(
                QuicErrorCode.TRANSPORT_PARAMETER_ERROR, QuicFrameType.CRYPTO, str(exc)
            ) from None
        if theirs.max_path_id is not None and not self._peer_cid.cid:
            raise violation(QuicFrameType.CRYPTO, "paths need connection ids")
        if theirs.max_path_id is not None and self._own_parameters().max_path_id is not None:
            self._negotiated(theirs)

    def _negotiated(self, theirs: MultipathParameters) -> None:
        assert theirs.max_path_id is not None
        self._is_multipath = True
        self._remote_max_path = theirs.max_path_id
        self._add_handlers(
            {
                FrameType.PATH_ACK: self._handle_path_ack_frame,
                FrameType.PATH_ACK_ECN: self._handle_path_ack_frame,
                FrameType.PATH_ABANDON: self._handle_path_abandon_frame,
                FrameType.PATH_STATUS_BACKUP: self._handle_path_status_frame,
                FrameType.PATH_STATUS_AVAILABLE: self._handle_path_status_frame,
                FrameType.PATH_NEW_CONNECTION_ID: self._handle_path_new_connection_id_frame,
                FrameType.PATH_RETIRE_CONNECTION_ID: self._handle_path_retire_connection_id_frame,
                FrameType.MAX_PATH_ID: self._handle_max_path_id_frame,
                FrameType.PATHS_BLOCKED: self._handle_paths_blocked_frame,
                FrameType.PATH_CIDS_BLOCKED: self._handle_path_cids_blocked_frame,
            }
        )

        # Those of plain QUIC speak of the first path, wherever they come in.
        known = getattr(self, FRAME_HANDLERS)
        for kind in _OF_FIRST_PATH:
            handler, epochs = known[kind]
            known[kind] = (partial(self._for_first_path, handler), epochs)

    def _add_handlers(self, handlers: dict[int, FrameHandler]) -> None:
        known = getattr(self, FRAME_HANDLERS)
        for kind, handler in handlers.items():
            known[int(kind)] = (handler, _ONLY_ONE_RTT)

    def _for_first_path(
        self, handler: FrameHandler, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if self._path.id == 0:
            handler(context, frame_type, buf)
            return
        first, before = self._paths.get(0), self._path
        if first is None or first.is_abandoned:
            self._skip_of_first_path(frame_type, buf)
            return
        self._enter(first)
        try:
            handler(context, frame_type, buf)
        finally:
            self._enter(before)

    def _skip_of_first_path(self, frame_type: int, buf: Buffer) -> None:
        if frame_type == QuicFrameType.RETIRE_CONNECTION_ID:
            buf.pull_uint_var()
        elif frame_type == QuicFrameType.NEW_CONNECTION_ID:
            numbers(buf, 2)
            buf.pull_bytes(buf.pull_uint8() + RESET_TOKEN_SIZE)
        else:
            self._skip_ack(frame_type, buf)

    # Datagrams

    def receive(self, train: memoryview, segment_size: int, address: Address, now: float) -> None:
        self._now = now
        if self._is_too_late(now):
            return
        if not self._is_multipath or not self._handshake_confirmed or not train:
            self._path.bytes_received += len(train)
            self._take_in(train, segment_size, address, now)
            return
        path = self._path_of(train)
        if path is None:
            return
        self._enter(path)
        path.bytes_received += len(train)
        self._is_receiving = True
        try:
            self._take_in(train, segment_size, address, now)
        finally:
            self._is_receiving = False
            self._enter(self._data_path)
        self._received_on(path, now)

    def _received_on(self, path: Path, now: float) -> None:
        data = self._data_path
        if data.probing_since is not None:
            if not data.probes:
                self._answers_again(data)
            elif path is not data and self._failover_at is None:
                self._doubt(data, now)
        if self._keys.was_updated:
            self._keys.was_updated = False
            self._previous_key_until = now + 3 * self._longest_pto()
        elif self._previous_key_until is not None and now > self._previous_key_until:
            self._keys.previous = self._previous_key_until = None

    _previous_key_until: float | None = None

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        path, known = self._path, self._network_paths
        if not self._is_multipath or not self._handshake_confirmed:
            super().receive_datagram(data, addr, now)
            return
        if self._is_client and all(each.addr != addr for each in known):
            if not known or not self._takes_strays:
                return
            known.append(QuicNetworkPath(addr))  # so that aioquic reads what it holds
        self._datagram_size = len(data)
        before = known[0] if known else None
        super().receive_datagram(data, addr, now)
        if before is None and known:
            self._opened_by_peer(path, now)
        elif known and known[0] is not before:
            self._moved_by_peer(path, now)
        if len(known) > 1:
            # Addresses that packets came from are no paths. Only the one that was valid before
            # the peer moved is kept, to go back to.
            keep = [] if known[0].is_validated else [p for p in known[1:] if p.is_validated]
            known[1:] = keep[:1]

    @property
    def _takes_strays(self) -> bool:
        """Whether a client reads packets from addresses where it has no path."""
        return False

    def _moved_by_peer(self, path: Path, now: float) -> None:
        """The peer, a client, goes on from another address on the same path (RFC 9000 section 9):
        a NAT has given it another one."""
        if not self._network_paths[0].is_validated:
            path.challenges.clear()
            path.challenge_at, path.challenge_count = now, 0
            timeout = max(self._loss.get_probe_timeout(), 2 * self._configuration.initial_rtt)
            path.revert_at = now + 3 * timeout
        self._paths_changed()

    # Packets

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self._path.heard_at = context.time
        if not self._is_multipath or context.epoch is not tls.Epoch.ONE_RTT:
            return super()._payload_received(context, plain, crypto_frame_required)
        self._heard_at = context.time
        return self._read_frames(context, plain)

    def _read_frames(self, context: QuicReceiveContext, plain: bytes) -> tuple[bool, bool]:
        """aioquic's loop over the frames of a packet, which knows of our types what elicits an
        acknowledgement and what may come from any address (is probing)."""
        buf = Buffer(data=plain)
        handlers = getattr(self, FRAME_HANDLERS)
        kinds = set()
        while not buf.eof():
            kind = int(QuicFrameType.PADDING)
            try:
                kind = buf.pull_uint_var()
                handler, epochs = handlers[kind]
                if tls.Epoch.ONE_RTT not in epochs:
                    raise violation(kind, "Unexpected frame type")
                handler(context, kind, buf)
            except KeyError:
                raise QuicConnectionError(
                    QuicErrorCode.FRAME_ENCODING_ERROR, kind, "Unknown frame type"
                ) from None
            except BufferReadError:
                raise QuicConnectionError(
                    QuicErrorCode.FRAME_ENCODING_ERROR, kind, "Failed to parse frame"
                ) from None
            except StreamFinishedError:
                pass  # of a stream whose state is gone
            kinds.add(kind)
        if not kinds:
            raise violation(QuicFrameType.PADDING, "Packet contains no frames")
        return not kinds <= _SILENT_FRAMES, kinds <= _PROBING_FRAMES

    # Frames

    def _allowed(self, path_id: int, frame_type: int) -> Path | None:
        """The path a frame is about; None for one that is gone. Raises for ids we did not allow."""
        if path_id > self._local_max_path:
            raise violation(frame_type, "path id above our maximum")
        if path_id in self._gone:
            return self._paths.get(path_id)
        return self._paths.get(path_id) or self._new_path(path_id)

    def _handle_path_ack_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        path = self._allowed(buf.pull_uint_var(), frame_type)
        if path is None or path.is_abandoned:
            self._skip_ack(frame_type, buf)
            return
        if path.space is None:
            raise violation(frame_type, "acknowledges packets of an unused path")
        ack = QuicFrameType.ACK if frame_type == FrameType.PATH_ACK else QuicFrameType.ACK_ECN
        before = self._path
        self._enter(path)
        try:
            self._handle_ack_frame(context, ack, buf)
        finally:
            self._enter(before)

    def _skip_ack(self, frame_type: int, buf: Buffer) -> None:
        try:
            pull_ack_frame(buf)
        except ValueError as exc:
            if isinstance(exc, BufferReadError):
                raise
            raise QuicConnectionError(
                QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, str(exc)
            ) from None
        if frame_type in (FrameType.PATH_ACK_ECN, QuicFrameType.ACK_ECN):
            numbers(buf, 3)

    def _handle_path_abandon_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        path_id, code = numbers(buf, 2)
        path = self._allowed(path_id, frame_type)
        if path is not None and path_id not in self._gone:
            self._abandon(path, code, context.time, by_peer=True)

    def _handle_path_status_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        path_id, sequence = numbers(buf, 2)
        path = self._allowed(path_id, frame_type)
        if path is None or sequence <= path.peer_status_sequence:
            return
        path.peer_status_sequence = sequence
        wanted = frame_type == FrameType.PATH_STATUS_AVAILABLE
        if path.peer_status != wanted:
            path.peer_status = wanted
            self._paths_changed()
            self._choose(context.time)

    def _handle_path_new_connection_id_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        try:
            frame = NewConnectionId.pull(buf)
        except ProtocolError as exc:
            raise QuicConnectionError(
                QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, str(exc)
            ) from None
        path = self._allowed(frame.path_id, frame_type)
        if path is None or path.is_abandoned:
            return
        end = buf.tell()
        buf.seek(start)
        buf.pull_uint_var()
        before = self._path
        self._enter(path)
        try:
            self._handle_new_connection_id_frame(context, frame_type, buf)
            if not self._peer_cid.cid and self._peer_cid_available:
                self._consume_peer_cid()
        finally:
            self._enter(before)
        assert buf.tell() == end

    def _handle_path_retire_connection_id_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        path = self._allowed(buf.pull_uint_var(), frame_type)
        if path is None or path.is_abandoned:
            buf.pull_uint_var()
            return
        before = self._path
        self._enter(path)
        try:
            self._handle_retire_connection_id_frame(context, frame_type, buf)
            self._path_of_id = {
                cid: of for cid, of in self._path_of_id.items() if of is not path
            } | ({known.cid: path for known in path.host_ids} if path.id else {})
        finally:
            self._enter(before)

    def _handle_max_path_id_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        maximum = buf.pull_uint_var()
        if maximum > MAX_PATH_ID:
            raise violation(frame_type, "no path has such an id")
        if maximum > self._remote_max_path:
            self._remote_max_path = maximum
            self._issue_ids()

    def _handle_paths_blocked_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if buf.pull_uint_var() > self._local_max_path:
            raise violation(frame_type, "blocked by a maximum that is not ours")

    def _handle_path_cids_blocked_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        path_id, sequence = numbers(buf, 2)
        path = self._allowed(path_id, frame_type)
        if path is None:
            return
        issued = self._host_cid_seq if path is self._path else path.context["_host_cid_seq"]
        if sequence > issued:
            raise violation(frame_type, "lacks a connection id after one it cannot have")

    # Challenges

    def _handle_path_challenge_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        known = self._network_paths
        from_path = not known or context.network_path is known[0]
        if not self._is_multipath or not self._handshake_confirmed or from_path:
            super()._handle_path_challenge_frame(context, frame_type, buf)
            return
        token = buf.pull_bytes(8)
        room, self._datagram_size = _AMPLIFICATION * self._datagram_size, 0
        if room and len(self._off_path) < MAX_OFF_PATH:
            address = context.network_path.addr
            self._off_path.append(OffPathAnswer(self._path, address, token, room))

    def _handle_path_response_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if not self._is_multipath:
            super()._handle_path_response_frame(context, frame_type, buf)
            return
        token = buf.pull_bytes(8)
        for path in self._live:
            asked = path.challenges.pop(token, None)
            if asked is None:
                continue
            sent_at, address = asked
            # It proves the address it was sent to, from wherever the answer came.
            if path.is_open and path.address == address:
                path.confirmed_at = context.time
                self._validated(path, context.time - sent_at, context.time)
            return
        self._handle_other_response(token, context)

    def _handle_other_response(self, token: bytes, context: QuicReceiveContext) -> None:
        """A PATH_RESPONSE that no path waits for."""
