"""The life of paths: opened, validated, preferred, fallen silent, abandoned, forgotten
(draft-ietf-quic-multipath section 3; spec `multipath.md` sections 3, 4 and 6).
"""

from functools import partial
from typing import Any

from aioquic.quic.connection import QuicNetworkPath
from aioquic.quic.rangeset import RangeSet

from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.multipath_frames import (
    RESET_TOKEN_SIZE,
    FrameType,
    NewConnectionId,
    PathError,
    encode_numbers,
)
from tunnel_rs.proto.path_context import Path
from tunnel_rs.proto.path_output import PathOutput
from tunnel_rs.proto.path_state import (
    DataPathChanged,
    PathAbandoned,
    PathOpened,
    PathsChanged,
    PathState,
    PathValidated,
)

MAX_PATHS = 8
"""Paths that may be open at a time, the first one included; as many as iroh allows."""

IDS_PER_PATH = 2
"""Connection ids the peer gets for each path: one to use, one to change to."""

MAX_DRAINING = 8
"""Abandoned paths that packets are still taken from. A peer may open and abandon as fast as it
likes; then the oldest are forgotten at once."""

KEEP_ALIVE = 5.0
"""Seconds between PINGs on each path, while there is more than one."""

_RTT_GAIN = 0.25
_DRAIN_PTOS = 3
_GRACE_PTOS = 3
_GRACE_RTT = 0.333


class PathLife(PathOutput):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._local_max_path = MAX_PATHS - 1
        self._remote_max_path = 0
        self._issued_to = 0
        self._highest_used = 0
        self._gone = RangeSet()
        """Ids of abandoned paths; never used again. Both maxima rise by one with each, so that
        at most MAX_PATHS ids are not in one run."""
        self._no_path_at: float | None = None
        """When the connection ends for want of a path."""
        self._forgotten_at: float | None = None
        """When the peer had forgotten a spare path, until the data path answers."""

    # Facts

    @property
    def is_multipath(self) -> bool:
        """Whether both sides know paths; otherwise there is one, and `probe` moves it."""
        return self._is_multipath

    def paths(self, now: float) -> list[PathState]:
        """The open paths, in the order of their ids."""
        if not self._network_paths:
            return []
        self._path.network_paths = self._network_paths
        live = sorted(self._live, key=lambda path: path.id)
        return [self._state_of(path, now) for path in live if path.is_open]

    def _state_of(self, path: Path, now: float) -> PathState:
        used = path.network_paths[0]
        recovery = path.recovery or self._recovery
        heard = path.heard_at or path.opened_at or now
        size = self._max_datagram_size
        return PathState(
            id=path.id,
            address=used.addr,
            is_validated=used.is_validated,
            is_available=path.is_available,
            peer_wants=path.peer_status,
            is_data=path is self._data_path,
            rtt=path.rtt,
            smoothed_rtt=recovery.smoothed_rtt,
            mtu=size if path is self._path else path.context["_max_datagram_size"],
            ptos=recovery.probe_count,
            silent_for=max(0.0, now - heard),
            bytes_sent=used.bytes_sent,
            bytes_received=path.bytes_received,
        )

    # Opening

    def open_path(self, address: Address, now: float, *, backup: bool = True) -> int | None:
        """Begin to use `address` too. Only for clients. Returns the id of its path, which may
        have been there; None when it cannot be had now: without multipath, before the handshake
        is confirmed, or when the peer has not allowed another yet (it is told; try again).

        Data goes there once the address has answered and `select_path` or `set_available` want
        it, or nothing better is left. `backup`: whether it begins as not available.
        """
        self._now = now
        if not (self._is_multipath and self._is_client and self._handshake_confirmed):
            return None
        if self.is_closing:
            return None
        for path in self._live:
            if path.is_open and path.address == address:
                return path.id
        path_id = self._highest_used + 1
        while path_id in self._gone:
            path_id += 1
        if not self._may_open(path_id):
            return None
        path = self._paths[path_id]
        self._enliven(path)
        path.network_paths[:] = [QuicNetworkPath(address)]
        self._begin(path, now)
        if backup:
            self._set_status(path, False)
        return path_id

    def _may_open(self, path_id: int) -> bool:
        """Whether that id can be used; the peer is told what is missing."""
        if path_id > self._local_max_path:
            return False
        if path_id > self._remote_max_path:
            limit = self._remote_max_path
            self._say_once(FrameType.PATHS_BLOCKED, encode_numbers(limit))
            return False
        path = self._paths.get(path_id)
        if path is None or self._peer_id(path) is None:
            self._say_once(FrameType.PATH_CIDS_BLOCKED, encode_numbers(path_id, 0))
            return False
        return True

    def _say_once(self, kind: int, payload: bytes) -> None:
        if not any(frame.kind == kind for frame in self._queue):
            self._say(kind, payload)

    def _begin(self, path: Path, now: float) -> None:
        """A path has got an address: it is live, and must be validated."""
        self._highest_used = max(self._highest_used, path.id)
        path.opened_at = now
        path.challenge_at, path.challenge_count = now, 0
        self._live.append(path)
        for each in self._live:
            self._start_timers(each, now)
            if each.is_validated and each.rtt is None and each.challenge_at is None:
                each.challenge_at = now  # to compare them
        self._paths_changed()

    def _start_timers(self, path: Path, now: float) -> None:
        """See `PathTimers`."""

    def _paths_changed(self) -> None:
        self._events.append(PathsChanged())

    def _opened_by_peer(self, path: Path, now: float) -> None:
        used = path.network_paths[0]
        known = any(o.is_validated and o is not path and o.address == used.addr for o in self._live)
        path.heard_at = now
        self._begin(path, now)
        self._events.append(PathOpened(path.id, used.addr))
        if known:
            self._validated(path, None, now)
            path.challenge_at = now  # to measure it

    def challenge(self, path_id: int, now: float) -> None:
        """Measure the round trip of a path anew."""
        path = self._paths.get(path_id)
        if path is not None and path.is_open and self._is_multipath:
            path.challenge_at, path.challenge_count = now, 0

    def _validated(self, path: Path, rtt: float | None, now: float) -> None:
        """The address in use has proved itself; `rtt` in seconds, if that was measured."""
        used = path.network_paths[0]
        is_new = not used.is_validated
        used.is_validated = True
        used.local_challenges.clear()
        del path.network_paths[1:]
        path.challenges.clear()
        path.challenge_at = path.revert_at = None
        path.challenge_count = 0
        recovery = path.recovery
        assert recovery is not None
        if rtt is not None:
            raised = path.rtt is not None and rtt > path.rtt
            path.rtt = path.rtt + (rtt - path.rtt) * _RTT_GAIN if raised and path.rtt else rtt
            recovery.learn_rtt(now, rtt)
        if is_new:
            self._events.append(PathValidated(path.id, used.addr, rtt))
        # Whoever chooses paths is not to leave a silent data path before it is given up.
        if is_new or self._data_path.probing_since is None:
            self._paths_changed()
        if path.moves_when_valid:
            path.moves_when_valid = False
            self.select_path(path.id)
        self._choose(now)

    # Preferring

    def set_available(self, path_id: int, available: bool) -> None:
        """Set our own status of a path: whether data may go there while others could carry it."""
        path = self._paths.get(path_id)
        if path is not None and path.is_open and self._is_multipath:
            self._set_status(path, available)
            self._choose(self._now)
            self._restore()

    def select_path(self, path_id: int) -> None:
        """Have data go on that path, at once or when it is valid: all others become backups."""
        chosen = self._paths.get(path_id)
        if chosen is None or not chosen.is_open or not self._is_multipath:
            return
        for path in self._live:
            if path.is_open:
                self._set_status(path, path is chosen)
        self._choose(self._now)
        self._restore()

    def _set_status(self, path: Path, available: bool) -> None:
        if path.is_available == available:
            return
        path.is_available = available
        path.status_sequence += 1
        sequence = path.status_sequence
        self._say(
            FrameType.PATH_STATUS_AVAILABLE if available else FrameType.PATH_STATUS_BACKUP,
            encode_numbers(path.id, sequence),
            lambda: path.is_open and path.status_sequence == sequence,
        )

    def _preference(self, path: Path) -> tuple[bool, bool, bool, float]:
        """Smaller is better. Our own status decides; where that leaves a choice, the peer's."""
        rtt = path.rtt if path.rtt is not None else float("inf")
        return not path.is_available, not path.peer_status, path is not self._data_path, rtt

    def _choose(self, now: float) -> None:
        """Let data go on the best valid path."""
        valid = [path for path in self._live if path.is_validated]
        if not valid:
            return
        self._no_path_at = None
        best = min(valid, key=self._preference)
        left = self._data_path
        if best is left:
            return
        self._data_path = best
        if left.is_open and left.probes:
            self._on_path(left, partial(self._hand_over, now))
        self._silent_since = None
        self._path_is_down = False
        best.probing_since = None
        if best.recovery is not None:
            best.recovery.forgive()
        best.pings.append(0)  # is it as alive as we think?
        self._data_path_changed = True
        self._events.append(DataPathChanged(best.id, best.address))
        self._paths_changed()

    def _hand_over(self, now: float) -> None:
        """What the silent path that is current has in flight is not waited for: it goes to the data
        path. Whether it answers again is asked on."""
        assert self._path.recovery is not None
        self._path.recovery.hand_over(now)
        if not self._path.pings:
            self._path.pings.append(0)

    def _restore(self) -> None:
        """Make the data path current again, unless a packet is being read on another."""
        if not self._is_receiving:
            self._enter(self._data_path)

    _is_receiving = False
    _data_path_changed = False

    # Abandoning

    def abandon_path(
        self, path_id: int, now: float, code: int = PathError.APPLICATION_ABANDON_PATH
    ) -> bool:
        """Stop using a path. False when it is unknown, or the last one that works."""
        self._now = now
        path = self._paths.get(path_id)
        if path is None or not path.is_open or not self._is_multipath:
            return False
        if not any(other.is_validated for other in self._live if other is not path):
            return False
        self._abandon(path, code, now, by_peer=False)
        self._restore()
        return True

    def _abandon(self, path: Path, code: int, now: float, *, by_peer: bool) -> None:
        """Stop sending on `path` at once; what is in flight there is sent elsewhere. What comes in
        is still taken for 3 probe timeouts."""
        if path.id in self._gone:
            return
        was_open = path.is_open
        path.drain_at = now + _DRAIN_PTOS * self._longest_pto()
        path.abandon_code = code
        self._gone.add(path.id)
        self._say(FrameType.PATH_ABANDON, encode_numbers(path.id, code))
        if was_open and not by_peer:
            self._say_farewell(path, code)
        if was_open:
            self._on_path(path, partial(self._give_up, now))
            self._events.append(PathAbandoned(path.id, path.address, code, by_peer))
            self._paths_changed()
        self._highest_used = max(self._highest_used, path.id) if was_open else self._highest_used
        self._local_max_path += 1
        self._say(FrameType.MAX_PATH_ID, encode_numbers(self._local_max_path))
        self._issue_ids()
        if not was_open:
            self._forget_path(path)
            return
        self._choose(now)
        self._bound_draining(path)
        if self._data_path is path:
            self._speak_where_heard()
            grace = max(2 * _GRACE_RTT, self._longest_pto())
            self._no_path_at = now + _GRACE_PTOS * grace
            self._lost_all(now)
        elif self._data_path.recovery is not None:
            self._data_path.recovery.forgive()
            self._data_path.pings.append(0)

    def _speak_where_heard(self) -> None:
        """No path is left. Both sides may have abandoned one at the same time, and each taken the
        other's for good: the last words go where the peer was heard last."""
        speaks = self._path if self._is_receiving else None
        last = max(self._live, key=lambda path: (path is speaks, path.heard_at))
        if last is not self._data_path and last.is_abandoned:
            self._data_path = last
            self._restore()

    def _bound_draining(self, newest: Path) -> None:
        kept = (newest, self._path, self._data_path)
        draining = [path for path in self._live if path.is_abandoned and path not in kept]
        for path in draining[: max(0, len(draining) - MAX_DRAINING)]:
            self._forget_path(path)

    def _lost_all(self, now: float) -> None:
        """No path is left; a client may open another for some time."""

    def _longest_pto(self) -> float:
        return max(path.recovery.get_probe_timeout() for path in self._live if path.recovery)

    def _give_up(self, now: float) -> None:
        """What is in flight on the current path goes back to be sent on another."""
        self._recovery.give_up(now)
        self._ping_pending.clear()
        self._probe_pending = False
        self._pacing_at = None
        self._path.challenge_at = None
        self._path.challenges.clear()
        for used in self._path.network_paths:
            used.remote_challenges.clear()

    # Connection ids

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        if self._is_multipath:
            self._issue_ids()

    def _issue_ids(self) -> None:
        """Give the peer connection ids for every path that both sides allow."""
        top = min(self._local_max_path, self._remote_max_path)
        while self._issued_to < top:
            self._issued_to += 1
            if self._issued_to in self._gone:
                continue
            path = self._paths.get(self._issued_to) or self._new_path(self._issued_to)
            self._on_path(path, self._replenish_connection_ids)

    def _replenish_connection_ids(self) -> None:
        path = self._path
        if path.id == 0:
            super()._replenish_connection_ids()
            return
        if path.drain_at is not None or path.id > self._issued_to:
            return
        known = len(self._host_cids)
        limit = self._remote_active_connection_id_limit
        self._remote_active_connection_id_limit = min(IDS_PER_PATH, limit)
        try:
            super()._replenish_connection_ids()
        finally:
            self._remote_active_connection_id_limit = limit
        for issued in self._host_cids[known:]:
            issued.was_sent = True  # not by aioquic, whose frame is for path 0
            self._path_of_id[issued.cid] = path
            frame = NewConnectionId(
                path.id, issued.sequence_number, 0, issued.cid, issued.stateless_reset_token
            )
            self._say(
                FrameType.PATH_NEW_CONNECTION_ID,
                frame.encode(),
                lambda: path.drain_at is None,
            )
        self.host_cid = self.host_cid or self._host_cids[0].cid

    def _retire_peer_cid(self, connection_id: Any) -> None:
        if self._path.id == 0:
            super()._retire_peer_cid(connection_id)
            return
        path = self._path
        self._say(
            FrameType.PATH_RETIRE_CONNECTION_ID,
            encode_numbers(path.id, connection_id.sequence_number),
            lambda: path.drain_at is None,
        )

    def probed_reset_tokens(self) -> list[bytes]:
        tokens = super().probed_reset_tokens()
        for path in self._live:
            if path is not self._path and path.is_open:
                token = path.context["_peer_cid"].stateless_reset_token
                if token:
                    tokens.append(token)
        return tokens

    def _was_reset(self, datagram: bytes, now: float) -> None:
        """A peer that has forgotten one path (our word of that was lost, or its) has not forgotten
        the connection, as long as the data path answers."""
        for path in self._live:
            held = self._peer_id(path) if path.is_open and path is not self._data_path else None
            if held is not None and held.stateless_reset_token == datagram[-RESET_TOKEN_SIZE:]:
                self._abandon(path, PathError.PATH_UNSTABLE_OR_POOR, now, by_peer=False)
                if self._forgotten_at is None:
                    self._forgotten_at = now
                    self._on_path(self._data_path, partial(self.ask, now))
                return
        super()._was_reset(datagram, now)

    # As without multipath

    def probe(self, address: Address) -> bool:
        """See `PathMoves`; with multipath another path is opened, and data moves there."""
        if not self._is_multipath:
            return super().probe(address)
        if self.address == address:
            return False
        path_id = self.open_path(address, self._now)
        if path_id is None:
            return False
        path = self._paths[path_id]
        path.moves_when_valid = True
        if path.is_validated and path.challenge_at is None:
            self.challenge(path_id, self._now)
        return True

    def stop_probing(self) -> None:
        if not self._is_multipath:
            super().stop_probing()
            return
        for path in list(self._live):
            if path.moves_when_valid:
                path.moves_when_valid = False
                if path.is_open and not path.is_validated:
                    self._abandon(
                        path, PathError.APPLICATION_ABANDON_PATH, self._now, by_peer=False
                    )
        self._restore()
