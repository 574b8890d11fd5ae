"""The driver against itself, real iroh at both ends: what a test of ours finds is then ours."""

import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from tests.support import iroh_driver as driver
from tests.support.sockets import UdpTarget, echo_server

pytestmark = pytest.mark.interop
TOKEN = "iabcdefghijklmnopg"


@pytest.fixture
async def server() -> AsyncIterator[driver.Server]:
    async with driver.serving(TOKEN) as running:
        yield running


async def test_a_megabyte_comes_back_unchanged_over_tcp(server: driver.Server) -> None:
    payload = os.urandom(1_000_000)
    async with echo_server() as target:
        async with await driver.Client.connect(server.endpoint_id, server.address) as client:
            assert (await client.authenticate(TOKEN))["accepted"] is True
            stream, answer = await client.request(target.url)
            assert answer["accepted"] is True
            count, digest = await driver.send_and_hash(stream, payload)
    assert (count, digest) == (len(payload), hashlib.sha256(payload).hexdigest())
    assert server.requests == [target.url]


async def test_a_wrong_token_is_answered_and_the_connection_closed(server: driver.Server) -> None:
    async with await driver.Client.connect(server.endpoint_id, server.address) as client:
        assert (await client.authenticate("iAAAAAAAAAAAAAAAAA"))["accepted"] is False
        assert "auth_failed" in await client.connection.closed()
    assert server.refused == 1


async def test_datagrams_come_back_with_their_boundaries_over_udp(server: driver.Server) -> None:
    target = UdpTarget()
    async with await driver.Client.connect(server.endpoint_id, server.address) as client:
        await client.authenticate(TOKEN)
        stream, answer = await client.request(target.url)
        assert answer["accepted"] is True
        for data in (b"one", b"", os.urandom(9000)):
            await stream.write_datagram(data)
            assert await stream.read_datagram() == data
        await stream.send.finish()
    target.close()
