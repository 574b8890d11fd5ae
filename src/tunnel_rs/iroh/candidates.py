"""Where our sockets may be reached directly, kept up to date: the addresses of the interfaces, how
the sockets look from outside, and a port of the router's.

Nobody outside this machine is asked before `ask`: a client that finds its server on the local
network has no need to.
"""

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.interfaces import Interface, local_interfaces, reachable_addresses
from tunnel_rs.net.mapped_address import MappedAddress
from tunnel_rs.net.pinholes import Pinholes
from tunnel_rs.net.qad import system_trust
from tunnel_rs.net.resolver import Resolve, SystemResolver
from tunnel_rs.net.router_port import RouterPort
from tunnel_rs.net.udp import TrainSink, UdpSocket
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import HostPort, SocketAddr


class Candidates:
    """Stands between the sockets and their user. Create it in a running loop; `start`, `close`."""

    def __init__(
        self,
        sockets: Sequence[UdpSocket],
        sink: TrainSink,
        settings: EndpointSettings,
        report: Reporter,
        on_change: Callable[[], None],
        *,
        scan: Callable[[], Sequence[Interface]] = local_interfaces,
        resolve: Resolve | None = None,
        make_router_port: Callable[..., RouterPort] = RouterPort,
        make_pinholes: Callable[..., Pinholes] = Pinholes,
    ) -> None:
        """`sink` gets what the sockets receive for it. `on_change` is called when `addresses` has
        changed. Raises ConfigError for a CA file that is none."""
        self._sockets = sockets
        self._settings = settings
        self._report = report
        self._on_change = on_change
        self._scan = scan
        self._make_router_port = make_router_port
        self._make_pinholes = make_pinholes
        self._router: RouterPort | None = None
        self._pinholes: Pinholes | None = None
        trust, resolve = system_trust(settings.relay_ca_file), resolve or SystemResolver()
        self._mapped = [
            MappedAddress(each, sink, self._changed, trust=trust, resolve=resolve)
            for each in sockets
        ]
        self._interfaces: tuple[Interface, ...] = ()
        self.addresses: tuple[SocketAddr, ...] = ()
        """Where we may be reached, those of this machine first, loopback last of them."""

    def start(self) -> None:
        """Start the sockets."""
        for mapped in self._mapped:
            mapped.start()
        self.network_changed()

    def ask(self, relays: Sequence[RelayUrl]) -> None:
        """Find out how we look from outside from now on, with the help of these relays, and of the
        router and STUN servers as configured."""
        port = self._settings.qad_port
        servers = [
            HostPort(host, port)
            for host in (urlsplit(relay.text).hostname for relay in relays if relay.is_encrypted)
            if host
        ]
        for mapped in self._mapped:
            mapped.ask(servers, self._settings.stun_servers)
        if self._settings.port_mapping:
            if self._router is None:
                self._start_router()
            if self._pinholes is None:
                self._start_pinholes()

    def network_changed(self) -> None:
        """Look at everything again."""
        try:
            self._interfaces = tuple(self._scan())
        except OSError:
            self._interfaces = ()
        for mapped in self._mapped:
            mapped.network_changed()
        for router in (self._router, self._pinholes):
            if router is not None:
                router.network_changed()
        self._changed()

    def check(self) -> None:
        """A direct path has failed: see whether we still look from outside as we did."""
        for mapped in self._mapped:
            mapped.check()

    async def close(self) -> None:
        """Give the router its port back and stop asking; the sockets are their owner's."""
        for router in (self._router, self._pinholes):
            if router is not None:
                await router.close()
        for mapped in self._mapped:
            await mapped.close()

    @property
    def to_punch(self) -> tuple[SocketAddr, ...]:
        """What to tell a peer, the most valuable first: what is far away needs loopback least."""
        outside = self._outside()
        local = [each for each in self._local() if not ip_address(each.ip).is_loopback]
        return tuple(dict.fromkeys([*outside, *local])) or self.addresses

    def _local(self) -> tuple[SocketAddr, ...]:
        return reachable_addresses([each.address for each in self._sockets], self._interfaces)

    def _outside(self) -> list[SocketAddr]:
        found = [mapped.address for mapped in self._mapped if mapped.address is not None]
        if self._router is not None and self._router.external is not None:
            found.append(self._router.external)
        return found + (self._pinholes.external if self._pinholes is not None else [])

    def _changed(self) -> None:
        addresses = tuple(dict.fromkeys([*self._local(), *self._outside()]))
        if addresses != self.addresses:
            self.addresses = addresses
            self._on_change()

    def _start_router(self) -> None:
        """A port, for IPv4."""
        for each in self._sockets:
            ip = ip_address(each.address.ip)
            if ip.version == 4 and not ip.is_loopback:
                self._router = self._make_router_port(
                    each.address.port, self._router_changed, self._router_problem
                )
                self._router.start()
                return

    def _start_pinholes(self) -> None:
        """Of IPv6 no port is mapped, but a firewall may be in the way."""
        for each in self._sockets:
            bound = ip_address(each.address.ip)
            if bound.version == 6 and not bound.is_loopback:
                self._pinholes = self._make_pinholes(
                    each.address.port,
                    partial(self._own_ipv6, each.address),
                    self._router_changed,
                    self._router_problem,
                )
                self._pinholes.start()
                return

    def _own_ipv6(self, bound: SocketAddr) -> list[IPv6Address]:
        return [IPv6Address(each.ip) for each in reachable_addresses([bound], self._interfaces)]

    def _router_changed(self, external: SocketAddr | None) -> None:
        if external is not None:
            self._report(Notice("debug", f"the router leads {external} to us"))
        self._changed()

    def _router_problem(self, problem: str) -> None:
        self._report(Notice("debug", problem))
