"""Tests of `tunnel_rs.net.pinholes`. A real router is asked in tests/netns."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any, cast

from tests.support.virtual_time import virtual_time

from tunnel_rs.net.gateway import default_gateway6
from tunnel_rs.net.pinholes import MAX_PINHOLES, Pinholes
from tunnel_rs.net.port_control import PortControl
from tunnel_rs.net.router_port import RouterPort
from tunnel_rs.values import SocketAddr

ONE, OTHER = IPv6Address("2001:db8:1::2"), IPv6Address("2001:db8:1::3")
ROUTER = IPv6Address("fe80::1%eth0")


class FakePort:
    """Of the router's: grants what it is asked for when the test says so."""

    def __init__(
        self,
        port: int,
        on_change: Callable[[SocketAddr | None], None],
        on_problem: Callable[[str], None],
        *,
        find_gateway: object,
        ways: Callable[[IPv6Address, int], Any],
    ) -> None:
        assert find_gateway is default_gateway6
        [control] = ways(ROUTER, port)
        assert isinstance(control, PortControl)
        self.asked_for = control._request.source
        self._on_change = on_change
        self.external: SocketAddr | None = None
        self.started = self.looks = self.closed = 0

    def start(self) -> None:
        self.started += 1

    def network_changed(self) -> None:
        self.looks += 1

    def grant(self) -> None:
        self.external = self.asked_for
        self._on_change(self.external)

    async def close(self) -> None:
        self.closed += 1


class Scene:
    def __init__(self, *own: IPv6Address) -> None:
        self.own = list(own)
        self.ports: list[FakePort] = []
        self.told: list[SocketAddr | None] = []
        self.pinholes = Pinholes(4444, lambda: self.own, self.told.append, make=self._make)
        self.pinholes.start()

    def _make(self, *given: Any, **options: Any) -> RouterPort:
        self.ports.append(FakePort(*given, **options))
        return cast(RouterPort, self.ports[-1])

    @property
    def asked_for(self) -> list[str]:
        return [port.asked_for.ip for port in self.ports if not port.closed]


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@virtual_time
async def test_each_address_of_the_internet_gets_one() -> None:
    scene = Scene(ONE, IPv6Address("::1"), IPv6Address("fd00::2"), OTHER)
    await turn()
    assert scene.asked_for == [str(ONE), str(OTHER)]
    assert scene.pinholes.external == []
    scene.ports[1].grant()
    assert scene.told == scene.pinholes.external == [SocketAddr(str(OTHER), 4444)]
    await scene.pinholes.close()
    await scene.pinholes.close()
    assert [port.closed for port in scene.ports] == [1, 1]


@virtual_time
async def test_they_follow_our_addresses() -> None:
    scene = Scene(ONE)
    await turn()
    scene.own = [ONE, OTHER]
    scene.pinholes.network_changed()
    await turn()
    assert (scene.asked_for, scene.ports[0].looks) == ([str(ONE), str(OTHER)], 1)
    scene.own = [OTHER]
    scene.pinholes.network_changed()
    await turn()
    assert scene.asked_for == [str(OTHER)]
    await scene.pinholes.close()


@virtual_time
async def test_a_router_is_not_asked_for_more_and_more() -> None:
    scene = Scene(*(ONE + n for n in range(50)))
    await turn()
    assert len(scene.ports) == MAX_PINHOLES
    await scene.pinholes.close()
