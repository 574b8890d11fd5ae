"""Addresses, routes, rules and forwarding on Linux, over netlink (pyroute2) and `nft`.

Routes go to a table of our own that rules lead to (`proto.vpn_routes`); no entry of another table
is changed. The device's addresses and routes go with the device; rules, the kill switch's routes,
firewall tables and sysctls are what is left when the process is killed, and `clean` removes them.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, TypeVar

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands
from tunnel_rs.net.host_network import (
    Address,
    DeviceConfig,
    ForwardingConfig,
    Interface,
    RouteConfig,
)
from tunnel_rs.net.resolv_linux import Resolvers
from tunnel_rs.net.threads import in_thread
from tunnel_rs.proto.vpn_firewall import (
    CLIENT_TABLE,
    SERVER_TABLE,
    Forwarding,
    client_rules,
    removal,
    server_rules,
)
from tunnel_rs.proto.vpn_routes import (
    FIRST_PRIORITY,
    LAST_PRIORITY,
    MARK,
    TABLE,
    Network,
    Rule,
    rules_for,
)

T = TypeVar("T")

_FAMILY = {4: AF_INET, 6: AF_INET6}
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200
_FIB_RULE_INVERT = 2
_RTN_UNREACHABLE = 7
_LAST_RESORT = 2**31
"""Metric of the kill switch's routes: they count when the device's are gone."""

_REMEDY = "run it as root or with CAP_NET_ADMIN"


async def netlink(work: Callable[[Any], T]) -> T:
    """Call `work` with a netlink socket, in a thread: pyroute2's own loop does not get along with
    uvloop. What the kernel refuses becomes a LocalError."""
    return await in_thread(lambda: _work(work))


def _work(work: Callable[[Any], T]) -> T:
    try:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError
    except ImportError:
        raise LocalError(
            "the VPN needs the package pyroute2; install it with `pip install tunnel-rs[vpn]`"
        ) from None
    try:
        with IPRoute() as connection:
            return work(connection)
    except NetlinkError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            raise LocalError(f"no permission to change addresses and routes: {_REMEDY}") from None
        name = errno.errorcode.get(error.code, str(error.code))
        raise LocalError(
            f"the kernel refused an address or route: {error.args[-1]} ({name})"
        ) from (None)


def make() -> "LinuxNetwork":
    return LinuxNetwork()


class Sysctls:
    """Kernel settings that are put back in the end."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self.root = root
        self._before: dict[Path, str] = {}

    def set(self, name: str, value: str) -> None:
        """Raises LocalError. Nothing happens when it has the value already."""
        path = self.root / name
        try:
            before = path.read_text().strip()
            if before == value:
                return
            path.write_text(value)
        except OSError as error:
            raise LocalError(
                f"cannot set {path} to {value}: {error.strerror}; set it yourself, or {_REMEDY}"
            ) from None
        self._before.setdefault(path, before)

    def get(self, name: str) -> str:
        """Its value, empty when there is no such setting."""
        try:
            return (self.root / name).read_text().strip()
        except OSError:
            return ""

    def has_strict_reverse_path(self) -> bool:
        """Whether any interface drops packets that the main table would answer elsewhere."""
        names = self.root.glob("net/ipv4/conf/*/rp_filter")
        return any(self.get(str(name.relative_to(self.root))) == "1" for name in names)

    def keep_router_advertisements(self) -> None:
        """Where an interface has its IPv6 default route from a router, it is to keep it: a machine
        that forwards takes no advertisements, unless told to (2)."""
        for path in self.root.glob("net/ipv6/conf/*/accept_ra"):
            name = str(path.relative_to(self.root))
            if path.parent.name not in ("all", "default") and self.get(name) == "1":
                self.set(name, "2")

    def leave(self) -> None:
        """Keep everything as it is now."""
        self._before.clear()

    def restore(self) -> None:
        for path, value in reversed(self._before.items()):
            with suppress(OSError):
                path.write_text(value)
        self._before.clear()


class LinuxNetwork:
    """See `net.host_network.HostNetwork`."""

    mark: int | None = MARK
    has_ipv6 = Path("/proc/sys/net/ipv6").exists()

    def __init__(self, *, run: commands.Run = commands.run, sysctls: Sysctls | None = None) -> None:
        self._run = run
        self._sysctls = Sysctls() if sysctls is None else sysctls
        self._resolvers = Resolvers(run=run)
        self._rules: tuple[Rule, ...] = ()
        self._routes: tuple[Network, ...] = ()
        self._tables: set[str] = set()

    async def clean(self, device: str | None, *, client: bool) -> None:
        if client:
            self._resolvers.clean()
            await netlink(_remove_all)
        for table in await self._tables_left():
            served = table.removeprefix(SERVER_TABLE)
            is_old = served == device or not _exists(served)
            if client if table == CLIENT_TABLE else is_old:
                await self._remove_table(table)

    async def _tables_left(self) -> list[str]:
        """Tables with a name of ours. Without `nft` there are none."""
        try:
            text = await self._run(("nft", "list", "tables", "inet"), "")
        except LocalError:
            return []
        names = [line.split()[-1] for line in text.splitlines() if line.strip()]
        return [name for name in names if name == CLIENT_TABLE or name.startswith(SERVER_TABLE)]

    async def set_device(self, device: str, config: DeviceConfig) -> None:
        if any(address.version == 6 for address in config.addresses):
            self._allow_ipv6(device)
        await netlink(lambda ip: _set_device(ip, device, config))

    def _allow_ipv6(self, device: str) -> None:
        """On a device of ours, also where it is turned off for new devices in general."""
        if not self.has_ipv6:
            raise LocalError("this machine has no IPv6 (ipv6.disable=1?), which the VPN is to use")
        Sysctls(self._sysctls.root).set(f"net/ipv6/conf/{device}/disable_ipv6", "0")

    async def set_routes(self, device: str, config: RouteConfig) -> None:
        routes = tuple(dict.fromkeys((*config.routes, *config.blocked)))
        rules = rules_for(routes)
        before, self._routes = self._routes, tuple({*self._routes, *routes})
        rules_before, self._rules = self._rules, tuple({*self._rules, *rules})

        def change(ip: Any) -> None:
            _add_routes(ip, device, config)
            _change_rules(ip, rules_before, rules)
            for route in set(before) - set(routes):
                _drop_route(ip, route)

        await netlink(change)
        self._routes, self._rules = routes, rules
        if routes:
            await self._accept_answers()
        await self._resolvers.use(device, config.resolvers, config.domains)

    async def exclude(self, address: Address) -> None:
        """The mark does it."""

    async def set_forwarding(self, device: str, config: ForwardingConfig) -> None:
        if config.ipv4:
            self._sysctls.set("net/ipv4/ip_forward", "1")
        if config.ipv6 and self._sysctls.get("net/ipv6/conf/all/forwarding") != "1":
            self._sysctls.keep_router_advertisements()
            self._sysctls.set("net/ipv6/conf/all/forwarding", "1")
        rules = server_rules(Forwarding(device, config.isolate, config.masquerade))
        await self._run(("nft", "-f", "-"), rules)
        self._tables.add(SERVER_TABLE + device)

    async def undo(self) -> None:
        with suppress(LocalError):
            await self._resolvers.restore()
        if self._rules or self._routes:
            with suppress(LocalError):
                await netlink(_remove_all)
        self._rules, self._routes = (), ()
        served = any(table.startswith(SERVER_TABLE) for table in self._tables)
        for table in list(self._tables):
            await self._remove_table(table)
        self._tables.clear()
        if served and any(name != CLIENT_TABLE for name in await self._tables_left()):
            self._sysctls.leave()  # another server of this machine forwards, too
        self._sysctls.restore()

    async def _accept_answers(self) -> None:
        """With a strict reverse path filter, answers to marked packets would be dropped."""
        if not self._sysctls.has_strict_reverse_path():
            return
        await self._run(("nft", "-f", "-"), client_rules())
        self._tables.add(CLIENT_TABLE)
        self._sysctls.set("net/ipv4/conf/all/src_valid_mark", "1")

    async def _remove_table(self, table: str) -> None:
        with suppress(LocalError):
            await self._run(("nft", "-f", "-"), removal(table))


def _exists(device: str) -> bool:
    return Path("/sys/class/net", device).exists()


def _index(ip: Any, device: str) -> int:
    found = ip.link_lookup(ifname=device)
    if not found:
        raise LocalError(f"the interface {device} has gone")
    return int(found[0])


def _addresses(ip: Any, index: int) -> list[str]:
    """Those we could have set: link-local ones are the kernel's."""
    messages = [message for message in ip.addr("dump", index=index)]
    return [
        f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        for message in messages
        if message["index"] == index and message["scope"] != 253
    ]


def _set_device(ip: Any, device: str, config: DeviceConfig) -> None:
    index = _index(ip, device)
    ip.link("set", index=index, mtu=config.mtu)
    held = {ip_interface(text) for text in _addresses(ip, index)}
    wanted = set(config.addresses)
    for address in held - wanted:
        _change_address(ip, "del", index, address, config)
    ip.link("set", index=index, state="up")
    for address in wanted - held:
        _change_address(ip, "add", index, address, config)
    for route in config.routes:
        _set_route(ip, route, oif=index)


def _change_address(
    ip: Any, verb: str, index: int, address: Interface, config: DeviceConfig
) -> None:
    flags = 0 if config.connected else _IFA_F_NOPREFIXROUTE
    if address.version == 6:
        flags |= _IFA_F_NODAD
    ip.addr(
        verb,
        index=index,
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
        flags=flags,
    )


def _add_routes(ip: Any, device: str, config: RouteConfig) -> None:
    for route in config.blocked + (config.routes if config.kill_switch else ()):
        _set_route(ip, route, table=TABLE, type=_RTN_UNREACHABLE, priority=_LAST_RESORT)
    if config.routes:
        index = _index(ip, device)
        for route in config.routes:
            _set_route(ip, route, table=TABLE, oif=index, priority=1)


def _set_route(ip: Any, route: Network, **how: Any) -> None:
    ip.route("replace", family=_FAMILY[route.version], dst=str(route), **how)


def _drop_route(ip: Any, route: Network) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    for priority in (1, _LAST_RESORT):
        with suppress(NetlinkError):
            ip.route(
                "del",
                family=_FAMILY[route.version],
                dst=str(route),
                table=TABLE,
                priority=priority,
            )


def _flush_table(ip: Any) -> None:
    """Every route in our table. What went with the device meanwhile is no error."""
    from pyroute2.netlink.exceptions import NetlinkError

    for family in _FAMILY.values():
        routes = [route for route in ip.route("dump", family=family, table=TABLE)]
        for route in routes:
            if route.get_attr("RTA_TABLE") != TABLE:
                continue
            with suppress(NetlinkError):
                ip.route("del", **_identity(family, route))


def _identity(family: int, route: Any) -> dict[str, Any]:
    """What tells a route of our table from the others."""
    default = "0.0.0.0" if family == AF_INET else "::"
    destination = route.get_attr("RTA_DST") or default
    found = {
        "family": family,
        "dst": f"{destination}/{route['dst_len']}",
        "table": TABLE,
        "type": route["type"],
    }
    if (priority := route.get_attr("RTA_PRIORITY")) is not None:
        found["priority"] = priority
    return found


def _remove_all(ip: Any) -> None:
    """What a client adds."""
    _remove_rules(ip)
    _flush_table(ip)


def _change_rules(ip: Any, before: tuple[Rule, ...], after: tuple[Rule, ...]) -> None:
    """New rules are added before old ones go: at no moment packets leave by another way."""
    for rule in after:
        if rule not in before:
            _change_rule(ip, "add", rule)
    for rule in before:
        if rule not in after:
            _change_rule(ip, "del", rule)


def _change_rule(ip: Any, verb: str, rule: Rule) -> None:
    how: dict[str, Any] = {}
    if rule.unmarked:
        how |= {"fwmark": MARK, "flags": _FIB_RULE_INVERT}
    if rule.suppress is not None:
        how["FRA_SUPPRESS_PREFIXLEN"] = rule.suppress
    ip.rule(verb, family=_FAMILY[rule.version], table=rule.table, priority=rule.priority, **how)


def _remove_rules(ip: Any) -> None:
    """All with a priority of ours, whoever made them."""
    from pyroute2.netlink.exceptions import NetlinkError

    for family in _FAMILY.values():
        rules = [rule for rule in ip.rule("dump", family=family)]
        for rule in rules:
            priority = rule.get_attr("FRA_PRIORITY") or 0
            if FIRST_PRIORITY <= priority <= LAST_PRIORITY:
                with suppress(NetlinkError):
                    ip.rule("del", family=family, priority=priority)
