"""Keeps one dialled connection on the best path there is.

A connection that was made over a relay moves to a direct path when one is found; one whose path
has fallen silent moves to any address where the server still answers: another relay after the
server has gone there, an address of the LAN. The move itself is QUIC's (`proto.path_moves`).
One that began directly gets a path over a relay as a spare, for the time when the direct one dies.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from tunnel_rs.iroh.redial import Redial
from tunnel_rs.iroh.ways import Way
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.path_choice import is_relayed, way_name
from tunnel_rs.reports import PathChanged, Reporter
from tunnel_rs.values import EndpointId

CHECK_EVERY = 0.5
"""Seconds between looks at the path while there is something to see to."""

CHECK_IDLE = 5.0
"""Seconds between looks else; the connection calls when it does not get an answer."""

SILENCE = 10.0
"""Seconds without answer, while asking, after which the server is asked for anew."""

SUSPICIOUS = 2.0
"""Seconds without answer, while asking, after which other paths are looked for."""

ASK_AGAIN = 1.0
"""Seconds after which an address that has not answered is asked again."""

LOOK_UP_AGAIN = 5.0
"""Seconds after which the ways are asked again, while there is no path: the server may have gone
to another relay since."""

SETTLED = 15.0
"""Seconds after a move, or a change of the network, during which there is."""

UPGRADE_TIME, UPGRADE_EVERY = 10.0, 60.0
"""While on a relay, a direct path is looked for during the first seconds of each such time."""

SPARE_AFTER, SPARE_TIME = 1.0, 10.0
"""Seconds that a connection has been direct before a spare over a relay is looked for, and for
which that is done at a time. What is over sooner bothers no relay."""

SPARE_AGAIN, SPARE_AGAIN_LIMIT = 60.0, 600.0
"""Seconds until it is looked for again after it was in vain, doubling from the first to the limit:
the server may not be at any relay that we know."""

MAX_KNOWN = 64
"""Addresses remembered; hints from the network beyond that are ignored."""


class PathKeeper:
    """Made once a connection is up; runs on a timer until the connection ends."""

    def __init__(
        self,
        quic: QuicEndpoint,
        connection: QuicConnection,
        peer: EndpointId,
        ways: Sequence[Way],
        report: Reporter,
        known: Iterable[Address],
        redial: Redial,
        *,
        spare_ways: Sequence[Way] = (),
        direct_only: bool = False,
        on_path: Callable[[], None] = lambda: None,
    ) -> None:
        """`known`: addresses found while dialling. `redial` is started while the server has been
        silent for long. `spare_ways`: find the relays that a spare path may take. With
        `direct_only` no relay is gone to. `on_path` is called when the connection has moved."""
        self._quic = quic
        self._connection = connection
        self._peer = peer
        self._ways = ways
        self._spare_ways = spare_ways
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._known = dict.fromkeys(known)
        self._redial = redial
        self._on_path = on_path
        self._fallback = _is_direct if direct_only else _any_path
        self._cancels: list[Callable[[], None]] = []
        self._wanted: Callable[[Address], bool] | None = None
        self._asked_at = self._searched_at = float("-inf")
        self._upgrade_from = self._loop.time()
        self._spare_at = self._loop.time() + SPARE_AFTER
        self._spare_gap = SPARE_AGAIN
        self._has_spare = False
        self._address = connection.engine.address
        self._timer: asyncio.TimerHandle | None = None
        self._is_attentive = True

    @property
    def is_running(self) -> bool:
        """From `start` until the connection has ended."""
        return self._timer is not None

    def start(self) -> None:
        """Watch from now on."""
        self._connection.on_unanswered = self.wake
        self._check()

    def stop(self) -> None:
        """No more timers and searches. Idempotent."""
        self._connection.on_unanswered = lambda: None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._redial.cancel()
        self._end_search()

    def _check(self) -> None:
        engine, now = self._connection.engine, self._loop.time()
        if engine.is_closing:
            self.stop()
            return
        if engine.address != self._address:
            self._moved(now)
        silence = 0.0 if engine.path_is_down else engine.silent_for(now)
        if silence > SILENCE:
            self._redial.start()
        elif not silence:
            self._redial.cancel()
        if engine.path_is_down or silence > SUSPICIOUS:
            self._search(self._fallback, now)
        elif self._is_time_to_upgrade(now):
            self._search(_is_direct, now)
        elif self._is_time_for_spare(now):
            self._search(is_relayed, now)
        else:
            self._end_search()
        self._is_attentive = silence > 0 or self._needs_looks(now)
        delay = CHECK_EVERY if self._is_attentive else self._idle_time(now)
        self._timer = self._loop.call_later(delay, self._check)

    def _needs_looks(self, now: float) -> bool:
        engine = self._connection.engine
        seeks = self._wanted is not None or engine.path_is_down
        could_upgrade = is_relayed(self._address) and not engine.has_nat_traversal
        return seeks or could_upgrade or now - self._upgrade_from < SETTLED

    def _idle_time(self, now: float) -> float:
        """Seconds until something may have to be done, as long as nobody calls."""
        seeks_spare = self._wants_spare and not self._has_spare
        return (
            min(CHECK_IDLE, max(CHECK_EVERY, self._spare_at - now)) if seeks_spare else CHECK_IDLE
        )

    def wake(self) -> None:
        """Look now, unless that is done every now and then anyway."""
        if self._timer is not None and not self._is_attentive:
            self._timer.cancel()
            self._check()

    def network_changed(self) -> None:
        """What was asked in vain may answer now: begin to look anew, if there is a need to."""
        self._asked_at = self._searched_at = float("-inf")
        self._upgrade_from = self._loop.time()
        self._spare_at, self._spare_gap = self._loop.time() + SPARE_AFTER, SPARE_AGAIN
        self.wake()

    def _moved(self, now: float) -> None:
        before, self._address = self._address, self._connection.engine.address
        self._upgrade_from = now
        self._end_search()
        if not self._connection.engine.is_multipath:  # of several paths, who steers them tells
            self._report(PathChanged(self._way(self._address), None, self._way(before)))
        self._on_path()

    def _way(self, address: Address) -> str:
        return way_name(address, self._connection.text_of(address))

    def _is_time_to_upgrade(self, now: float) -> bool:
        # With NAT traversal the engine looks for one by itself.
        if not is_relayed(self._address) or self._connection.engine.has_nat_traversal:
            return False
        return (now - self._upgrade_from) % UPGRADE_EVERY < UPGRADE_TIME

    @property
    def _wants_spare(self) -> bool:
        is_direct = not is_relayed(self._address)
        return bool(self._spare_ways) and is_direct and self._connection.engine.is_multipath

    def _is_time_for_spare(self, now: float) -> bool:
        if not self._wants_spare:
            return False
        paths = self._connection.engine.paths(now)
        self._has_spare = any(path.is_validated and is_relayed(path.address) for path in paths)
        if self._has_spare:
            self._spare_at, self._spare_gap = now + SPARE_AFTER, SPARE_AGAIN
            return False
        if now >= self._spare_at + SPARE_TIME:
            self._spare_at = now + self._spare_gap
            self._spare_gap = min(2 * self._spare_gap, SPARE_AGAIN_LIMIT)
        return now >= self._spare_at

    # A search under way

    def _search(self, wanted: Callable[[Address], bool], now: float) -> None:
        if self._wanted is not wanted:
            self._end_search()
            self._wanted = wanted
        if now - self._searched_at >= (LOOK_UP_AGAIN if wanted is self._fallback else UPGRADE_TIME):
            self._searched_at = now
            self._cancel_ways()
            ways = self._spare_ways if wanted is is_relayed else self._ways
            self._cancels = [way.find(self._peer, self._found) for way in ways]
        if now - self._asked_at >= ASK_AGAIN:
            self._ask_all(now)

    def _end_search(self) -> None:
        if self._wanted is not None:
            self._wanted = None
            self._asked_at = self._searched_at = float("-inf")
            self._cancel_ways()
            self._connection.engine.stop_probing()
            self._connection.schedule_flush()

    def _cancel_ways(self) -> None:
        cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()

    def _found(self, address: Address, text: str) -> None:
        if address not in self._known and len(self._known) < MAX_KNOWN:
            self._known[address] = None
        if self._wanted is not None and self._wanted(address):
            self._quic.probe(self._connection, address)

    def _ask_all(self, now: float) -> None:
        # Connection ids to ask with are few: relays first, they work from everywhere.
        for address in sorted(self._known, key=_is_direct):
            if self._wanted is not None and self._wanted(address):
                if self._quic.probe(self._connection, address):
                    self._asked_at = now


def _any_path(_: Address) -> bool:
    return True


def _is_direct(address: Address) -> bool:
    return not is_relayed(address)
