"""The network interfaces of this machine and their addresses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import ifaddr

from tunnel_rs.values import SocketAddr


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface that has at least one address. `index` is the one of RFC 3493 section 4."""

    name: str
    index: int
    ipv4: tuple[IPv4Address, ...] = ()
    ipv6: tuple[IPv6Address, ...] = ()
    """Without those of link-local scope."""

    @property
    def is_loopback(self) -> bool:
        return any(ip.is_loopback for ip in self.ips)

    @property
    def ips(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return (*self.ipv4, *self.ipv6)


def local_interfaces() -> tuple[Interface, ...]:
    """Interfaces that have an IPv4 address or an IPv6 one of more than link-local scope.

    Takes well under a millisecond. Raises OSError when the system does not tell.
    """
    interfaces = (
        _interface(adapter.name, adapter.index, adapter.ips) for adapter in ifaddr.get_adapters()
    )
    return tuple(interface for interface in interfaces if interface.ips)


def _interface(name: str, index: int | None, ips: Iterable[ifaddr.IP]) -> Interface:
    ipv4, ipv6 = [], []
    for ip in ips:
        # An IPv6 address comes as (text, flow info, scope id).
        address = ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0])
        if isinstance(address, IPv4Address):
            ipv4.append(address)
        elif not address.is_link_local:
            ipv6.append(address)
    return Interface(name, index or 0, tuple(ipv4), tuple(ipv6))


def reachable_addresses(
    bound: Iterable[SocketAddr], interfaces: Sequence[Interface]
) -> tuple[SocketAddr, ...]:
    """Where sockets bound to `bound` can be reached: a wildcard stands for each address of its
    family on `interfaces`, loopback last. No duplicates; order is kept otherwise.

    `[::]` stands for IPv6 only: give `0.0.0.0` as well for a socket that serves both.
    """
    found: dict[SocketAddr, None] = {}
    for address in bound:
        wildcard = ip_address(address.ip)
        if not wildcard.is_unspecified:
            found[address] = None
            continue
        ips = [ip for each in interfaces for ip in each.ips if ip.version == wildcard.version]
        for ip in sorted(ips, key=lambda ip: ip.is_loopback):
            found[SocketAddr(str(ip), address.port)] = None
    return tuple(found)
