import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.virtual_time import virtual_time

from tunnel_rs.net.service_notices import ServiceNotices, Watchdog

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix datagram sockets")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def heard(manager: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096))
        except BlockingIOError:
            return found


def environ(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_the_manager_hears_how_a_service_is(manager: socket.socket) -> None:
    notices = ServiceNotices.of(environ(manager))
    notices.ready("serving")
    notices.reloading()
    notices.stopping()
    ready, reloading, stopping = heard(manager)
    assert ready == b"READY=1\nSTATUS=serving\n"
    assert reloading.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert stopping == b"STOPPING=1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's own")
def test_the_socket_may_have_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0tunnel-rs-test-{os.getpid()}")
        sock.setblocking(False)
        ServiceNotices.of({"NOTIFY_SOCKET": f"@tunnel-rs-test-{os.getpid()}"}).alive()
        assert heard(sock) == [b"WATCHDOG=1\n"]


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    ServiceNotices.of({}).ready()
    ServiceNotices.of({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    notices = ServiceNotices.of(environ(manager))
    for _ in range(10_000):
        notices.alive()
    assert 0 < len(heard(manager)) < 10_000


@virtual_time
async def test_the_watchdog_hears_that_the_loop_turns(manager: socket.socket) -> None:
    with Watchdog.of(environ(manager, WATCHDOG_USEC="20000000")):
        await asyncio.sleep(95)
    await asyncio.sleep(100)
    assert heard(manager) == [b"WATCHDOG=1\n"] * 9


@virtual_time
async def test_who_is_not_watched_says_nothing(manager: socket.socket) -> None:
    for more in ({}, {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}):
        with Watchdog.of(environ(manager, **more)):
            await asyncio.sleep(100)
    assert heard(manager) == []
