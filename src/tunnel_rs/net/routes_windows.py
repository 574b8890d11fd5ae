"""Addresses, routes and resolvers on Windows, by netsh and PowerShell's Find-NetRoute.

There are no packet marks: a host route keeps packets to the peer out of the VPN, and everything is
routed in two halves. What is set with `store=active` goes with the adapter. Not yet run on a real
machine.
"""

import json
from ipaddress import ip_address

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands
from tunnel_rs.net.command_network import Changes, Command
from tunnel_rs.net.host_network import (
    Address,
    DeviceConfig,
    ForwardingConfig,
    Interface,
    RouteConfig,
)
from tunnel_rs.proto.vpn_routes import Network, halved


def make() -> "WindowsNetwork":
    return WindowsNetwork()


class WindowsNetwork:
    """See `net.host_network.HostNetwork`."""

    mark: int | None = None
    has_ipv6 = True

    def __init__(self, *, run: commands.Run = commands.run) -> None:
        self._run = run
        self._addresses = Changes(run)
        self._routes = Changes(run)
        self._others = Changes(run)
        self._excluded: set[Address] = set()
        self._device = ""
        self._set: tuple[DeviceConfig | None, RouteConfig | None] = (None, None)

    async def clean(self, device: str | None, *, client: bool) -> None:
        """All that could be left goes with the adapter, or at the next start of the system."""

    async def set_device(self, device: str, config: DeviceConfig) -> None:
        self._device = device
        if self._set[0] == config:
            return
        await self._addresses.take_back()
        for address in config.addresses:
            await self._addresses.make(*_address(device, address))
            mtu = (f"mtu={config.mtu}", "store=active")
            family = _family(address.version)
            await self._run((*_NETSH, family, "set", "subinterface", device, *mtu), "")
        for network in config.routes:
            await self._addresses.make(*_route(device, network))
        self._set = (config, self._set[1])

    async def set_routes(self, device: str, config: RouteConfig) -> None:
        if config.kill_switch or config.blocked:
            raise LocalError("kill_switch needs Linux; leave it out")
        if self._set[1] == config:
            return
        await self._routes.take_back()
        for route in halved(config.routes):
            await self._routes.make(*_route(device, route))
        # Resolvers for some names alone would take a policy (NRPT): there, nothing is changed.
        resolvers = () if config.domains else config.resolvers
        for number, resolver in enumerate(resolvers, 1):
            await self._routes.make(*_resolver(device, resolver, number))
        self._set = (self._set[0], config)

    async def exclude(self, address: Address) -> None:
        """A route to this one host, by the gateway that leads to it now."""
        if address in self._excluded or address.is_loopback:
            return
        said = await self._run(
            ("powershell", "-NoProfile", "-Command", _FIND.format(address=address)), ""
        )
        interface, alias, gateway = _found(said)
        if alias == self._device or gateway is None or gateway.is_unspecified:
            return  # on a network at hand, or already in the VPN: nothing better is known
        length = 32 if address.version == 4 else 128
        where = (f"prefix={address}/{length}", f"interface={interface}", f"nexthop={gateway}")
        family = _family(address.version)
        await self._others.make(
            (*_NETSH, family, "add", "route", *where, "store=active"),
            (*_NETSH, family, "delete", "route", *where, "store=active"),
        )
        self._excluded.add(address)

    async def set_forwarding(self, device: str, config: ForwardingConfig) -> None:
        raise LocalError("forward and masquerade need Linux; set up routing (RRAS) yourself")

    async def undo(self) -> None:
        for changes in (self._routes, self._others, self._addresses):
            await changes.take_back()
        self._excluded.clear()
        self._set = (None, None)


_NETSH = ("netsh", "interface")
_FIND = (
    "Find-NetRoute -RemoteIPAddress {address} | Where-Object NextHop | "
    "Select-Object -First 1 InterfaceIndex,InterfaceAlias,NextHop | ConvertTo-Json -Compress"
)


def _family(version: int) -> str:
    return f"ipv{version}"


def _address(device: str, address: Interface) -> tuple[Command, Command]:
    family = _family(address.version)
    where: tuple[str, ...]
    if address.version == 6:
        where = (f"interface={device}", f"address={address.ip}/{address.network.prefixlen}")
    else:
        mask = address.network.netmask
        where = (f"name={device}", f"address={address.ip}", f"mask={mask}")
    gone = (where[0], f"address={address.ip}")
    return (
        (*_NETSH, family, "add", "address", *where, "store=active"),
        (*_NETSH, family, "delete", "address", *gone, "store=active"),
    )


def _route(device: str, network: Network) -> tuple[Command, Command]:
    family = _family(network.version)
    where = (f"prefix={network}", f"interface={device}")
    return (
        (*_NETSH, family, "add", "route", *where, "metric=1", "store=active"),
        (*_NETSH, family, "delete", "route", *where, "store=active"),
    )


def _resolver(device: str, resolver: Address, number: int) -> tuple[Command, Command]:
    family = _family(resolver.version)
    where = (f"name={device}", f"address={resolver}")
    return (
        (*_NETSH, family, "add", "dnsservers", *where, f"index={number}", "validate=no"),
        (*_NETSH, family, "delete", "dnsservers", *where, "validate=no"),
    )


def _found(said: str) -> tuple[int, str, Address | None]:
    """Interface index and name, and next hop, of what PowerShell printed."""
    try:
        route = json.loads(said)
        gateway = ip_address(str(route["NextHop"]).partition("%")[0])
        return int(route["InterfaceIndex"]), str(route["InterfaceAlias"]), gateway
    except (ValueError, KeyError, TypeError):
        return 0, "", None
