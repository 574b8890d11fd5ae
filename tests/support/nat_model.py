"""Two engines behind NATs of their own, and a relayed path between them, on a virtual clock.

A NAT is three questions: does a mapping depend on where one sends (RFC 4787 section 4.1), whose
packets does it let in (section 5), and which port does it use. Addresses of the engines are
`SocketAddr`; the relayed path's is a name.
"""

import enum
import random
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from tests.support.engines import CLIENT, SERVER, Peer, Wire
from tests.support.paths import Link, PathNetwork
from tunnel_rs.proto.nat_traversal import shared_budget
from tunnel_rs.proto.traversal import Traversal
from tunnel_rs.values import SocketAddr

RELAY = "relay"


class Nat(enum.Enum):
    """Kinds of NATs, from the most to the least helpful."""

    OPEN = "none"
    ENDPOINT_INDEPENDENT = "mapping and filtering do not depend on the peer"
    PORT_RESTRICTED = "lets in only who was sent to"
    SYMMETRIC = "another mapping for each peer, and lets in only that one"


@dataclass
class Host:
    """One machine, and the NAT before it."""

    private: SocketAddr
    public_ip: str
    nat: Nat
    mappings: dict[Hashable, int] = field(default_factory=dict)
    inside: dict[int, set[SocketAddr]] = field(default_factory=dict)
    next_port: int = 20_000

    def leave(self, to: SocketAddr) -> SocketAddr:
        """What the world sees as the source of a packet to `to`."""
        if self.nat is Nat.OPEN:
            return self.private
        key: Hashable = to if self.nat is Nat.SYMMETRIC else "any"
        if key not in self.mappings:
            self.mappings[key] = self.next_port
            self.inside[self.next_port] = set()
            self.next_port += 7
        port = self.mappings[key]
        self.inside[port].add(to)
        return SocketAddr(self.public_ip, port)

    def takes(self, to: SocketAddr, source: SocketAddr) -> bool:
        """Whether a packet from outside gets in."""
        if self.nat is Nat.OPEN:
            return to == self.private
        if to.ip != self.public_ip or to.port not in self.inside:
            return False
        return self.nat is Nat.ENDPOINT_INDEPENDENT or source in self.inside[to.port]

    def rebind(self) -> None:
        """The NAT has forgotten everything."""
        self.mappings.clear()
        self.inside.clear()

    def candidates(self) -> list[SocketAddr]:
        """What the machine knows of its addresses: its own, and what a third party saw."""
        seen = self.leave(SocketAddr("198.51.100.9", 3478))
        return list(dict.fromkeys([seen, self.private]))


def traversal(seed: int = 0) -> Traversal:
    return Traversal(
        budget=shared_budget(0.0),
        to_address=lambda address: address,
        to_socket=lambda address: address if isinstance(address, SocketAddr) else None,
        reaches=lambda _: True,
        random_bytes=random.Random(seed).randbytes,
    )


class NatNetwork(PathNetwork):
    """A client and a server that begin on a relayed path and look for a direct one."""

    def __init__(
        self, client_nat: Nat, server_nat: Nat, *, spare: tuple[str, ...] = (), **options: Any
    ) -> None:
        """`spare`: other paths that the client could open, which no NAT is before."""
        self.hosts = {
            CLIENT: _host("10.1.1.2", "203.0.113.1", "192.0.2.1", client_nat),
            SERVER: _host("10.2.2.2", "203.0.113.2", "192.0.2.2", server_nat),
        }
        self.direct = Wire(delay=0.005)
        self.direct_back = self.direct
        """The way to the client; the same wire, unless it is set to another."""
        self.direct_bytes = 0
        options.setdefault("client_traversal", traversal(1))
        options.setdefault("server_traversal", traversal(2))
        super().__init__(names=(RELAY, *spare), **options)
        self.relay: Link = self.links[RELAY]
        self.relay.delay(0.040)

    def route(self, to: str, datagram: bytes, address: Hashable) -> None:
        if not isinstance(address, SocketAddr):
            super().route(to, datagram, address)
            return
        self.datagrams += 1
        sender = self.hosts[CLIENT if to == SERVER else SERVER]
        source = sender.leave(address)
        if self.hosts[to].takes(address, source):
            self.direct_bytes += len(datagram)
            self.travel(self.direct if to == SERVER else self.direct_back, to, datagram, source)

    def know_each_other(self) -> None:
        """The applications have told who the other is."""
        for engine in self.both():
            engine.open_window()

    def tell_candidates(self) -> None:
        """Both sides learn where they may be reached."""
        for name, engine in zip((CLIENT, SERVER), self.both(), strict=True):
            engine.set_candidates(self.hosts[name].candidates(), self.now)

    def direct_path(self, peer: Peer | None = None) -> int | None:
        """Id of the client's (or the peer's) valid direct path."""
        engine = self.both()[0] if peer is None else peer.engine
        return next(
            (
                path.id
                for path in engine.paths(self.now)  # type: ignore[attr-defined]
                if path.is_validated and isinstance(path.address, SocketAddr)
            ),
            None,
        )


def _host(private: str, public: str, open_ip: str, nat: Nat) -> Host:
    """Without a NAT a machine has a public address itself."""
    own = open_ip if nat is Nat.OPEN else private
    return Host(SocketAddr(own, 5000), public, nat)
