"""One random connection over several paths, from a seed: loss, latency, NATs, blackholes, key
updates, and sides that open, prefer and abandon paths while data flows. Used by the suite with
a thousand seeds, and by `make multipathsoak` with as many as wanted.
"""

import random
from dataclasses import dataclass

from tests.support.engines import CLIENT, PAIRS, SERVER, Peer, open_stream, payload
from tests.support.nat_model import RELAY, Nat, NatNetwork
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.values import SocketAddr

SPARE = ("spare 1", "spare 2", "spare 3")
LIMIT = 150.0
"""Seconds of virtual time in which all data must have arrived."""


@dataclass
class Outcome:
    """What a run came to; the same for the same seed."""

    virtual_seconds: float
    datagrams: int
    abandoned: int
    has_direct: bool


class _Run:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random
        make_engine, make_server = pick.choice(list(PAIRS.values()))
        self.network = network = NatNetwork(
            pick.choice(list(Nat)),
            pick.choice(list(Nat)),
            spare=SPARE,
            seed=seed,
            make_engine=make_engine,
            make_server=make_server,
            offload=pick.random() < 0.5,
        )
        loss = pick.choice((0.0, 0.0, 0.01, 0.05))
        for link in network.links.values():
            link.delay(pick.choice((0.0005, 0.005, 0.040, 0.150)))
            link.lose(loss)
            link.up.jitter = link.down.jitter = pick.choice((0.0, 0.0, 0.010))
        network.direct.delay = pick.choice((0.0005, 0.010, 0.060))
        network.direct.loss = pick.choice((0.0, 0.02))
        self.data: list[tuple[Peer, Peer, int, bytes]] = []

    def go(self) -> Outcome:
        network, pick = self.network, self.random
        network.connect()
        network.know_each_other()
        self.begin()
        if pick.random() < 0.8:
            network.tell_candidates()
        for _ in range(pick.randrange(2, 7)):
            self.act()
            self.check()
            network.run(pick.choice((0.01, 0.1, 0.5, 2.0)))
        for link in network.links.values():
            link.cut(False)
        network.direct.cut = False
        network.run(LIMIT, self.is_done)
        self.check()
        assert self.is_done(), "data did not arrive"
        network.run(5.5)
        self.check()
        client, _ = network.both()
        return Outcome(
            round(network.now, 6),
            network.datagrams,
            len({path for path in range(client._highest_used + 1) if path in client._gone}),
            network.direct_path() is not None,
        )

    def begin(self) -> None:
        """Data in both directions, which flows while things happen."""
        client, server = self.network.client, self.network.server
        assert server is not None
        stream = open_stream(client)
        client.engine.write(stream, b"!", False)
        self.network.run(5, lambda: stream in server.received)
        self.send(client, server, stream)
        self.send(server, client, stream)

    def send(self, sender: Peer, receiver: Peer, stream: int) -> None:
        data = payload(self.random.choice((500, 4_000, 12_000)), stream)
        sender.engine.write(stream, data, True)
        self.data.append((sender, receiver, stream, data))

    def is_done(self) -> bool:
        return all(
            stream in receiver.ended
            and bytes(receiver.received[stream]).lstrip(b"!") == data.lstrip(b"!")
            for _, receiver, stream, data in self.data
        )

    def act(self) -> None:
        network, pick = self.network, self.random
        side = pick.choice(network.both())
        now = network.now
        paths = side.paths(now)
        path = pick.choice(paths) if paths else None
        what = pick.randrange(10)
        if what <= 1:
            network.both()[0].open_path(pick.choice(SPARE), now, backup=pick.random() < 0.5)
        elif what == 2 and path is not None:
            side.select_path(path.id)
        elif what == 3 and path is not None:
            side.set_available(path.id, pick.random() < 0.5)
        elif what == 4 and path is not None:
            side.abandon_path(path.id, now)
        elif what == 5:
            link = pick.choice(list(network.links.values()))
            link.cut(pick.random() < 0.6)
        elif what == 6:
            network.direct.cut = pick.random() < 0.5
        elif what == 7:
            side.request_key_update()
        elif what == 8:
            self.move(side)
        else:
            pick.choice(list(network.links.values())).delay(pick.choice((0.001, 0.050)))

    def move(self, side: MultipathEngine) -> None:
        """A NAT forgets, or the client's address on a link is another."""
        network = self.network
        if self.random.random() < 0.5:
            network.hosts[self.random.choice((CLIENT, SERVER))].rebind()
            network.tell_candidates()
            side.network_changed(network.now)
        else:
            link = network.links[self.random.choice(SPARE)]
            link.near = f"{link.near}'"

    def check(self) -> None:
        """What must hold at any time."""
        for engine in self.network.both():
            assert engine.ending is None, f"closed: {engine.ending}"
            assert len(engine._live) <= 16 and len(engine._paths) <= 24
            assert len(engine._queue) <= 64
            assert engine._path is engine._data_path
            addresses = [path.address for path in engine.paths(self.network.now)]
            if engine.is_client:
                assert len(set(addresses)) == len(addresses)
                assert all(isinstance(a, SocketAddr) or a == RELAY or a in SPARE for a in addresses)
            else:
                self.check_amplification(engine)

    def check_amplification(self, server: MultipathEngine) -> None:
        for path in server._live:
            for used in path.network_paths:
                if not used.is_validated:
                    assert used.bytes_sent <= 3 * used.bytes_received


def run_seed(seed: int) -> Outcome:
    """Raises AssertionError, naming the seed, when anything is lost or forbidden."""
    try:
        return _Run(seed).go()
    except AssertionError as exc:
        raise AssertionError(f"seed {seed}: {exc}") from exc
