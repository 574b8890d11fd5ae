"""Keeps a connection of several paths on the best of them, and tells of each change.

The choice is `proto.path_choice`; the paths are the engine's. Both ends have one of these.
"""

import asyncio
from collections.abc import Callable

from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.path_choice import PathChoice, is_relayed, way_name
from tunnel_rs.proto.path_state import PathState
from tunnel_rs.reports import PathChanged, PathSeen, PathsSeen, Reporter
from tunnel_rs.values import EndpointId

MEASURE_AGAIN = 1.0
"""Seconds after which a path whose round trip is still unknown is measured again."""


class PathSteering:
    """Made once a connection is up; follows its paths until it ends."""

    def __init__(
        self,
        connection: QuicConnection,
        report: Reporter,
        *,
        peer: EndpointId | None = None,
        direct_only: bool = False,
        on_path: Callable[[], None] = lambda: None,
        on_direct_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`peer`: named in reports; a client has one server, and no need to. `direct_only`: see
        `PathChoice`. `on_path` is called when data goes another way than before,
        `on_direct_failed` when a direct path was given up as nothing passed."""
        self._connection = connection
        self._report = report
        self._peer = peer
        self._on_path = on_path
        self._on_direct_failed = on_direct_failed
        self._loop = asyncio.get_running_loop()
        is_client = connection.engine.is_client
        self._choice = PathChoice(is_client=is_client, direct_only=direct_only)
        self._measured: dict[int, float] = {}
        self._address = connection.engine.address
        self._seen: tuple[PathSeen, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        self._connection.on_paths_changed = self._steer
        self._connection.on_path_failed = self._failed
        self._connection.on_peer_moved = self.network_changed
        self._steer()

    def stop(self) -> None:
        """Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def network_changed(self) -> None:
        """Ours or the peer's: what failed before may work now."""
        self._choice.network_changed()

    def _failed(self, address: Address) -> None:
        self._choice.failed(address, self._loop.time())
        if not is_relayed(address):
            self._on_direct_failed()

    def _steer(self) -> None:
        engine, now = self._connection.engine, self._loop.time()
        if self._stopped or engine.is_closing:
            self.stop()
            return
        decision = self._choice.decide(engine.paths(now), now)
        if decision.select is not None:
            engine.select_path(decision.select)
        for path_id in decision.close:
            engine.abandon_path(path_id, now)
        self._measure(decision.measure, now)
        self._connection.schedule_flush()
        self._tell(engine.paths(now))
        self._wake_at(self._choice.retry_at(now))

    def _measure(self, wanted: tuple[int, ...], now: float) -> None:
        asked = {
            path_id: self._measured[path_id] for path_id in wanted if path_id in self._measured
        }
        for path_id in wanted:
            if now - asked.get(path_id, float("-inf")) >= MEASURE_AGAIN:
                self._connection.engine.challenge(path_id, now)
                asked[path_id] = now
        self._measured = asked

    def _wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_at(when, self._steer)

    # Telling

    def _tell(self, paths: list[PathState]) -> None:
        data = next((path for path in paths if path.is_data), None)
        if data is not None and data.address != self._address:
            before, self._address = self._way(self._address), data.address
            self._report(PathChanged(self._way(data.address), _rtt(data), before, self._peer))
            self._on_path()
        seen = tuple(PathSeen(self._way(path.address), _use(path)) for path in paths)
        if seen != self._seen:
            self._seen = seen
            if len(seen) > 1:
                self._report(PathsSeen(seen, self._peer))

    def _way(self, address: Address) -> str:
        return way_name(address, self._connection.text_of(address))


def _rtt(path: PathState) -> float | None:
    return path.rtt if path.rtt is not None else path.smoothed_rtt or None


def _use(path: PathState) -> str:
    if path.is_data:
        return "in use"
    return "spare" if path.is_validated else "being tried"
