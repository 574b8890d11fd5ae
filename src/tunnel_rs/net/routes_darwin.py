"""Addresses, routes and resolvers on macOS, by ifconfig, route, sysctl and scutil.

There are no packet marks: a host route keeps packets to the peer out of the VPN, and everything is
routed in two halves, which leave the default route alone. Not yet run on a real machine.
"""

import re
from contextlib import suppress
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

DNS_KEY = "State:/Network/Service/tunnel-rs-vpn/DNS"


def make() -> "DarwinNetwork":
    return DarwinNetwork()


class DarwinNetwork:
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
        """Devices and their routes go with the process; resolvers do not."""
        if client:
            with suppress(LocalError):
                await self._run(("scutil",), f"remove {DNS_KEY}\n")

    async def set_device(self, device: str, config: DeviceConfig) -> None:
        self._device = device
        if self._set[0] == config:
            return
        await self._addresses.take_back()
        for address in config.addresses:
            await self._addresses.make(*_address(device, address))
        await self._run(("ifconfig", device, "mtu", str(config.mtu), "up"), "")
        if config.connected:
            networks = (address.network for address in config.addresses)
            for network in (*networks, *config.routes):
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
        if config.resolvers:
            text = _resolvers(config)
            await self._routes.make(
                ("scutil",), ("scutil",), text=text, undo_text=f"remove {DNS_KEY}\n"
            )
        self._set = (self._set[0], config)

    async def exclude(self, address: Address) -> None:
        """A route to this one host, by the gateway that leads to it now."""
        if address in self._excluded or address.is_loopback:
            return
        family = "-inet6" if address.version == 6 else "-inet"
        said = await self._run(("route", "-n", "get", family, str(address)), "")
        interface, gateway = _field(said, "interface"), _field(said, "gateway")
        if interface == self._device or gateway is None:
            return  # on a network at hand, or already in the VPN: nothing better is known
        host = ("-host", str(address), gateway)
        await self._others.make(
            ("route", "-n", "add", family, *host), ("route", "-n", "delete", family, *host)
        )
        self._excluded.add(address)

    async def set_forwarding(self, device: str, config: ForwardingConfig) -> None:
        if config.masquerade:
            raise LocalError("masquerade needs Linux; set up address translation with pf yourself")
        for wanted, name in (
            (config.ipv4, "net.inet.ip.forwarding"),
            (config.ipv6, "net.inet6.ip6.forwarding"),
        ):
            if wanted:
                before = (await self._run(("sysctl", "-n", name), "")).strip()
                await self._others.make(
                    ("sysctl", "-w", f"{name}=1"), ("sysctl", "-w", f"{name}={before}")
                )

    async def undo(self) -> None:
        for changes in (self._routes, self._others, self._addresses):
            await changes.take_back()
        self._excluded.clear()
        self._set = (None, None)


def _address(device: str, address: Interface) -> tuple[Command, Command]:
    ip = str(address.ip)
    if address.version == 6:
        length = str(address.network.prefixlen)
        return (
            ("ifconfig", device, "inet6", ip, "prefixlen", length, "alias"),
            ("ifconfig", device, "inet6", ip, "delete"),
        )
    mask = str(address.network.netmask)
    # A point-to-point device wants the address of the other end, too: our own does.
    return (
        ("ifconfig", device, "inet", ip, ip, "netmask", mask, "alias"),
        ("ifconfig", device, "inet", ip, "delete"),
    )


def _route(device: str, network: Network) -> tuple[Command, Command]:
    family = "-inet6" if network.version == 6 else "-inet"
    what = (family, "-net", str(network), "-interface", device)
    return ("route", "-n", "add", *what), ("route", "-n", "delete", *what)


def _resolvers(config: RouteConfig) -> str:
    addresses = " ".join(map(str, config.resolvers))
    domains = " ".join(config.domains) if config.domains else '""'
    return (
        "d.init\n"
        f"d.add ServerAddresses * {addresses}\n"
        f"d.add SupplementalMatchDomains * {domains}\n"
        f"set {DNS_KEY}\n"
    )


def _field(said: str, name: str) -> str | None:
    """A line `   name: value` of `route get`; a gateway only when it is an address."""
    found = re.search(rf"^\s*{name}: (\S+)$", said, re.MULTILINE)
    if found is None:
        return None
    if name == "gateway":
        try:
            ip_address(found[1].partition("%")[0])
        except ValueError:
            return None
    return found[1]
