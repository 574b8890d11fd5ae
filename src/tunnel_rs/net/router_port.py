"""A port of the router's that leads to a UDP socket of ours: found, kept, given back.

Which way the router speaks is found out by trying: PCP and NAT-PMP, then UPnP. Most routers offer
none of them to strangers; that is no error, and tried again now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from tunnel_rs.errors import TunnelError
from tunnel_rs.net.gateway import default_gateway
from tunnel_rs.net.port_control import PortControl
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.net.upnp import UpnpPort
from tunnel_rs.proto.port_mapping import Lease
from tunnel_rs.values import SocketAddr

Gateway = IPv4Address | IPv6Address

TRY_AGAIN = 600.0
"""Seconds after which a router that gave nothing is asked again."""

RELEASE_TIMEOUT = 0.5
"""Seconds that giving the port back may take: a person waits for the program to end. The router
forgets it anyway when the lease is over."""


class Mapping(Protocol):
    """A way of asking a router: `PortControl`, `UpnpPort`."""

    @property
    def name(self) -> str: ...

    async def obtain(self, wanted: int) -> Lease: ...

    async def release(self) -> None: ...

    async def close(self) -> None: ...


def ways(gateway: IPv4Address, port: int) -> Sequence[Mapping]:
    """All ways, the cheapest first."""
    return PortControl(gateway, port), UpnpPort(gateway, port)


class RouterPort:
    """Create it in a running loop, `start`, `close`."""

    def __init__(
        self,
        port: int,
        on_change: Callable[[SocketAddr | None], None],
        on_problem: Callable[[str], None] = lambda _: None,
        *,
        find_gateway: Callable[[], Awaitable[Gateway | None]] = default_gateway,
        ways: Callable[[Any, int], Sequence[Mapping]] = ways,
    ) -> None:
        """`port`: of our socket. `on_change` gets where it can be reached from outside, and None
        when that ends. `on_problem` gets in words why a router gave nothing. `ways` gets what
        `find_gateway` has found."""
        self._port = port
        self._on_change = on_change
        self._on_problem = on_problem
        self._find_gateway = find_gateway
        self._ways = ways
        self._scope = TaskScope("router port")
        self._changed = asyncio.Event()
        self._mapping: Mapping | None = None
        self._gateway: Gateway | None = None
        self.external: SocketAddr | None = None

    def start(self) -> None:
        self._scope.spawn(self._keep(), "keep")

    def network_changed(self) -> None:
        """There may be another router now: ask at once."""
        self._changed.set()

    async def close(self) -> None:
        """Give the port back and end. Idempotent."""
        await self._scope.aclose()
        await self._drop()

    async def _keep(self) -> None:
        while True:
            wait = await self._obtain()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def _obtain(self) -> float:
        """Get or renew a port. Returns the seconds until this is to be called again."""
        gateway = await self._find_gateway()
        if gateway != self._gateway:
            await self._drop()
            self._gateway = gateway
        if gateway is None:
            return TRY_AGAIN
        lease = await self._renewed() or await self._first_granted(gateway)
        self._tell(lease.external if lease is not None else None)
        return lease.lifetime / 2 if lease is not None else TRY_AGAIN

    async def _renewed(self) -> Lease | None:
        if self._mapping is None:
            return None
        try:
            wanted = self.external.port if self.external is not None else 0
            return await self._mapping.obtain(wanted)
        except TunnelError as error:
            self._on_problem(str(error))
            await self._drop()
            return None

    async def _first_granted(self, gateway: Gateway) -> Lease | None:
        for mapping in self._ways(gateway, self._port):
            try:
                lease = await mapping.obtain(self._port)
            except TunnelError as error:
                self._on_problem(str(error))
                await mapping.close()
            except BaseException:
                # Cancelled: the router may have granted it all the same.
                self._mapping = mapping
                raise
            else:
                self._mapping = mapping
                return lease
        return None

    def _tell(self, external: SocketAddr | None) -> None:
        if external != self.external:
            self.external = external
            self._on_change(external)

    async def _drop(self) -> None:
        mapping, self._mapping = self._mapping, None
        if mapping is None:
            return
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await mapping.release()
        except (TunnelError, TimeoutError):
            pass  # it ends with its lease
        await mapping.close()
        self._tell(None)
