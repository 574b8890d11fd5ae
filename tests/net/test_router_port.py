"""Tests of `tunnel_rs.net.router_port`. A real router is asked in tests/netns."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address

from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import ProtocolError, UnreachableError
from tunnel_rs.net.port_control import PortControl
from tunnel_rs.net.router_port import RELEASE_TIMEOUT, TRY_AGAIN, Mapping, RouterPort, ways
from tunnel_rs.net.upnp import UpnpPort
from tunnel_rs.proto.port_mapping import Lease
from tunnel_rs.values import SocketAddr

ROUTER = IPv4Address("192.168.1.1")
OUTSIDE = SocketAddr("198.51.100.21", 4444)


class FakeMapping:
    """Grants as long as `grants`."""

    name = "fake"

    def __init__(self, *, grants: bool = True, hangs: bool = False) -> None:
        self.grants = grants
        self.hangs = hangs
        self.obtained: list[int] = []
        self.released = self.closed = 0

    async def obtain(self, wanted: int) -> Lease:
        self.obtained.append(wanted)
        if not self.grants:
            raise ProtocolError("the router refused a port")
        return Lease(OUTSIDE, 1000, 0)

    async def release(self) -> None:
        self.released += 1
        if self.hangs:
            await asyncio.Event().wait()
        raise UnreachableError("the router is gone")

    async def close(self) -> None:
        self.closed += 1


class Scene:
    def __init__(self, *mappings: FakeMapping) -> None:
        self.mappings = mappings
        self.gateway: IPv4Address | None = ROUTER
        self.told: list[SocketAddr | None] = []
        self.problems: list[str] = []
        self.port = RouterPort(
            4444,
            self.told.append,
            self.problems.append,
            find_gateway=self._gateway,
            ways=self._ways,
        )

    async def _gateway(self) -> IPv4Address | None:
        return self.gateway

    def _ways(self, gateway: IPv4Address, port: int) -> Sequence[Mapping]:
        assert (gateway, port) == (self.gateway, 4444)
        return self.mappings


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@virtual_time
async def test_the_first_way_that_grants_a_port_is_used() -> None:
    scene = Scene(FakeMapping(grants=False), FakeMapping(), FakeMapping())
    scene.port.start()
    await turn()
    assert scene.told == [OUTSIDE]
    assert scene.port.external == OUTSIDE
    assert [mapping.obtained for mapping in scene.mappings] == [[4444], [4444], []]
    assert scene.mappings[0].closed == 1
    assert len(scene.problems) == 1
    await scene.port.close()


@virtual_time
async def test_a_lease_is_renewed_at_half_its_life() -> None:
    scene = Scene(FakeMapping())
    scene.port.start()
    await asyncio.sleep(499)
    assert scene.mappings[0].obtained == [4444]
    await asyncio.sleep(2)
    assert scene.mappings[0].obtained == [4444, 4444]
    assert scene.told == [OUTSIDE]
    await scene.port.close()


@virtual_time
async def test_a_lease_that_is_not_renewed_is_told_and_sought_again() -> None:
    scene = Scene(FakeMapping())
    scene.port.start()
    await turn()
    scene.mappings[0].grants = False
    await asyncio.sleep(501)
    assert scene.told == [OUTSIDE, None]
    scene.mappings[0].grants = True
    await asyncio.sleep(TRY_AGAIN)
    assert scene.told == [OUTSIDE, None, OUTSIDE]
    await scene.port.close()


@virtual_time
async def test_the_port_is_given_back_in_the_end() -> None:
    scene = Scene(FakeMapping())
    scene.port.start()
    await turn()
    await scene.port.close()
    await scene.port.close()
    assert (scene.mappings[0].released, scene.mappings[0].closed) == (1, 1)
    assert scene.told == [OUTSIDE, None]


@virtual_time
async def test_a_router_that_hangs_does_not_hold_up_the_end() -> None:
    scene = Scene(FakeMapping(hangs=True))
    scene.port.start()
    await turn()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await scene.port.close()
    assert loop.time() - began <= RELEASE_TIMEOUT + 0.01


@virtual_time
async def test_another_router_is_asked_at_once_when_the_network_changes() -> None:
    scene = Scene(FakeMapping())
    scene.port.start()
    await turn()
    scene.gateway = IPv4Address("10.0.0.1")
    scene.port.network_changed()
    await turn()
    assert scene.mappings[0].released == 1
    assert scene.told == [OUTSIDE, None, OUTSIDE]
    await scene.port.close()


@virtual_time
async def test_without_a_router_nothing_is_asked() -> None:
    scene = Scene(FakeMapping())
    scene.gateway = None
    scene.port.start()
    await turn()
    assert scene.mappings[0].obtained == []
    scene.gateway = ROUTER
    await asyncio.sleep(TRY_AGAIN + 1)
    assert scene.told == [OUTSIDE]
    await scene.port.close()


def test_pcp_and_nat_pmp_come_before_upnp() -> None:
    first, second = ways(IPv4Address("127.0.0.1"), 4444)
    assert isinstance(first, PortControl)
    assert isinstance(second, UpnpPort)
