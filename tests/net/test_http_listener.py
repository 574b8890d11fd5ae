"""The HTTP listener holds its limits."""

import asyncio

import pytest
from aiohttp import web
from tests.support.relay_network import LOOPBACK, until

from tunnel_rs.errors import LocalError
from tunnel_rs.net.http_listener import ConnectionLimits, HttpListener, source_network
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import SocketAddr


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


async def started(
    limits: ConnectionLimits, deadline: float = 30.0, address: SocketAddr = LOOPBACK
) -> HttpListener:
    listener = HttpListener(address, hello, limits=limits, deadline=deadline)
    await listener.start()
    return listener


async def connect(listener: HttpListener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    ip = "127.0.0.1" if listener.bound.ip in ("::", "0.0.0.0") else listener.bound.ip
    return await asyncio.open_connection(ip, listener.bound.port)


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_it_answers_and_tells_its_real_port() -> None:
    listener = await started(ConnectionLimits(5))
    reader, writer = await connect(listener)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    await listener.close()
    await listener.close()
    assert await reader.read() is not None
    writer.close()


async def test_one_connection_too_many_is_refused_and_counted() -> None:
    limits = ConnectionLimits(1)
    refused: list[None] = []
    listener = HttpListener(
        LOOPBACK, hello, limits=limits, deadline=30.0, on_refused=lambda: refused.append(None)
    )
    await listener.start()
    _, first = await connect(listener)
    await until(lambda: limits._open == 1)
    reader, second = await connect(listener)
    assert await ended(reader) and len(refused) == 1
    first.close()
    await until(lambda: limits._open == 0)
    reader, third = await connect(listener)
    await until(lambda: limits._open == 1)
    for writer in (second, third):
        writer.close()
    await listener.close()


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: b"])
async def test_a_connection_that_asks_nothing_whole_ends_at_the_deadline(start: bytes) -> None:
    limits = ConnectionLimits(5)
    listener = await started(limits, deadline=0.05)
    reader, writer = await connect(listener)
    writer.write(start)
    assert await ended(reader)
    await until(lambda: limits._open == 0)
    writer.close()
    await listener.close()


async def test_a_port_in_use_is_told_in_one_line() -> None:
    listener = await started(ConnectionLimits(5))
    with pytest.raises(LocalError, match=r"cannot listen on 127\.0\.0\.1:\d+: another program"):
        await started(ConnectionLimits(5), address=listener.bound)
    await listener.close()


async def test_any_ipv6_address_means_ipv4_too() -> None:
    listener = await started(ConnectionLimits(5), address=SocketAddr("::", 0))
    _, writer = await connect(listener)
    writer.close()
    await listener.close()


def test_the_limit_per_source_leaves_room_for_others() -> None:
    limits = ConnectionLimits(10, per_source=2)
    assert limits.enter("a", 0) and limits.enter("a", 0) and not limits.enter("a", 0)
    assert limits.enter("b", 0)
    limits.leave("a")
    assert limits.enter("a", 0)
    for source in ("a", "a", "b"):
        limits.leave(source)
    assert not limits._by_source and limits._open == 0


def test_the_rate_of_new_connections_is_limited() -> None:
    limits = ConnectionLimits(10, rate=TokenBucket(1, 2, 0.0))
    assert [limits.enter("a", 0.0) for _ in range(3)] == [True, True, False]
    assert limits.enter("a", 1.0)


@pytest.mark.parametrize(
    ("ip", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_source(ip: str, source: str) -> None:
    assert source_network(ip) == source
