"""Which addresses a client may be connected to: allow-lists of networks, deny by default.

An empty list denies its protocol. Addresses are judged after names were resolved, and only what
`SourcePolicy.permitted` returns is dialled (spec `tunnel-protocol.md`, last section, points 1, 2).
"""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from tunnel_rs.values import Protocol, quoted

Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_BROADCAST = IPv4Address("255.255.255.255")
_THIS_HOST = IPv4Network("0.0.0.0/8")


def parse_network(text: str) -> Network:
    """Read `network/prefix length`, or one address alone. Raises ValueError saying what to write.

    Masks in dotted form, scope ids and IPv4-mapped networks are refused: each would silently
    allow something else than it seems to.
    """
    address, slash, prefix = text.partition("/")
    if slash and not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(f"{quoted(text)}: write the prefix length as a number, 10.0.0.0/8")
    if "%" in address:
        raise ValueError(f"{quoted(text)}: a scope id (the part after %) is not accepted")
    try:
        interface = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is not a network; write 10.0.0.0/8, 192.0.2.7/32 or fd00::/8"
        ) from None
    network = ip_network(interface.network)
    if interface.ip != network.network_address:
        raise ValueError(f"{quoted(text)} has host bits set; write {network} or {interface.ip}")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        base = network.network_address.ipv4_mapped
        raise ValueError(f"{quoted(text)}: write it as IPv4, {base}/{network.prefixlen - 96}")
    return network


def _unmapped(ip: str) -> IPv4Address | IPv6Address | None:
    """The address to judge and to dial; None when `ip` is no address or has a scope id."""
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        return None
    return address.ipv4_mapped or address


def _is_one_host(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address names one machine, and names it the same way for everybody."""
    if address.is_multicast or address.is_unspecified:
        return False
    return address != _BROADCAST and address not in _THIS_HOST


class SourcePolicy:
    """The allow-lists of a server."""

    def __init__(self, allowed_tcp: tuple[Network, ...], allowed_udp: tuple[Network, ...]) -> None:
        self._allowed = {Protocol.TCP: allowed_tcp, Protocol.UDP: allowed_udp}

    def serves(self, protocol: Protocol) -> bool:
        """Whether any address may be reached by this protocol."""
        return bool(self._allowed[protocol])

    def allows(self, protocol: Protocol, ip: str) -> bool:
        """Whether this address may be reached. An IPv4-mapped IPv6 address counts as IPv4;
        unspecified, multicast and broadcast addresses and scope ids are refused always."""
        return bool(self.permitted(protocol, (ip,)))

    def permitted(self, protocol: Protocol, ips: Sequence[str]) -> list[str]:
        """The allowed ones of `ips` in their order, each once, in the very form that was judged
        (IPv4-mapped ones as IPv4): dial these texts and nothing else."""
        judged = (_unmapped(ip) for ip in ips)
        allowed = (a for a in judged if a is not None and self._contains(protocol, a))
        return list(dict.fromkeys(str(address) for address in allowed))

    def _contains(self, protocol: Protocol, address: IPv4Address | IPv6Address) -> bool:
        return _is_one_host(address) and any(
            address in network for network in self._allowed[protocol]
        )
