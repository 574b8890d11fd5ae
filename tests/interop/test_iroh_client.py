"""A real iroh client through our `tunnel-rs server`."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support import iroh_driver as driver
from tests.support.servers import OurServer, our_server
from tests.support.sockets import TcpTarget, UdpTarget, echo_server, read_to_eof, send

pytestmark = pytest.mark.interop

TEN_MEGABYTES = 10_000_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OurServer]:
    networks = ("--allowed-tcp", "127.0.0.0/8", "--allowed-udp", "127.0.0.0/8")
    async with our_server(tmp_path, *networks) as running:
        yield running


@pytest.fixture
async def client(server: OurServer) -> AsyncIterator[driver.Client]:
    async with await driver.Client.connect(server.endpoint_id, server.address) as connected:
        answer = await connected.authenticate(server.token_file.read_text().strip())
        assert answer == {"version": 3, "accepted": True}
        yield connected


async def test_ten_megabytes_come_back_unchanged_over_tcp(client: driver.Client) -> None:
    payload = os.urandom(TEN_MEGABYTES)
    async with echo_server() as target:
        stream, answer = await client.request(target.url)
        assert answer == {"version": 3, "accepted": True}
        count, digest = await driver.send_and_hash(stream, payload)
    assert (count, digest) == (TEN_MEGABYTES, hashlib.sha256(payload).hexdigest())


async def test_each_direction_ends_by_itself(client: driver.Client) -> None:
    target = TcpTarget()
    stream, _ = await client.request(target.url)
    sock = await target.accept()
    await stream.write(b"question")
    await stream.send.finish()
    assert await read_to_eof(sock) == b"question"
    await send(sock, b"answer after the question's end")
    target.close()
    assert await stream.read_all() == b"answer after the question's end"


async def test_datagrams_keep_their_boundaries_empty_and_largest_included(
    client: driver.Client,
) -> None:
    target = UdpTarget()
    stream, answer = await client.request(target.url)
    assert answer["accepted"] is True
    for data in (b"one", b"", os.urandom(1200), os.urandom(65_507)):
        await stream.write_datagram(data)
        assert await stream.read_datagram() == data
    await stream.send.finish()
    target.close()


async def test_twenty_streams_at_once_do_not_mix(client: driver.Client) -> None:
    async def one(number: int) -> bool:
        payload = bytes([number]) * 50_000
        stream, _ = await client.request(target.url)
        _, digest = await driver.send_and_hash(stream, payload)
        return digest == hashlib.sha256(payload).hexdigest()

    async with echo_server() as target:
        assert all(await asyncio.gather(*(one(number) for number in range(20))))


async def test_a_source_outside_the_allow_list_is_refused_and_the_next_one_served(
    client: driver.Client,
) -> None:
    _, answer = await client.request("tcp://192.0.2.1:80")
    assert answer["accepted"] is False
    assert answer["reason"]
    async with echo_server() as target:
        stream, answer = await client.request(target.url)
        assert answer["accepted"] is True
        assert (await driver.send_and_hash(stream, b"still here"))[0] == 10


async def test_a_refused_target_is_told(client: driver.Client) -> None:
    target = TcpTarget()
    target.close()
    _, answer = await client.request(target.url)
    assert answer["accepted"] is False
    assert answer["reason"]


async def test_a_wrong_token_is_told_and_the_connection_closed_with_code_1(
    server: OurServer,
) -> None:
    async with await driver.Client.connect(server.endpoint_id, server.address) as stranger:
        answer = await stranger.authenticate("iAAAAAAAAAAAAAAAAA")
        assert answer["accepted"] is False
        ended = await stranger.connection.closed()
    assert "auth_failed" in ended
    assert "1" in ended


async def test_a_server_that_ends_says_so(server: OurServer, client: driver.Client) -> None:
    await server.program.end()
    assert "closed" in await client.connection.closed()


async def test_a_client_that_expects_another_key_gets_no_connection(server: OurServer) -> None:
    other = driver.fresh_endpoint_id()
    with pytest.raises(driver.IrohError):
        await driver.Client.connect(other, server.address)
