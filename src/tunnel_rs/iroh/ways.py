"""Ways of finding where a peer can be reached. All of them are asked at once.

A way hands in addresses as it finds them; the dialler adds each to the one handshake that is under
way, and the first valid answer wins. New ways are one class each.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from tunnel_rs.errors import TunnelError
from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.iroh.resolve import Resolver
from tunnel_rs.net.tasks import ScopeFullError, TaskScope
from tunnel_rs.net.udp import sock_addr
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.pkarr import EndpointRecord
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.values import EndpointId, SocketAddr

OnFound = Callable[[Address, str], None]
"""Takes an address in the form the endpoint's faces know, and how to call it for people."""

Cancel = Callable[[], None]


class Way(Protocol):
    """One way of finding addresses of a peer. Used for one search at a time."""

    @property
    def name(self) -> str:
        """For people: `LAN`, `given addresses`."""

    @property
    def keeps_looking(self) -> bool:
        """Whether more may come after `find` has returned."""

    @property
    def problem(self) -> str:
        """Why the latest search found nothing (so far), in words; empty when there is no more to
        say than that."""

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        """Begin; call `on_found` for each address, at once or later, until cancelled."""


class GivenAddresses:
    """Addresses the user named."""

    name = "given addresses"
    problem = ""
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
    problem = ""
    keeps_looking = True

    def __init__(self, discovery: LanDiscovery) -> None:
        self._discovery = discovery

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        lookup = self._discovery.lookup(
            peer, lambda address: on_found(sock_addr(address), f"{address} (LAN)")
        )
        return lookup.cancel


class Relays:
    """Relays the peer may be at home on: it is asked for at each of them."""

    name = "relays"
    problem = ""

    def __init__(self, urls: Sequence[str], head_start: float = 0.0) -> None:
        """`urls` in the normal form of `RelayUrl.text`. `head_start`: seconds that the other ways
        have before these relays are bothered."""
        self._urls = urls
        self._head_start = head_start
        self.keeps_looking = head_start > 0

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        def tell() -> None:
            for url in self._urls:
                on_found(RelayAddr(url, peer), _relay_text(url))

        if not self._head_start:
            tell()
            return lambda: None
        return asyncio.get_running_loop().call_later(self._head_start, tell).cancel


class Discovery:
    """A look-up of the peer's record over the internet. Its relays and addresses are hints: the
    handshake proves the key."""

    keeps_looking = True

    def __init__(
        self, name: str, resolver: Resolver, tasks: TaskScope, *, relays: bool = True
    ) -> None:
        """`name`: what is asked, for people. `tasks` owns the look-ups. Without `relays` only
        addresses are of use."""
        self.name = name
        self._relays = relays
        self.problem = ""
        self._resolver = resolver
        self._tasks = tasks

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        self.problem = "no answer so far"
        try:
            task = self._tasks.spawn(self._look_up(peer, on_found), f"look-up {peer.short}")
        except ScopeFullError as error:
            self.problem = str(error)
            return lambda: None

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _look_up(self, peer: EndpointId, on_found: OnFound) -> None:
        try:
            async for record in self._resolver.resolve(peer):
                self.problem = ""
                self._tell(peer, record, on_found)
        except TunnelError as error:
            self.problem = str(error)

    def _tell(self, peer: EndpointId, record: EndpointRecord, on_found: OnFound) -> None:
        for address in record.addresses:
            on_found(sock_addr(address), f"{address} ({self.name})")
        if self._relays:
            for url in record.relay_urls:
                on_found(RelayAddr(url, peer), _relay_text(url))
        elif not record.addresses:
            self.problem = "it is reached over a relay, and relays are turned off"


def _relay_text(url: str) -> str:
    return f"relay {url}"
