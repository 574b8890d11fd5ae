"""Pinholes in the router's IPv6 firewall, one for each of our addresses: opened, kept, closed.

IPv6 needs no mapping, but home routers let no stranger in. Where they speak PCP they can be asked
to (RFC 6887 section 11, MAP without a NAT): the external address is then our own.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv6Address

from tunnel_rs.net.gateway import default_gateway6
from tunnel_rs.net.port_control import PortControl
from tunnel_rs.net.router_port import RouterPort
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.port_mapping import leads_outside
from tunnel_rs.values import SocketAddr

MAX_PINHOLES = 4
"""Addresses for which the router is asked: a machine has one that lasts, and some for privacy."""


class Pinholes:
    """Create it in a running loop, `start`, `close`."""

    def __init__(
        self,
        port: int,
        own: Callable[[], Sequence[IPv6Address]],
        on_change: Callable[[SocketAddr | None], None],
        on_problem: Callable[[str], None] = lambda _: None,
        *,
        make: Callable[..., RouterPort] = RouterPort,
    ) -> None:
        """`port`: of our socket. `own` tells our addresses now; those that lead nowhere are left
        out. `on_change` gets where we can be reached from outside, and None when that ends."""
        self._port = port
        self._own = own
        self._on_change = on_change
        self._on_problem = on_problem
        self._make = make
        self._scope = TaskScope("pinholes")
        self._changed = asyncio.Event()
        self._open: dict[IPv6Address, RouterPort] = {}

    def start(self) -> None:
        self._changed.set()
        self._scope.spawn(self._keep(), "keep")

    def network_changed(self) -> None:
        """There may be other addresses, and another router: look at once."""
        self._changed.set()

    @property
    def external(self) -> list[SocketAddr]:
        """Where strangers are let in now."""
        found = (each.external for each in self._open.values())
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """Give them back and end. Idempotent."""
        await self._scope.aclose()
        for address in list(self._open):
            await self._shut(address)

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = [each for each in self._own() if leads_outside(each)][:MAX_PINHOLES]
            for address in [each for each in self._open if each not in wanted]:
                await self._shut(address)
            for address in wanted:
                if address in self._open:
                    self._open[address].network_changed()
                else:
                    self._ask_for(address)

    def _ask_for(self, address: IPv6Address) -> None:
        router = self._open[address] = self._make(
            self._port,
            self._on_change,
            self._on_problem,
            find_gateway=default_gateway6,
            ways=partial(_ways, address),
        )
        router.start()

    async def _shut(self, address: IPv6Address) -> None:
        await self._open[address].close()
        del self._open[address]


def _ways(source: IPv6Address, gateway: IPv6Address, port: int) -> Sequence[PortControl]:
    return [PortControl(gateway, port, source=source)]
