"""The traffic of a soak: what goes through the tunnel, and the cable that is cut."""

import asyncio
import hashlib
import math
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

from bench import traffic
from bench.soak_figures import Pace, Pulse, percentile

CUT = 16.0
"""Seconds the link stays cut: long enough for the client to ask for the server anew."""
BACK_WITHIN = 75.0
"""Seconds for the first exchange after an outage: the longest backoff, and something."""
EXPECTED = (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError)
"""What a connection may end with while the link is out, and nothing else."""


class Cable(asyncio.DatagramProtocol):
    """Passes datagrams between the client and the server, unless it is cut."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._client: tuple[str, int] | None = None
        self.cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if self.cut:
            return
        if address == self._server:
            if self._client is not None:
                self._transport.sendto(data, self._client)
        else:
            self._client = address
            self._transport.sendto(data, self._server)


class Echo(asyncio.DatagramProtocol):
    """The UDP target."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)


@dataclass
class Load:
    """The traffic, and what came of it."""

    tcp_port: int
    udp_port: int
    cable: Cable
    pace: Pace
    """Of the exchanges of `connection`, all together."""
    ping_every: float
    """Seconds between two small exchanges whose time is taken."""
    running: bool = True
    done: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    """Exchanges that an outage ended: expected, and counted."""
    wrong: list[str] = field(default_factory=list)
    """What must never happen."""
    cut_began: float = math.inf
    cut_over: float = -math.inf
    """When the tunnel had come back after the last outage; infinite until it has."""
    cuts: list[tuple[float, float]] = field(default_factory=list)
    """Each outage that is over: when it began, and when the tunnel had come back."""
    times: list[float] = field(default_factory=list)
    """Seconds of the small exchanges since the last `pulse`."""

    async def keep(self, exchange: Callable[[], Awaitable[str]]) -> None:
        """Do it again and again until the load is over."""
        while self.running:
            began = time.monotonic()
            try:
                async with asyncio.timeout(BACK_WITHIN):
                    self.done[await exchange()] += 1
            except EXPECTED as error:
                if not self._touched(began):
                    self.wrong.append(f"{error!r} with the link up")
                self.interrupted += 1
                await asyncio.sleep(0.5)

    def _touched(self, began: float) -> bool:
        """Whether an outage has to do with what began then and is over now."""
        return began <= self.cut_over and time.monotonic() >= self.cut_began

    def pulse(self, at: float) -> Pulse:
        """What there is to say since the pulse before; `at` seconds after the load began."""
        times, self.times = self.times, []
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        done = sum(self.done.values())
        return Pulse(at, p50, p99, done, self.interrupted, os.getloadavg()[0])

    async def ping(self) -> str:
        """A small exchange on a connection of its own; timed unless an outage has to do with it."""
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tcp_port)
        try:
            data = random.randbytes(64)
            writer.write(traffic.HEADER.pack(b"E", 0) + data)
            if await reader.readexactly(len(data)) != data:
                self.wrong.append("ping: other bytes")
            if not self._touched(began):
                self.times.append(time.monotonic() - began)
        finally:
            writer.close()
        await asyncio.sleep(self.ping_every)
        return "ping"

    async def connection(self) -> str:
        """A connection that waits, open, for its turn."""
        kind = random.choices(("echo", "half", "reset"), (8, 2, 1))[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tcp_port)
        try:
            await asyncio.sleep(self.pace.wait(time.monotonic()))
            data = random.randbytes(random.randint(1, 200_000))
            writer.write(traffic.HEADER.pack(b"H" if kind == "half" else b"E", 0))
            if kind == "half":
                writer.write(data)
                writer.write_eof()
                if await reader.readexactly(32) != hashlib.sha256(data).digest():
                    self.wrong.append("half-closed: another digest")
            else:
                _, back = await asyncio.gather(_send(writer, data), reader.readexactly(len(data)))
                if back != data:
                    self.wrong.append("echo: other bytes")
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
            return kind
        finally:
            writer.close()

    async def flow(self) -> str:
        """A new local UDP peer: 20 datagrams, each must come back, but a lost one is asked anew."""
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.udp_port))
            for number in range(20):
                data = struct.pack("!I", number) + random.randbytes(random.randint(0, 1200))
                await self._ask(loop, sock, data)
        await asyncio.sleep(1)
        return "flow"

    async def _ask(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytes) -> None:
        for _ in range(10):
            await loop.sock_sendall(sock, data)
            try:
                async with asyncio.timeout(2):
                    while (answer := await loop.sock_recv(sock, 65535))[:4] != data[:4]:
                        pass  # the late answer to a question asked twice
            except TimeoutError:
                continue
            if answer != data:
                self.wrong.append("flow: other bytes")
            return
        raise TimeoutError("no answer to a datagram")


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def outage(load: Load, name: str, interrupt: Callable[[], Awaitable[None]]) -> None:
    """Do that to the link, then see that the tunnel comes back. `name`: what to count it as."""
    load.cut_began, load.cut_over = time.monotonic(), math.inf
    await interrupt()
    back_again = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(BACK_WITHIN):
                await load.ping()
        except EXPECTED:
            if time.monotonic() > back_again + BACK_WITHIN:
                load.wrong.append(f"no tunnel {BACK_WITHIN:.0f} s after a {name}")
                return
            await asyncio.sleep(0.5)
        else:
            load.done[name] += 1
            load.cut_over = time.monotonic()
            load.cuts.append((load.cut_began, load.cut_over))
            return


async def cut(cable: Cable) -> None:
    """Swallow everything for a while: the same link has to go on afterwards."""
    cable.cut = True
    await asyncio.sleep(CUT)
    cable.cut = False
