"""Tests of `tunnel_rs.iroh.ways`."""

from collections.abc import Callable
from typing import cast

from tunnel_rs.iroh.lan import LanDiscovery, LanLookup
from tunnel_rs.iroh.ways import GivenAddresses, Lan, Way
from tunnel_rs.values import EndpointId, SocketAddr

PEER = EndpointId.parse("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61")
V4, V6 = SocketAddr("192.0.2.7", 4444), SocketAddr("2001:db8::7", 4444)


class FakeLan:
    def __init__(self) -> None:
        self.asked: list[EndpointId] = []
        self.cancelled = 0
        self.on_found: Callable[[SocketAddr], None]

    def lookup(self, peer: EndpointId, on_found: Callable[[SocketAddr], None]) -> LanLookup:
        self.asked.append(peer)
        self.on_found = on_found
        return LanLookup(self._cancel)

    def _cancel(self) -> None:
        self.cancelled += 1


def test_given_addresses_are_found_at_once_and_that_is_all() -> None:
    found: list[tuple[object, str]] = []
    way: Way = GivenAddresses([V4, V6])
    cancel = way.find(PEER, lambda address, text: found.append((address, text)))
    assert found == [
        (("192.0.2.7", 4444), "192.0.2.7:4444"),
        (("2001:db8::7", 4444, 0, 0), "[2001:db8::7]:4444"),
    ]
    assert not way.keeps_looking
    cancel()
    assert way.name == "given addresses"


def test_the_lan_is_asked_until_cancelled_and_its_addresses_are_marked() -> None:
    found: list[tuple[object, str]] = []
    lan = FakeLan()
    way: Way = Lan(cast(LanDiscovery, lan))
    cancel = way.find(PEER, lambda address, text: found.append((address, text)))
    assert (lan.asked, found) == ([PEER], [])
    lan.on_found(V6)
    assert found == [(("2001:db8::7", 4444, 0, 0), "[2001:db8::7]:4444 (LAN)")]
    assert way.keeps_looking
    assert way.name == "LAN"
    cancel()
    assert lan.cancelled == 1
