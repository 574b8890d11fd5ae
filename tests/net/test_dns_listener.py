import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tunnel_rs.net.dns_listener import MAX_QUERY, TcpDnsServer, UdpDnsServer
from tunnel_rs.proto.source_limits import SourceLimits

PLENTY = 1e6
Address = tuple[str, int]


def echo(message: bytes) -> bytes | None:
    return b"answer to " + message


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def bound(kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


@asynccontextmanager
async def tcp(
    respond: Callable[[bytes], bytes | None] = echo, *, burst: float = PLENTY, **options: float
) -> AsyncIterator[tuple[TcpDnsServer, Address]]:
    sock = bound(socket.SOCK_STREAM)
    server = TcpDnsServer(respond, SourceLimits(0.001, burst), **options)  # type: ignore[arg-type]
    await server.start(sock)
    try:
        yield server, sock.getsockname()
    finally:
        await server.close()


@asynccontextmanager
async def udp(burst: float = PLENTY) -> AsyncIterator[socket.socket]:
    """A client's socket, connected to the server."""
    sock = bound(socket.SOCK_DGRAM)
    server = UdpDnsServer(echo, lambda _: b"use TCP", SourceLimits(0.001, burst))
    await server.start(sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(sock.getsockname())
        yield client
    await server.close()


async def received(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 4096)


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed or reset, with nothing more to read."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_datagrams_are_answered() -> None:
    async with udp() as client:
        for query in (b"one", b"two"):
            client.send(query)
            assert await received(client) == b"answer to " + query


async def test_an_oversized_datagram_is_dropped() -> None:
    async with udp() as client:
        client.send(bytes(MAX_QUERY + 1))
        client.send(b"next")
        assert await received(client) == b"answer to next"


async def test_over_the_rate_every_second_query_is_led_to_tcp() -> None:
    async with udp(burst=2) as client:
        for _ in range(6):
            client.send(b"q")
        answers = [await received(client) for _ in range(4)]
        assert answers == [b"answer to q"] * 2 + [b"use TCP"] * 2
        with pytest.raises(BlockingIOError):
            client.recv(10)


async def test_queries_on_one_connection_are_answered_in_order_however_they_are_cut() -> None:
    async with tcp() as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        data = framed(b"one") + framed(b"") + framed(b"three")
        for start in range(0, len(data), 4):
            writer.write(data[start : start + 4])
            await writer.drain()
        answers = [await read_answer(reader) for _ in range(3)]
        assert answers == [b"answer to one", b"answer to ", b"answer to three"]
        writer.close()


async def test_what_was_asked_before_eof_is_answered() -> None:
    async with tcp() as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"last"))
        writer.write_eof()
        assert await read_answer(reader) == b"answer to last"
        assert await ended(reader)
        writer.close()


@pytest.mark.parametrize("data", [b"\xff\xff", (MAX_QUERY + 1).to_bytes(2, "big") + b"x"])
async def test_a_query_that_claims_too_much_ends_the_connection(data: bytes) -> None:
    async with tcp() as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data)
        assert await ended(reader)
        assert len(server) == 0
        writer.close()


async def test_silence_as_an_answer_ends_the_connection() -> None:
    async with tcp(lambda _: None) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"x"))
        assert await ended(reader)
        writer.close()


async def test_a_connection_over_its_rate_is_ended() -> None:
    async with tcp(burst=2) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"x") * 2)
        assert [await read_answer(reader) for _ in range(2)] == [b"answer to x"] * 2
        writer.write(framed(b"x"))
        assert await ended(reader)
        writer.close()


async def test_a_connection_lasts_no_longer_than_its_deadline() -> None:
    async with tcp(deadline=0.01) as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        assert await ended(reader)
        assert len(server) == 0
        writer.close()


async def test_one_address_gets_only_so_many_connections() -> None:
    async with tcp(per_source=2) as (server, address):
        kept = [await asyncio.open_connection(*address) for _ in range(2)]
        reader, writer = await asyncio.open_connection(*address)
        assert await ended(reader)
        assert len(server) == 2
        for kept_reader, kept_writer in kept:
            kept_writer.write(framed(b"x"))
            assert await read_answer(kept_reader) == b"answer to x"
            kept_writer.close()
        writer.close()


async def test_when_all_places_are_taken_the_oldest_connection_makes_room() -> None:
    async with tcp(maximum=2) as (server, address):
        connections = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address)
            connections.append((reader, writer))
            if len(connections) < 3:
                writer.write(framed(b"x"))
                await read_answer(reader)
        assert await ended(connections[0][0])
        connections[2][1].write(framed(b"new"))
        assert await read_answer(connections[2][0]) == b"answer to new"
        assert len(server) == 2
        for _, writer in connections:
            writer.close()


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    asked = 0

    def large(_: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return bytes(60_000)

    async with tcp(large) as (_, address):
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, address)
            total = 50_000
            writing = asyncio.ensure_future(loop.sock_sendall(client, framed(b"x") * total))
            done, _ = await asyncio.wait([writing], timeout=0.3)
            assert asked < 500
            # It starts to read: everything still waiting is answered.
            before = asked
            while asked == before:
                await loop.sock_recv(client, 1 << 20)
            writing.cancel()
            await asyncio.wait([writing])
            assert done is not None


async def test_closing_ends_every_connection_and_frees_the_port() -> None:
    async with tcp() as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(framed(b"x"))
        await read_answer(reader)
        await server.close()
        assert await ended(reader)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
