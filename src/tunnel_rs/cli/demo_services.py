"""The services that `tunnel-rs demo` reaches through its tunnel: a web page and a UDP echo."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientSession, web

LOOPBACK = "127.0.0.1"
_CHUNK = 256 << 10

PAGE = """<!doctype html>
<title>It works</title>
<h1>You reached this page through tunnel-rs</h1>
<p>Your browser spoke to a local port. The client carried the bytes over an encrypted QUIC
connection to the server, which it found by its public key, and the server fetched this page.</p>
"""


@dataclass(frozen=True, slots=True)
class Download:
    """What a fetch brought."""

    status: int
    size: int
    sha256: str


@asynccontextmanager
async def web_service(data: bytes) -> AsyncIterator[int]:
    """Serve a page at `/` and `data` at `/data`; gives the port."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def download(_: web.Request) -> web.Response:
        return web.Response(body=data)

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/data", download)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock = socket.create_server((LOOPBACK, 0))
    try:
        await web.SockSite(runner, sock).start()
        yield sock.getsockname()[1]
    finally:
        await runner.cleanup()


async def fetch(url: str) -> Download:
    """Fetch `url` and digest it on the way."""
    digest, size = hashlib.sha256(), 0
    async with ClientSession() as session, session.get(url) as answer:
        async for chunk in answer.content.iter_chunked(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
        return Download(answer.status, size, digest.hexdigest())


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


@asynccontextmanager
async def udp_echo() -> AsyncIterator[int]:
    """Send every datagram back; gives the port."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_Echo, local_addr=(LOOPBACK, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def ask_echo(port: int, questions: int) -> int:
    """Send numbered datagrams one after the other; returns how many came back as they were."""
    loop = asyncio.get_running_loop()
    same = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((LOOPBACK, port))
        for number in range(questions):
            question = f"question {number}".encode()
            await loop.sock_sendall(sock, question)
            async with asyncio.timeout(5):
                same += await loop.sock_recv(sock, 2048) == question
    return same
