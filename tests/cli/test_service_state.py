"""What a service manager hears of our programs, from the first line to the last."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.samples import ENDPOINT_ID
from tests.support.servers import Program, running

from tunnel_rs.cli.service_state import state_notices
from tunnel_rs.errors import ExitStatus
from tunnel_rs.net.service_notices import ServiceNotices
from tunnel_rs.reports import Notice, Trying, TunnelUp
from tunnel_rs.values import EndpointId

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix datagram sockets")


class Manager(asyncio.DatagramProtocol):
    """Collects what services say."""

    def __init__(self) -> None:
        self.notices: asyncio.Queue[str] = asyncio.Queue()

    def datagram_received(self, data: bytes, address: object) -> None:
        self.notices.put_nowait(data.decode())

    async def hears(self, start: str) -> str:
        """The next notice, which begins so; signs of life may come before it."""
        async with asyncio.timeout(20):
            while not (notice := await self.notices.get()).startswith(start):
                assert notice == "WATCHDOG=1\n", f"waited for {start}, heard {notice}"
        return notice


@asynccontextmanager
async def managed(
    folder: Path, *command: str, period: int = 10_000_000
) -> AsyncIterator[tuple[Manager, Program]]:
    """A program started as a service, and who hears it. `period` is the watchdog's in us."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(folder / "notify"))
    loop = asyncio.get_running_loop()
    transport, manager = await loop.create_datagram_endpoint(Manager, sock=sock)
    environment = (f"NOTIFY_SOCKET={folder / 'notify'}", f"WATCHDOG_USEC={period}")
    program = (sys.executable, "-m", "tunnel_rs", *command)
    try:
        async with running("env", *environment, *program) as started:
            yield manager, started
    finally:
        transport.close()


def relay_file(folder: Path) -> str:
    file = folder / "relay.toml"
    file.write_text('http_bind_addr = "127.0.0.1:0"\nenable_metrics = false\n')
    return str(file)


async def test_a_relay_is_ready_reloads_and_stops(tmp_path: Path) -> None:
    async with managed(tmp_path, "relay", "-c", relay_file(tmp_path)) as (manager, program):
        assert "STATUS=Relay is ready; HTTP" in await manager.hears("READY=1\n")
        program.process.send_signal(signal.SIGHUP)
        await manager.hears("RELOADING=1\nMONOTONIC_USEC=")
        await manager.hears("READY=1\n")
        program.process.send_signal(signal.SIGTERM)
        await manager.hears("STOPPING=1\n")
        assert await program.process.wait() == ExitStatus.TERMINATED


async def test_a_service_gives_signs_of_life(tmp_path: Path) -> None:
    command = ("relay", "-c", relay_file(tmp_path))
    async with managed(tmp_path, *command, period=200_000) as (manager, _):
        await manager.hears("READY=1\n")
        for _ in range(3):
            await manager.hears("WATCHDOG=1\n")


async def test_a_client_is_ready_although_its_server_is_away(tmp_path: Path) -> None:
    """What is started after it only needs its listeners."""
    token = tmp_path / "token.txt"
    token.write_text("iabcdefghijklmnopg\n")
    reach = ("--peer-addr", "127.0.0.1:9", "--relay-url", "none", "--dns-server", "none")
    ports = ("-s", "tcp://127.0.0.1:22", "-t", "127.0.0.1:0")
    identity = ("-n", ENDPOINT_ID, "--auth-token-file", str(token))
    async with managed(tmp_path, "client", *identity, *ports, *reach) as (manager, program):
        await program.line("listening on 127.0.0.1:")
        assert "STATUS=trying" in await manager.hears("READY=1\n")


class Sent(ServiceNotices):
    def __init__(self) -> None:
        super().__init__(None)
        self.notices: list[bytes] = []

    def send(self, notice: bytes) -> None:
        self.notices.append(notice)


def test_only_what_says_how_it_stands_is_passed_on() -> None:
    sent = Sent()
    tell = state_notices(sent)
    tell(Notice("info", "by the way"))
    tell(Trying("LAN"))
    tell(TunnelUp(EndpointId.parse(ENDPOINT_ID), "LAN", 0.5))
    assert sent.notices == [
        b"READY=1\nSTATUS=trying LAN\n",
        b"READY=1\nSTATUS=tunnel to d75a980182 is up by LAN after 0.50 s\n",
    ]
