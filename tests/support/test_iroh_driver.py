"""The driver against itself, real iroh at both ends: what a test of ours finds is then ours."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("iroh", reason="needs the iroh package, which has no wheel for this platform")

from tests.support import iroh_driver as driver

pytestmark = pytest.mark.interop
TOKEN = "iabcdefghijklmnopg"


@pytest.fixture
async def server() -> AsyncIterator[driver.Server]:
    async with driver.serving(TOKEN) as running:
        yield running


async def test_a_megabyte_comes_back_unchanged_over_tcp(server: driver.Server) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    payload = os.urandom(1_000_000)
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as target:
        source = f"tcp://127.0.0.1:{target.sockets[0].getsockname()[1]}"
        async with await driver.Client.connect(server.endpoint_id, server.address) as client:
            assert (await client.authenticate(TOKEN))["accepted"] is True
            stream, answer = await client.request(source)
            assert answer["accepted"] is True
            count, digest = await driver.send_and_hash(stream, payload)
    assert (count, digest) == (len(payload), hashlib.sha256(payload).hexdigest())
    assert server.requests == [source]


async def test_a_wrong_token_is_answered_and_the_connection_closed(server: driver.Server) -> None:
    async with await driver.Client.connect(server.endpoint_id, server.address) as client:
        assert (await client.authenticate("iAAAAAAAAAAAAAAAAA"))["accepted"] is False
        assert "auth_failed" in await client.connection.closed()
    assert server.refused == 1


async def test_datagrams_come_back_with_their_boundaries_over_udp(server: driver.Server) -> None:
    loop = asyncio.get_running_loop()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.DatagramTransport)
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data, addr)

    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    source = f"udp://127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    async with await driver.Client.connect(server.endpoint_id, server.address) as client:
        await client.authenticate(TOKEN)
        stream, answer = await client.request(source)
        assert answer["accepted"] is True
        for data in (b"one", b"", os.urandom(9000)):
            await stream.write_datagram(data)
            assert await stream.read_datagram() == data
        await stream.send.finish()
    transport.close()
