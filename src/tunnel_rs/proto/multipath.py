"""The engine with several paths at a time, and NAT traversal to find them (spec `multipath.md`).

Its parts, each on top of the one before: `path_context` (what a path has of its own),
`path_output` (what is sent because there are paths), `path_life` (opening, preferring, abandoning),
`path_timers` (silence and failover), `path_frames` (what the peer says), and here the rounds of
`nat_traversal`: what they want sent and told goes through the engine.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicReceiveContext
from aioquic.quic.packet import QuicFrameType

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto import traversal
from tunnel_rs.proto.engine import Address, Train
from tunnel_rs.proto.multipath_frames import MultipathParameters
from tunnel_rs.proto.nat_traversal import (
    MAX_CANDIDATES,
    AddAddress,
    ClientRounds,
    ReachOut,
    RemoveAddress,
    ServerRounds,
)
from tunnel_rs.proto.path_context import Path
from tunnel_rs.proto.path_frames import PathFrames, violation
from tunnel_rs.proto.path_output import OffPathAnswer
from tunnel_rs.proto.path_state import PeerMoved
from tunnel_rs.values import SocketAddr

OPENING_TIME = 5.0
"""Seconds for which a path to an address that answered is tried to be opened."""

_MAX_OPENINGS = MAX_CANDIDATES
_AT_ONCE, _NEVER = float("-inf"), float("inf")


class MultipathEngine(PathFrames):
    """See `Engine`. With a peer that knows nothing of paths it behaves like that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._has_traversal = False
        self._peer_takes_addresses = 0
        self._client_rounds: ClientRounds | None = None
        self._server_rounds: ServerRounds | None = None
        self._own_candidates: tuple[SocketAddr, ...] = ()
        self._given: tuple[SocketAddr, ...] = ()
        self._told: set[int] = set()
        self._round = 0
        self._to_open: dict[Address, float] = {}
        self._direct_changed = True
        self._rounds_at = _AT_ONCE
        """When the rounds may have something to say or to send."""
        self._knows_peer = self._is_client
        """A client has dialled a key. A server tells strangers nothing of its addresses, and sends
        nothing to those they name, until the application knows them."""

    def open_window(self) -> None:
        super().open_window()
        self._knows_peer = True

    @property
    def has_nat_traversal(self) -> bool:
        """Whether both sides look for direct paths by probing each other's candidates."""
        return self._has_traversal

    # What the application knows

    def set_candidates(self, addresses: Iterable[SocketAddr], now: float) -> None:
        """Where we may be reached now, best first. The peer gets to know, and both sides probe."""
        self._own_candidates = tuple(addresses)
        self._rounds_at = _AT_ONCE
        rounds = self._client_rounds or self._server_rounds
        if rounds is not None:
            rounds.set_own(self._own_candidates, now)

    def set_given(self, addresses: Iterable[SocketAddr]) -> None:
        """A client's user names addresses of the server: they are probed beside those that it
        tells of itself."""
        self._given = tuple(addresses)
        self._rounds_at = _AT_ONCE
        if self._client_rounds is not None:
            self._client_rounds.set_given(self._given)

    def network_changed(self, now: float) -> None:
        """Our network is another than before, or we have slept: ask on all paths, and begin a
        round of probes."""
        self._rounds_at = _AT_ONCE
        if self._client_rounds is not None:
            self._client_rounds.network_changed(now)
        if not self._has_paths:
            return
        for path in self._live:
            if path.is_open:
                path.challenge_at, path.challenge_count = now, 0
        self.ask(now)

    # Negotiation

    def _own_parameters(self) -> MultipathParameters:
        if self._traversal is None or not self._settings.multipath:
            return super()._own_parameters()
        return MultipathParameters(self._local_max_path, MAX_CANDIDATES)

    def _negotiated(self, theirs: MultipathParameters) -> None:
        super()._negotiated(theirs)
        if theirs.addresses is None or self._traversal is None:
            return
        self._has_traversal = True
        self._peer_takes_addresses = theirs.addresses
        self._add_handlers(
            {int(kind): self._handle_traversal_frame for kind in traversal.FrameType}
        )

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        known = self._traversal
        if known is None or not self._has_traversal:
            return
        if self._is_client:
            self._client_rounds = ClientRounds(
                known.random_bytes, known.budget, self._now, reaches=known.reaches
            )
            self._client_rounds.set_given(self._given)
        else:
            self._server_rounds = ServerRounds(
                known.random_bytes,
                known.budget,
                self._now,
                limit=self._peer_takes_addresses,
                reaches=known.reaches,
            )
        self.set_candidates(self._own_candidates, self._now)

    # Frames

    def _handle_traversal_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        frame = traversal.pull(frame_type, buf)
        if isinstance(frame, ReachOut) == self._is_client:
            raise violation(frame_type, "a frame that only the other side may send")
        self._rounds_at = _AT_ONCE
        if isinstance(frame, ReachOut):
            self._reach_out(frame, frame_type, context.time)
        elif self._client_rounds is not None:
            if isinstance(frame, AddAddress):
                self._client_rounds.address_added(frame, context.time)
            else:
                self._client_rounds.address_removed(frame, context.time)
        self._note_move()

    def _note_move(self) -> None:
        rounds = self._client_rounds or self._server_rounds
        if rounds is not None and rounds.peer_moved:
            rounds.peer_moved = False
            self._events.append(PeerMoved())

    def _reach_out(self, frame: ReachOut, frame_type: int, now: float) -> None:
        if self._server_rounds is None:
            return
        try:
            self._server_rounds.reach_out(frame, now)
        except ProtocolError as exc:
            raise violation(frame_type, str(exc)) from None

    def _tell(self, now: float) -> None:
        """Queue what the rounds have to say."""
        if self._client_rounds is not None:
            if self._direct_changed:
                self._direct_changed = False
                self._client_rounds.direct_path(self._direct_rtt(), now)
            for reach_out in self._client_rounds.frames(now):
                self._round = number = reach_out.number
                kind, content = traversal.encode(reach_out)
                self._say(kind, content, partial(self._is_round, number))
        elif self._server_rounds is not None:
            for frame in self._server_rounds.frames(now):
                self._tell_address(frame)

    def _is_round(self, number: int) -> bool:
        return number == self._round

    def _tell_address(self, frame: AddAddress | RemoveAddress) -> None:
        kind, content = traversal.encode(frame)
        sequence = frame.sequence
        if isinstance(frame, AddAddress):
            self._told.add(sequence)
            self._say(kind, content, lambda: sequence in self._told)
        else:
            self._told.discard(sequence)
            self._say(kind, content)

    def _direct_rtt(self) -> float | None:
        """Round trip of the best direct path; None when there is none."""
        known = self._traversal
        assert known is not None
        times = [
            path.rtt
            for path in self._live
            if path.is_validated
            and path.rtt is not None
            and known.to_socket(path.address) is not None
        ]
        return min(times, default=None)

    def _paths_changed(self) -> None:
        super()._paths_changed()
        self._direct_changed = True
        self._rounds_at = _AT_ONCE

    # Probes and answers

    @property
    def _takes_strays(self) -> bool:
        return self._has_traversal

    def trains(self, now: float) -> list[Train]:
        if self._is_overdue(now):
            return []
        if now < self._rounds_at or not self._has_traversal or not self._may_tell:
            return super().trains(now)
        self._tell(now)
        trains = self._probe_trains(now)
        return trains + super().trains(now)

    @property
    def _may_tell(self) -> bool:
        return self._has_paths and self._knows_peer and self._data_path.drain_at is None

    def _probe_trains(self, now: float) -> list[Train]:
        rounds = self._client_rounds or self._server_rounds
        known = self._traversal
        assert rounds is not None and known is not None
        trains: list[Train] = []
        for probe in rounds.probes(now):
            frames = [(int(QuicFrameType.PATH_CHALLENGE), probe.token)]
            address = known.to_address(probe.address)
            trains += self._off_path_train(self._data_path, address, frames, fill=0)
        wanted = rounds.get_timer()
        self._rounds_at = _NEVER if wanted is None else wanted
        return trains

    def _beside_answer(self, answer: OffPathAnswer) -> list[tuple[int, bytes]]:
        """A client challenges back who probes it, unless it has a path there."""
        known, rounds = self._traversal, self._client_rounds
        source = known.to_socket(answer.address) if known is not None else None
        if rounds is None or source is None:
            return []
        if any(path.is_validated and path.address == answer.address for path in self._live):
            return []
        self._rounds_at = _AT_ONCE
        probe = rounds.challenge_back(source, self._now)
        return [] if probe is None else [(int(QuicFrameType.PATH_CHALLENGE), probe.token)]

    def _handle_other_response(self, token: bytes, context: QuicReceiveContext) -> None:
        known = self._traversal
        source = known.to_socket(context.network_path.addr) if known is not None else None
        if source is None:
            return
        self._rounds_at = _AT_ONCE
        if self._client_rounds is not None:
            if self._client_rounds.answered(token, source):
                self._open_or_wait(context.network_path.addr, context.time)
        elif self._server_rounds is not None:
            self._server_rounds.answered(token, source)

    def _open_or_wait(self, address: Address, now: float) -> None:
        if self.open_path(address, now) is None and len(self._to_open) < _MAX_OPENINGS:
            self._to_open[address] = now + OPENING_TIME

    def _lost_all(self, now: float) -> None:
        """Both sides may have left different paths at the same time: begin again where it once
        worked."""
        if self._is_client:
            for path in list(self._live):
                if path.network_paths[0].is_validated:
                    self._open_or_wait(path.address, now)

    def _received_on(self, path: Path, now: float) -> None:
        super()._received_on(path, now)
        if self._to_open:
            # The peer may just have allowed another path.
            waiting, self._to_open = self._to_open, {}
            for address, until in waiting.items():
                if now < until and self.open_path(address, now) is None:
                    self._to_open[address] = until

    # Time

    def get_timer(self) -> float | None:
        timer = super().get_timer()
        if timer is None or timer <= self._rounds_at:
            return timer
        rounds = self._client_rounds or self._server_rounds
        if rounds is None or not self._may_tell:
            return timer
        if self._rounds_at is _AT_ONCE:
            wanted = rounds.get_timer()
            return timer if wanted is None else min(timer, wanted)
        return self._rounds_at
