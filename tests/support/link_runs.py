"""What a connection makes of a link of some quality, beside a relay: on a virtual clock, with each
side choosing its path as programs do.
"""

from dataclasses import dataclass, replace
from hashlib import sha256

from tests.support.engines import CLIENT, SERVER, SERVER_IDENTITY, Peer, Wire, open_stream, payload
from tests.support.link_quality import Quality
from tests.support.nat_model import Nat, NatNetwork
from tests.support.paths import events_of
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.multipath_frames import PathError
from tunnel_rs.proto.path_choice import PathChoice
from tunnel_rs.proto.path_state import DataPathChanged, PathAbandoned, PathsChanged, PathState
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.values import SocketAddr

RELAY_DELAY = 0.080
TRANSFER_WITHIN = 300.0

_RELAY = RelayAddr("https://relay.example/", SERVER_IDENTITY.endpoint_id)


class _Chooser:
    """One side's choice, asked whenever its paths have changed: what `iroh.path_steering` does."""

    def __init__(self, peer: Peer, *, is_client: bool) -> None:
        self.peer = peer
        self.choice = PathChoice(is_client=is_client)
        self.seen = 0

    def look(self, now: float) -> None:
        new, self.seen = self.peer.events[self.seen :], len(self.peer.events)
        for event in new:
            if isinstance(event, PathAbandoned) and event.code == PathError.PATH_UNSTABLE_OR_POOR:
                if isinstance(event.address, SocketAddr):
                    self.choice.failed((event.address.ip, event.address.port), now)
        retry_at = self.choice.retry_at(now)
        if any(isinstance(event, PathsChanged) for event in new) or retry_at is not None:
            self.follow(now)

    def follow(self, now: float) -> None:
        engine = self.peer.engine
        assert isinstance(engine, MultipathEngine)
        decision = self.choice.decide([_as_known(path) for path in engine.paths(now)], now)
        if decision.select is not None:
            engine.select_path(decision.select)
        for path_id in decision.close:
            engine.abandon_path(path_id, now)
        for path_id in decision.measure:
            engine.challenge(path_id, now)


def _as_known(path: PathState) -> PathState:
    """The relayed path has a name here, and the choice knows relays by their addresses."""
    if isinstance(path.address, SocketAddr):
        return replace(path, address=(path.address.ip, path.address.port))
    return replace(path, address=_RELAY)


class SteeredNetwork(NatNetwork):
    """Both sides choose for what they send."""

    choosers: tuple[_Chooser, ...] = ()

    def steer(self) -> None:
        """From now on."""
        assert self.server is not None
        self.choosers = (
            _Chooser(self.client, is_client=True),
            _Chooser(self.server, is_client=False),
        )

    def _turn(self, timers: dict[str, float]) -> set[str]:
        touched = super()._turn(timers)
        for name, chooser in zip((CLIENT, SERVER), self.choosers, strict=False):
            if name in touched:
                chooser.look(self.now)
        return touched


@dataclass
class Outcome:
    """Virtual seconds from the first datagram on, bytes a second each way, and how often one
    side's data went back to the relay."""

    connected: float
    direct: float | None
    up: float
    down: float
    falls: int
    is_direct: bool


def run_link(quality: Quality, seed: int = 0, *, most: int = 4_000_000) -> Outcome:
    """Connect over the relay, go to the direct link, transfer both ways, `most` bytes
    at most. Raises AssertionError when
    something does not arrive, or not as it was sent."""
    network = SteeredNetwork(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED, seed=seed)
    network.relay.delay(RELAY_DELAY)
    network.direct_back = Wire()
    for wire in (network.direct, network.direct_back):
        wire.rate, wire.queue = quality.rate * 125_000, quality.queue
        wire.loss, wire.delay = quality.loss, quality.delay
    began = network.now
    network.connect()
    connected = network.now - began
    network.know_each_other()
    network.steer()
    network.tell_candidates()
    network.run(60.0, lambda: is_direct(network))
    direct = network.now - began if is_direct(network) else None
    client, server = network.client, network.server
    assert server is not None
    stream = open_stream(client)
    size = min(quality.size, most)
    up = transfer(network, client, server, stream, size)
    down = transfer(network, server, client, stream, size)
    return Outcome(connected, direct, up, down, falls(network), is_direct(network))


def is_direct(network: NatNetwork) -> bool:
    """Whether both sides' data goes directly."""
    now = network.now
    return all(
        isinstance(path.address, SocketAddr)
        for engine in network.both()
        for path in engine.paths(now)
        if path.is_data
    )


def falls(network: NatNetwork) -> int:
    peers = network.client, network.server
    moves = [event for peer in peers for event in events_of(peer, DataPathChanged)]
    return sum(not isinstance(event.address, SocketAddr) for event in moves)


def transfer(network: NatNetwork, sender: Peer, receiver: Peer, stream: int, size: int) -> float:
    """Bytes a second."""
    began, data = network.now, payload(size, size)
    sender.engine.write(stream, data, True)
    network.run(TRANSFER_WITHIN, lambda: stream in receiver.ended)
    assert sha256(receiver.received[stream]).digest() == sha256(data).digest()
    return size / (network.now - began)
