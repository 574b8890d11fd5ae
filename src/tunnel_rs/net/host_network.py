"""The face of what a VPN changes on this machine besides its TUN device: addresses, routes, rules,
forwarding, resolvers. Everything can be undone, and what a killed process left behind is found.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

from tunnel_rs.errors import LocalError
from tunnel_rs.proto.vpn_routes import Network

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """How a TUN device is set up. `connected`: whether the networks of the addresses become
    routes of the main table (a server), or are left to `RouteConfig` (a client)."""

    addresses: tuple[Interface, ...]
    mtu: int
    connected: bool = True
    routes: tuple[Network, ...] = ()
    """Further routes into the device, in the main table."""


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """What a client sends into the VPN, and how names are resolved meanwhile."""

    routes: tuple[Network, ...]
    kill_switch: bool = False
    """Refuse what the routes cover while the device is not there, also after a crash."""

    blocked: tuple[Network, ...] = ()
    """Refused from now on, although the VPN does not carry it: part of a kill switch."""

    resolvers: tuple[Address, ...] = ()
    domains: tuple[str, ...] = ()
    """Names looked up there; none: all names."""


@dataclass(frozen=True, slots=True)
class ForwardingConfig:
    """What a server asks of the kernel."""

    ipv4: bool
    ipv6: bool
    masquerade: bool
    isolate: bool


class HostNetwork(Protocol):
    """All changes for one TUN device. `undo` takes back whatever was done, in any state."""

    @property
    def mark(self) -> int | None:
        """Packets with this mark (SO_MARK) stay out of the VPN; None where routes to the peer do
        that."""

    @property
    def has_ipv6(self) -> bool:
        """Whether devices of this machine can have IPv6 addresses."""

    async def clean(self, device: str | None, *, client: bool) -> None:
        """Remove what killed servers left behind, and killed clients if `client` (there must be
        no other client then). `device` is ours and new: what is there for one of that name was an
        earlier one's."""

    async def set_device(self, device: str, config: DeviceConfig) -> None:
        """Give the device these addresses and no others, and bring it up. Raises LocalError."""

    async def set_routes(self, device: str, config: RouteConfig) -> None:
        """Send this into the device and nothing else. Raises LocalError, then without change."""

    async def exclude(self, address: Address) -> None:
        """Keep packets to `address` out of the VPN, where marks do not."""

    async def set_forwarding(self, device: str, config: ForwardingConfig) -> None:
        """Let the kernel forward between the device and its other interfaces. Raises
        LocalError."""

    async def undo(self) -> None:
        """Take everything back. Raises nothing. Idempotent."""


def host_network() -> HostNetwork:
    """The one of this system. Raises LocalError."""
    module = _MODULES.get(sys.platform)
    if module is None:
        raise LocalError(f"there is no support for VPN routes on {sys.platform}")
    network: HostNetwork = import_module(module).make()
    return network


_MODULES = {
    "linux": "tunnel_rs.net.routes_linux",
    "darwin": "tunnel_rs.net.routes_darwin",
    "win32": "tunnel_rs.net.routes_windows",
}
"""Each imports what only its system has."""
