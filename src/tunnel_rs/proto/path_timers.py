"""When paths speak and when they are given up: keep-alive, validation, silence, failover
(spec `multipath.md` sections 4 and 6).
"""

from functools import partial

from aioquic.quic.packet import QuicFrameType

from tunnel_rs.proto.engine import Train
from tunnel_rs.proto.multipath_frames import PathError
from tunnel_rs.proto.path_context import Path
from tunnel_rs.proto.path_life import KEEP_ALIVE, PathLife
from tunnel_rs.proto.path_output import MAX_MEASUREMENTS

VALIDATION_TIME = 15.0
"""Seconds after which an address that has not answered is given up."""

IDLE_TIME = 30.0
"""Seconds of silence after which a path is given up, while another one lives. As long as noq
gives its relay paths."""

FAILOVER_PTOS = 3
"""Probe timeouts in a row after which data leaves its path, if another path is alive."""

_NEVER, _LONG_AGO = float("inf"), float("-inf")
_LOOK_AGAIN = 5.0
_DOUBT = 0.020
_MAX_DOUBT = 0.100


class PathTimers(PathLife):
    """See the module."""

    _failover_at: float | None = None
    _probes_seen = 0
    _asked_at = _asked_before = _LONG_AGO
    """When the data path's last probe timeout came, and the one before: all were asked then."""

    @property
    def _has_paths(self) -> bool:
        """Whether there is more to do than for one path."""
        return self._is_multipath and self._handshake_confirmed and not self.is_closing

    # Output

    def trains(self, now: float) -> list[Train]:
        if not self._has_paths:
            return super().trains(now)
        self._now = now
        data = self._data_path
        trains: list[Train] = []
        if len(self._live) > 1:
            for path in self._live:
                if path is not data and path.is_open and self._wants_turn(path, now):
                    trains += self._idle_path_trains(path, now)
        if self._farewells:
            trains += self._farewell_trains()
        if self._off_path:
            trains += self._off_path_answers()
        if data is not self._path:
            self._enter(data)
        if data.drain_at is not None:
            return trains + self._last_words(data, now)
        if self._data_path_changed:
            self._data_path_changed = False
            self._outgoing.fit(self._datagram_room)
        if len(self._live) > 1 and self._owes_drained_acks() and self._may_send(data):
            trains += self._drained_ack_trains(now)
        if data.challenge_at is not None or data.network_paths[0].remote_challenges:
            trains += self._validation_trains(data, now)
        return trains + super().trains(now) if trains else super().trains(now)

    def _has_control_work(self, now: float) -> bool:
        if self._is_multipath and self._handshake_confirmed:
            if self._queue:
                return True
        return super()._has_control_work(now)

    # Time

    def _start_timers(self, path: Path, now: float) -> None:
        if path.keep_alive_at is None:
            path.keep_alive_at = now + KEEP_ALIVE
        if path.idle_at is None:
            path.idle_at = now + (IDLE_TIME if path.is_validated else VALIDATION_TIME)

    def get_timer(self) -> float | None:
        data = self._data_path
        timer = super().get_timer() if data.drain_at is None else self._close_at
        if timer is None or not self._has_paths:
            return timer
        for at in (self._no_path_at, self._failover_at):
            if at is not None and at < timer:
                timer = at
        for path in self._live:
            at = self._path_timer(path)
            if at < timer:
                timer = at
        return timer

    def _path_timer(self, path: Path) -> float:
        """When something is due on `path`, beside what the engine times for the data path."""
        space = path.space
        assert space is not None
        if path.drain_at is not None:
            # The data path is kept beyond its time while there is no other.
            due = path.drain_at if path is not self._data_path else _NEVER
            if space.ack_at is None or not self._may_send(self._data_path):
                return due
            return min(due, space.ack_at)
        due = _NEVER
        for at in (path.keep_alive_at, path.idle_at, path.revert_at):
            if at is not None and at < due:
                due = at
        if path is self._data_path:
            speaks = path.challenge_at
        else:
            speaks = self._speaks_at(path)
            if space.ack_eliciting_in_flight or space.loss_time is not None:
                loss = self._loss_timer(path)
                due = due if loss is None else min(due, loss)
        if speaks is not None and speaks < due and self._may_send(path):
            due = speaks
        return due

    def _loss_timer(self, path: Path) -> float | None:
        recovery = path.recovery
        assert recovery is not None
        # What is not validated is asked by challenges; probes would say no more.
        return recovery.get_loss_detection_time(amplification_limited=not path.is_validated)

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        if not self._has_paths:
            return
        self._now = now
        for path in list(self._live):
            if path.drain_at is not None:
                if now >= path.drain_at and path is not self._data_path:
                    self._forget_path(path)
                continue
            if path is not self._data_path:
                due = self._loss_timer(path)
                if due is not None and now >= due:
                    self._on_path(path, partial(self._on_loss_timer, now))
            self._watch(path, now)
        self._watch_data(now)
        self._enter(self._data_path)
        if self._no_path_at is not None and now >= self._no_path_at:
            self._no_path_at = None
            self.close(PathError.NO_VIABLE_PATH, QuicFrameType.PADDING, "no path is left")

    def _on_loss_timer(self, now: float) -> None:
        self._recovery.on_loss_detection_timeout(now=now)
        if self._recovery.probe_count:
            self._hand_over(now)

    def _watch(self, path: Path, now: float) -> None:
        """Keep `path` alive, or give it up."""
        if path.revert_at is not None and now >= path.revert_at:
            self._revert(path, now)
        if path.idle_at is not None and now >= path.idle_at:
            self._check_idle(path, now)
        if path.drain_at is None and path.keep_alive_at is not None and now >= path.keep_alive_at:
            if sum(other.is_open for other in self._live) < 2:
                path.keep_alive_at = None
            elif path.is_validated and path.heard_at + KEEP_ALIVE > now and self._has_spoken(path):
                path.keep_alive_at = path.heard_at + KEEP_ALIVE
            else:
                path.keep_alive_at = now + KEEP_ALIVE
                if path.is_validated:
                    path.pings.append(0)

    def _has_spoken(self, path: Path) -> bool:
        """Whether we have sent something on `path` since it was last asked. That we hear the peer
        there does not mean that it hears us: iroh acknowledges all paths on its data path alone,
        and gives up a path on which nothing comes for 15 s."""
        sent = path.network_paths[0].bytes_sent
        before, path.sent_before = path.sent_before, sent
        return sent != before

    def _check_idle(self, path: Path, now: float) -> None:
        others = [o for o in self._live if o is not path and o.is_validated]
        if not path.is_validated:
            limit, is_replaced = VALIDATION_TIME, bool(others)
        else:
            # In an outage all are silent, and none is given up for it.
            limit = IDLE_TIME
            is_replaced = any(other.heard_at + VALIDATION_TIME > now for other in others)
        ends = max(path.heard_at, path.opened_at) + limit
        if now < ends:
            path.idle_at = ends
        elif is_replaced:
            self._abandon(path, PathError.PATH_UNSTABLE_OR_POOR, now, by_peer=False)
        else:
            path.idle_at = now + _LOOK_AGAIN if others else None

    def _revert(self, path: Path, now: float) -> None:
        """The peer's new address on `path` has not proved itself: back to the old one
        (RFC 9000 section 9.3.2)."""
        path.revert_at = None
        if not path.is_validated and len(path.network_paths) > 1:
            del path.network_paths[0]
            path.challenge_at = None
            path.challenges.clear()
            self._paths_changed()

    # Failover

    def _watch_data(self, now: float) -> None:
        """Notice when the data path answers nothing, and leave it when another path does."""
        data = self._data_path
        probes = data.probes
        if self._forgotten_at is not None and data.answered_at > self._forgotten_at:
            self._forgotten_at = None
        if not probes:
            self._answers_again(data)
            return
        if probes >= FAILOVER_PTOS and self._forgotten_at is not None and not self._living(data):
            # The peer has begun anew, and its packets for another address reach nobody.
            self._was_forgotten()
            return
        if data.probing_since is None:
            data.probing_since = now
            self._paths_changed()
        if probes != self._probes_seen:
            self._probes_seen = probes
            self._asked_before = max(self._asked_at, data.probing_since)
            self._asked_at = now
            self._ask_all(now)
        if probes >= FAILOVER_PTOS and data.confirmed_at > self._asked_before:
            self._failover_at = None
            self._leave_silent(data, now)
        elif self._failover_at is None:
            self._doubt(data, now)
        elif now >= self._failover_at:
            self._failover_at = None
            if probes >= FAILOVER_PTOS and self._living(data):
                self._fail_over(data, now)

    def _answers_again(self, data: Path) -> None:
        self._failover_at = None
        self._probes_seen = 0
        if data.probing_since is not None:
            data.probing_since = None
            self._paths_changed()

    def _ask_all(self, now: float) -> None:
        """Ask on all paths, if there are several, whether they work.

        By challenges: iroh sends acknowledgements on its own data path alone, which may be the dead
        one, but answers a challenge on the path it came on. And, where no data goes, by PING: a
        challenge does not make a peer follow us to another address (RFC 9000 section 9.1).
        """
        validated = [path for path in self._live if path.is_validated]
        for path in validated if len(validated) > 1 else ():
            if path.challenge_at is None:
                self.challenge(path.id, now)
                if path is self._data_path:  # once, for each puts its next probe timeout off
                    path.challenge_count = MAX_MEASUREMENTS - 1
            if path is not self._data_path and not path.pings and path.probes == 0:
                path.pings.append(0)  # else its own probes ask

    def _leave_silent(self, data: Path, now: float) -> None:
        """The data path works, so what is missing, acknowledgements, went another way, on which the
        peer sends. Give up those that answer nothing, and it has to take ours."""
        for path in list(self._live):
            if path is data or not path.is_validated or path.answered_at >= self._asked_before:
                continue
            if sum(at <= now - _MAX_DOUBT for at, _ in path.challenges.values()) >= FAILOVER_PTOS:
                self._abandon(path, PathError.PATH_UNSTABLE_OR_POOR, now, by_peer=False)

    def _living(self, data: Path) -> list[Path]:
        """Other paths on which the peer has answered since the data path has been silent. That
        something came in says little: the way out may be what is broken."""
        since = data.probing_since
        if since is None:
            return []
        others = [path for path in self._live if path is not data and path.is_validated]
        return [path for path in others if path.answered_at > since]

    def _doubt(self, data: Path, now: float) -> None:
        """The data path seems dead. A peer that was merely busy answers on all paths at once, and
        not in our order: look again a moment later."""
        if data.probes >= FAILOVER_PTOS and self._living(data):
            rtt = data.recovery.smoothed_rtt if data.recovery is not None else 0.0
            self._failover_at = now + min(_DOUBT + rtt, _MAX_DOUBT)

    def _fail_over(self, data: Path, now: float) -> None:
        living = self._living(data)
        dead = [p for p in self._live if p.is_validated and p not in living and p is not data]
        self._abandon(data, PathError.PATH_UNSTABLE_OR_POOR, now, by_peer=False)
        while self._data_path in dead:
            # Preferred by status, but as silent as the one that was left.
            self._abandon(self._data_path, PathError.PATH_UNSTABLE_OR_POOR, now, by_peer=False)
