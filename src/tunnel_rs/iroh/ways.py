"""Ways of finding where a peer can be reached. All of them are asked at once.

A way hands in addresses as it finds them; the dialler adds each to the one handshake that is under
way, and the first valid answer wins. New ways (relays, internet discovery) are one class each.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.net.udp import sock_addr
from tunnel_rs.proto.engine import Address
from tunnel_rs.values import EndpointId, SocketAddr

OnFound = Callable[[Address, str], None]
"""Takes an address in the form the endpoint's faces know, and how to call it for people."""

Cancel = Callable[[], None]


class Way(Protocol):
    """One way of finding addresses of a peer."""

    @property
    def name(self) -> str:
        """For people: `LAN`, `given addresses`."""

    @property
    def keeps_looking(self) -> bool:
        """Whether more may come after `find` has returned."""

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        """Begin; call `on_found` for each address, at once or later, until cancelled."""


class GivenAddresses:
    """Addresses the user named."""

    name = "given addresses"
    keeps_looking = False

    def __init__(self, addresses: Sequence[SocketAddr]) -> None:
        self._addresses = addresses

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        for address in self._addresses:
            on_found(sock_addr(address), str(address))
        return lambda: None


class Lan:
    """Multicast DNS on the local network."""

    name = "LAN"
    keeps_looking = True

    def __init__(self, discovery: LanDiscovery) -> None:
        self._discovery = discovery

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        lookup = self._discovery.lookup(
            peer, lambda address: on_found(sock_addr(address), f"{address} (LAN)")
        )
        return lookup.cancel
