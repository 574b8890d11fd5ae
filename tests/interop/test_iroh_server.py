"""Our `tunnel-rs client` towards a real iroh server."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support import iroh_driver as driver
from tests.support.servers import client_of, our_client, running
from tests.support.sockets import TcpTarget, UdpTarget, connect, echo_server, read_to_eof, send

pytestmark = pytest.mark.interop

TOKEN = "iabcdefghijklmnopg"
TEN_MEGABYTES = 10_000_000


@pytest.fixture
async def server() -> AsyncIterator[driver.Server]:
    async with driver.serving(TOKEN) as serving:
        yield serving


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "token.txt"
    path.write_text(TOKEN)
    return path


def client_command(server: driver.Server, tokens: Path) -> Sequence[str]:
    return client_of(server.endpoint_id, server.address, tokens)


async def exchange(port: int, payload: bytes) -> bytes:
    """Send `payload` and EOF to a local port while reading; everything that came back."""
    with await connect(("127.0.0.1", port)) as sock:

        async def outward() -> None:
            await send(sock, payload)
            sock.shutdown(socket.SHUT_WR)

        back, _ = await asyncio.gather(read_to_eof(sock), outward())
        return back


async def test_ten_megabytes_come_back_unchanged_over_tcp(
    server: driver.Server, tokens: Path
) -> None:
    payload = os.urandom(TEN_MEGABYTES)
    async with echo_server() as target:
        options = ("-s", target.url, "-t", "127.0.0.1:0")
        async with our_client(client_command(server, tokens), *options) as (port,):
            back = await exchange(port, payload)
    assert hashlib.sha256(back).digest() == hashlib.sha256(payload).digest()
    assert server.requests == [target.url]


async def test_each_direction_ends_by_itself(server: driver.Server, tokens: Path) -> None:
    target = TcpTarget()
    options = ("-s", target.url, "-t", "127.0.0.1:0")
    async with our_client(client_command(server, tokens), *options) as (port,):
        with await connect(("127.0.0.1", port)) as sock:
            await send(sock, b"question")
            sock.shutdown(socket.SHUT_WR)
            far = await target.accept()
            assert await read_to_eof(far) == b"question"
            await send(far, b"answer after the question's end")
            target.close()
            assert await read_to_eof(sock) == b"answer after the question's end"


async def test_two_udp_peers_get_their_own_answers(server: driver.Server, tokens: Path) -> None:
    loop = asyncio.get_running_loop()
    target = UdpTarget(lambda data: b"answer to " + data)
    options = ("-s", target.url, "-t", "127.0.0.1:0")
    async with our_client(client_command(server, tokens), *options) as (port,):
        with ExitStack() as stack:
            peers = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2)]
            for peer in peers:
                peer.setblocking(False)
                peer.connect(("127.0.0.1", port))
            for name, peer in zip((b"one", b"two"), peers, strict=True):
                await loop.sock_sendall(peer, name)
            answers = await asyncio.gather(*(loop.sock_recv(peer, 100) for peer in peers))
    target.close()
    assert answers == [b"answer to one", b"answer to two"]
    assert server.requests == [target.url, target.url]


async def test_several_tunnels_share_one_connection(server: driver.Server, tokens: Path) -> None:
    async with echo_server() as one, echo_server() as other:
        pairs = [("-s", target.url, "-t", "127.0.0.1:0") for target in (one, other)]
        options = [option for pair in pairs for option in pair]
        async with our_client(client_command(server, tokens), *options) as ports:
            assert [await exchange(port, b"hello") for port in ports] == [b"hello", b"hello"]
    assert sorted(server.requests) == sorted([one.url, other.url])
    assert len(server.connections) == 1


async def test_a_client_that_is_ended_closes_with_done(server: driver.Server, tokens: Path) -> None:
    async with echo_server() as target:
        options = ("-s", target.url, "-t", "127.0.0.1:0")
        async with our_client(client_command(server, tokens), *options):
            pass
        ended = await server.connections[0].closed()
    assert "done" in ended


async def test_a_wrong_token_ends_the_client_with_status_3(
    server: driver.Server, tokens: Path
) -> None:
    tokens.write_text("iAAAAAAAAAAAAAAAAA")
    options = ("-s", "tcp://127.0.0.1:9", "-t", "127.0.0.1:0")
    async with running(*client_command(server, tokens), *options) as program:
        await program.drain()
        assert await program.process.wait() == 3
    assert "Traceback" not in program.text
    assert server.refused == 1


async def test_a_server_with_another_key_is_not_spoken_to(
    server: driver.Server, tokens: Path
) -> None:
    other = driver.fresh_endpoint_id()
    command = client_of(other, server.address, tokens)
    options = ("-s", "tcp://127.0.0.1:9", "-t", "127.0.0.1:0", "--no-reconnect")
    async with running(*command, *options) as program:
        await program.drain()
        assert await program.process.wait() == 5
    assert "Traceback" not in program.text
    assert server.refused == 0
