"""Addresses a VPN server gives to its clients (spec `vpn.md` section 2.1)."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

from tunnel_rs.values import Secret

Network = IPv4Network | IPv6Network
A = TypeVar("A", IPv4Address, IPv6Address)

MAX_RELEASED = 4096
"""Released addresses that are remembered, so that they are given again before fresh ones."""

_SMALLEST = {4: 30, 6: 126}


def check_pool(network: Network, server: IPv4Address | IPv6Address | None = None) -> None:
    """Raise ValueError, saying what to write, unless clients can get addresses in `network`."""
    longest = _SMALLEST[network.version]
    if network.prefixlen > longest:
        raise ValueError(
            f"{network} is too small: it needs a /{longest} at least for the server and one client"
        )
    if server is not None and server not in network:
        raise ValueError(f"the server's address {server} is not within {network}")
    if server is not None and int(server) not in _hosts(network):
        raise ValueError(f"the server's address {server} is not one for a host of {network}")


def first_host(network: Network) -> IPv4Address | IPv6Address:
    return network.network_address + 1


def _hosts(network: Network) -> range:
    """All host addresses as numbers. The last one is left out for IPv6 too, as in the original."""
    return range(int(network.network_address) + 1, int(network.broadcast_address))


class AddressPool(Generic[A]):
    """The host addresses of one network, without the server's and the reserved ones.

    A client that holds an address keeps it. Else it gets its own one, if one is set aside for it;
    else the one released last; else a fresh one, counting up from the server's and starting over
    below it.
    """

    def __init__(
        self, network: Network, server: A, *, reserved: Iterable[A] = (), own: Mapping[str, A] = {}
    ) -> None:
        """`own` sets addresses aside, by owner (`own_addresses` makes them)."""
        self.network: Network = network
        self.server: A = server
        self._make: type[A] = type(server)
        self._hosts = _hosts(network)
        self._size = self._hosts.stop - self._hosts.start  # too much for len()
        self._next = int(server) - self._hosts.start + 1
        self._own = {owner: int(address) for owner, address in own.items()}
        self._closed = {int(server), *map(int, reserved), *self._own.values()}
        self._held: dict[Hashable, int] = {}
        self._holders: set[int] = set()
        self._released: dict[int, None] = {}

    def __len__(self) -> int:
        """Addresses in use."""
        return len(self._held)

    def allocate(self, key: Hashable, owner: str | None = None) -> A | None:
        """An address for the client `key`; None when there is none left."""
        address = self._held.get(key)
        if address is None:
            address = self._choose(owner)
            if address is None:
                return None
            self._held[key] = address
            self._holders.add(address)
            self._released.pop(address, None)
        made: A = self._make(address)
        return made

    def release(self, key: Hashable) -> None:
        """The client has gone. Nothing happens when it held none."""
        address = self._held.pop(key, None)
        if address is None:
            return
        self._holders.discard(address)
        if address not in self._closed:
            self._released[address] = None
            if len(self._released) > MAX_RELEASED:
                del self._released[next(iter(self._released))]

    def _choose(self, owner: str | None) -> int | None:
        own = None if owner is None else self._own.get(owner)
        if own is not None and own not in self._holders:
            return own
        if self._released:
            return next(reversed(self._released))
        return self._fresh()

    def _fresh(self) -> int | None:
        # So many are taken at most; one more look than that finds a free one if there is one.
        looks = min(self._size, len(self._closed) + len(self._holders) + 1)
        for _ in range(looks):
            address = self._hosts[self._next % self._size]
            self._next = (self._next + 1) % self._size
            if address not in self._closed and address not in self._holders:
                return address
        return None


def highest_free(network: IPv4Network, taken: Iterable[IPv4Address]) -> IPv4Address:
    """The highest host address that is not taken: what NAT64 uses when none is configured."""
    closed = set(taken)
    for number in reversed(_hosts(network)):
        if IPv4Address(number) not in closed:
            return IPv4Address(number)
    raise ValueError(f"{network} has no address left for NAT64")


def owner_of(token: Secret[str]) -> str:
    """A name for the holder of a token that does not tell the token."""
    return hashlib.sha256(b"tunnel-rs-vpn address\0" + token.reveal().encode()).hexdigest()


def own_addresses(
    network: Network, taken: Iterable[A], owners: Iterable[str], make: type[A]
) -> dict[str, A]:
    """An address for each owner that depends on the owner, not on who else there is or who comes
    first; only when two fall on the same one the later name takes the next. Owners beyond what
    fits get none."""
    hosts = _hosts(network)
    size = hosts.stop - hosts.start
    closed = set(map(int, taken))
    found: dict[str, A] = {}
    for owner in sorted(set(owners)):
        if len(closed) >= size:
            break
        index = int(owner[:16], 16) % size
        while hosts[index] in closed:
            index = (index + 1) % size
        closed.add(hosts[index])
        found[owner] = make(hosts[index])
    return found
