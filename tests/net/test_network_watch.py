"""Tests of `tunnel_rs.net.network_watch`."""

import asyncio
import os
import sys
from ipaddress import IPv4Address

import pytest
from tests.support.virtual_time import virtual_time

from tunnel_rs.net import network_watch as module
from tunnel_rs.net.interfaces import Interface
from tunnel_rs.net.network_watch import ASLEEP, POLL, NetworkWatch, default_routes

CABLE = Interface("eth0", 2, (IPv4Address("192.168.1.2"),))


class Scene:
    def __init__(self) -> None:
        self.interfaces: list[Interface] = [CABLE]
        self.routes: tuple[str, ...] = ("eth0 0101A8C0",)
        self.changes = 0
        self.ahead = 0.0
        loop = asyncio.get_running_loop()
        self.watch = NetworkWatch(
            self._changed,
            scan=lambda: self.interfaces,
            routes=lambda: self.routes,
            clock=lambda: loop.time() + self.ahead,
        )

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkWatch, "_open_netlink", lambda _: None)


@virtual_time
async def look_every_few_seconds() -> None:
    scene = Scene()
    scene.watch.start()
    await asyncio.sleep(3 * POLL)
    assert scene.changes == 0
    scene.interfaces = []
    await asyncio.sleep(POLL)
    assert scene.changes == 1
    scene.interfaces, scene.routes = [CABLE], ()
    await asyncio.sleep(POLL)
    assert scene.changes == 2
    scene.watch.close()


def test_changes_are_noticed_where_the_kernel_does_not_tell(no_netlink: None) -> None:
    look_every_few_seconds()


@virtual_time
async def test_a_sleep_is_noticed_once() -> None:
    scene = Scene()
    scene.watch.start()
    await asyncio.sleep(10)
    assert scene.changes == 0
    scene.ahead += 600
    await asyncio.sleep(10)
    assert scene.changes == 1
    scene.watch.close()


@virtual_time
async def test_a_busy_machine_is_not_asleep() -> None:
    scene = Scene()
    scene.watch.start()
    for _ in range(10):
        scene.ahead += ASLEEP - 0.1
        await asyncio.sleep(1)
    assert scene.changes == 0
    scene.watch.close()


@virtual_time
async def test_interfaces_that_cannot_be_read_count_as_none() -> None:
    def fail() -> list[Interface]:
        raise OSError("no")

    watch = NetworkWatch(lambda: None, scan=fail)
    watch.start()
    await asyncio.sleep(10)
    watch.close()
    watch.close()


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs Linux, root and iproute2"
)
async def test_the_kernel_tells_of_a_new_address_and_not_of_nothing() -> None:
    changed = asyncio.Event()
    watch = NetworkWatch(changed.set)
    watch.start()
    try:
        async with asyncio.timeout(5):
            for action in ("add", "del"):
                await change_address(action)
                await changed.wait()
                changed.clear()
    finally:
        watch.close()


async def change_address(action: str) -> None:
    command = ("ip", "address", action, "127.9.9.9/32", "dev", "lo")
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


def test_default_routes_are_told_apart_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._default("eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0".split()) == (
        "eth0 0101A8C0"
    )
    assert module._default("eth0 0000000A 00000000 0001 0 0 100 00FFFFFF 0 0 0".split()) == ""
    zero, router = "0" * 32, "fe80" + "0" * 27 + "1"
    line = f"{zero} 00 {zero} 00 {router} 00000400 1 0 00450003 eth0"
    assert module._default(line.split()) == f"eth0 {router}"
    unreachable = f"{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo"
    assert module._default(unreachable.split()) == ""
    assert module._default([]) == ""
    assert isinstance(default_routes(), tuple)
