"""Two engines joined by several paths, each with its own wires, on a virtual clock."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from aioquic.quic.events import QuicEvent

from tests.support.engines import CLIENT, MAX_IDLE_TURNS, PAIRS, SERVER, Network, Peer, Wire
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.path_state import PathState

FIRST, SECOND, THIRD = "first", "second", "third"


@dataclass
class Link:
    """One way between client and server. `far` is what the client calls the server on it, `near`
    what the server calls the client."""

    far: Hashable
    near: Hashable
    up: Wire = field(default_factory=Wire)
    down: Wire = field(default_factory=Wire)

    def cut(self, is_cut: bool = True) -> None:
        self.up.cut = self.down.cut = is_cut

    def delay(self, seconds: float) -> None:
        self.up.delay = self.down.delay = seconds

    def lose(self, share: float) -> None:
        self.up.loss = self.down.loss = share


class PathNetwork(Network):
    """`links` by name; the name is the server's address too. What goes elsewhere is lost."""

    def __init__(self, names: tuple[str, ...] = (FIRST, SECOND, THIRD), **options: Any) -> None:
        self.links = {name: Link(name, f"client on {name}") for name in names}
        self.sent: dict[str, int] = dict.fromkeys((CLIENT, SERVER), 0)
        options.setdefault("candidates", (names[0],))
        super().__init__(**options)

    def _send(self, peer: Peer, wire: Wire, to: str) -> None:
        for data, segment_size, address in peer.engine.trains(self.now):
            view = bytes(data)
            assert view
            for start in range(0, len(view), segment_size):
                self.route(to, view[start : start + segment_size], address)

    def route(self, to: str, datagram: bytes, address: Hashable) -> None:
        """Let `datagram` travel to what its sender calls `address`."""
        self.datagrams += 1
        for link in self.links.values():
            if to == SERVER and address == link.far:
                self.sent[to] += len(datagram)
                self.travel(link.up, to, datagram, link.near)
            elif to == CLIENT and address == link.near:
                self.sent[to] += len(datagram)
                self.travel(link.down, to, datagram, link.far)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """As for one path, but looks only at the side that something has happened to: random
        networks run a thousand times."""
        end = self.now + seconds
        idle_turns = 0
        self.flush()
        timers = {CLIENT: self._timer_of(self.client), SERVER: self._timer_of(self.server)}
        while not until():
            due = min(timers.values())
            if self._queue:
                due = min(due, self._queue[0][0])
            due = max(due, self.now)
            if due > end:
                break
            idle_turns = idle_turns + 1 if due == self.now else 0
            assert idle_turns < MAX_IDLE_TURNS, "an engine asks for timers and does nothing"
            self.now = due
            for name in self._turn(timers):
                peer = self.client if name == CLIENT else self.server
                if peer is not None:
                    to = SERVER if name == CLIENT else CLIENT
                    self._send(peer, self.up if to == SERVER else self.down, to)
                    timers[name] = self._timer_of(peer)
        if not until():
            self.now = max(self.now, end)

    def _turn(self, timers: dict[str, float]) -> set[str]:
        """Deliver what arrives now and let timers fire; to whom something has happened."""
        touched = set()
        for to, train, segment_size, origin in self._arrivals():
            self._deliver(to, train, segment_size, origin)
            touched.add(to)
        for name, peer in ((CLIENT, self.client), (SERVER, self.server)):
            if peer is not None and timers[name] <= self.now:
                timer = peer.engine.get_timer()
                if timer is not None and timer <= self.now:
                    peer.engine.handle_timer(self.now)
                    peer.take_events()
                touched.add(name)
        return touched

    def _timer_of(self, peer: Peer | None) -> float:
        timer = peer.engine.get_timer() if peer is not None else None
        return float("inf") if timer is None else timer

    # What tests ask

    def both(self) -> tuple[MultipathEngine, MultipathEngine]:
        assert self.server is not None
        client, server = self.client.engine, self.server.engine
        assert isinstance(client, MultipathEngine) and isinstance(server, MultipathEngine)
        return client, server

    def open(self, name: str, *, backup: bool = True, seconds: float = 5.0) -> int:
        """Open a path from the client over the link; its id once both sides have validated it."""
        client, server = self.both()
        path_id = client.open_path(name, self.now, backup=backup)
        assert path_id is not None
        self.run(seconds, lambda: self.is_valid(path_id))
        assert self.is_valid(path_id), "the path was not validated"
        return path_id

    def is_valid(self, path_id: int) -> bool:
        states = (path_of(engine, path_id, self.now) for engine in self.both())
        return all(state is not None and state.is_validated for state in states)


def path_of(engine: MultipathEngine, path_id: int, now: float) -> PathState | None:
    return next((path for path in engine.paths(now) if path.id == path_id), None)


def data_path(engine: MultipathEngine, now: float) -> int:
    return next(path.id for path in engine.paths(now) if path.is_data)


def events_of(peer: Peer | None, kind: type[QuicEvent]) -> list[Any]:
    assert peer is not None
    return peer.event(kind)


def connected(pair: str = "fast", **options: Any) -> PathNetwork:
    """Two engines past the handshake, with nothing on its way."""
    make_engine, make_server = PAIRS[pair]
    options = {"make_engine": make_engine, "make_server": make_server, **options}
    network = PathNetwork(**options)
    network.connect()
    network.settle()
    return network
