"""The addresses of a VPN server, over both families."""

from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

from tunnel_rs.proto.vpn_handshake import Lease, Lease4, Lease6
from tunnel_rs.proto.vpn_pool import AddressPool, own_addresses, owner_of
from tunnel_rs.vpn.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Leases:
    """What one client got: one family at least."""

    lease4: Lease4 | None
    lease6: Lease6 | None

    @property
    def packed(self) -> tuple[bytes, ...]:
        """The addresses as they are in packets."""
        return tuple(lease.address.packed for lease in (self.lease4, self.lease6) if lease)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(str(lease.address) for lease in (self.lease4, self.lease6) if lease)


class AddressPools:
    """Gives leases by client key, and takes them back."""

    def __init__(self, settings: ServerSettings) -> None:
        owners = [owner_of(entry.credential) for entry in settings.access.tokens]
        if not settings.stable_addresses:
            owners = []
        self._network4, self._network6 = settings.network4, settings.network6
        self._pool4: AddressPool[IPv4Address] | None = None
        self._pool6: AddressPool[IPv6Address] | None = None
        if self._network4 is not None:
            server4 = settings.server4 or self._network4[1]
            reserved = _inside(self._network4, settings)
            own4 = own_addresses(self._network4, [server4, *reserved], owners, IPv4Address)
            self._pool4 = AddressPool(self._network4, server4, reserved=reserved, own=own4)
        if self._network6 is not None:
            server6 = settings.server6 or self._network6[1]
            own6 = own_addresses(self._network6, [server6], owners, IPv6Address)
            self._pool6 = AddressPool(self._network6, server6, own=own6)

    @property
    def interfaces(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        """The server's own addresses, with their networks."""
        found: list[IPv4Interface | IPv6Interface] = []
        if self._network4 is not None and self._pool4 is not None:
            found.append(IPv4Interface((self._pool4.server, self._network4.prefixlen)))
        if self._network6 is not None and self._pool6 is not None:
            found.append(IPv6Interface((self._pool6.server, self._network6.prefixlen)))
        return tuple(found)

    def allocate(self, key: Hashable, owner: str | None) -> Leases | None:
        """Leases of every family that has an address left; None when none has."""
        lease4: Lease4 | None = None
        lease6: Lease6 | None = None
        if self._network4 is not None and self._pool4 is not None:
            address4 = self._pool4.allocate(key, owner)
            if address4 is not None:
                lease4 = Lease(address4, self._network4, self._pool4.server)
        if self._network6 is not None and self._pool6 is not None:
            address6 = self._pool6.allocate(key, owner)
            if address6 is not None:
                lease6 = Lease(address6, self._network6, self._pool6.server)
        return Leases(lease4, lease6) if lease4 or lease6 else None

    def release(self, key: Hashable) -> None:
        for pool in (self._pool4, self._pool6):
            if pool is not None:
                pool.release(key)


def _inside(network: IPv4Network, settings: ServerSettings) -> list[IPv4Address]:
    """The address of NAT64, when it is one of the pool's."""
    if settings.nat64 is None:
        return []
    source = IPv4Address(settings.nat64.source)
    return [source] if source in network else []
