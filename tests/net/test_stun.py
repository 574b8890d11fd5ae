import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.stun_server import binding_answer, stun_server, xor_answer

from tunnel_rs.errors import ProtocolError, UnreachableError
from tunnel_rs.net import stun
from tunnel_rs.net.stun import StunClient
from tunnel_rs.net.udp import SockAddr, UdpSocket
from tunnel_rs.values import SocketAddr


class Inner:
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.calls: list[str] = []

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        self.got.append(bytes(train))

    def end_batch(self) -> None:
        self.calls.append("end")

    def writable(self) -> None:
        self.calls.append("writable")


@asynccontextmanager
async def client(inner: Inner | None = None) -> AsyncIterator[tuple[StunClient, UdpSocket]]:
    sock = UdpSocket.bind(SocketAddr("127.0.0.1", 0))
    asking = StunClient(sock, inner)
    sock.start(asking)
    try:
        yield asking, sock
    finally:
        sock.close()


async def test_a_server_tells_how_it_sees_us() -> None:
    async with stun_server() as (_, where), client() as (asking, sock):
        assert await asking.mapped_address(where) == sock.address


async def test_a_lost_request_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stun, "FIRST_TIMEOUT", 0.01)
    seen = 0

    def second(request: bytes, address: tuple[str, int]) -> bytes | None:
        nonlocal seen
        seen += 1
        return xor_answer(request, address) if seen == 2 else None

    async with stun_server(second) as (server, where), client() as (asking, sock):
        assert await asking.mapped_address(where) == sock.address
        assert server.requests == 2


async def test_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stun, "FIRST_TIMEOUT", 0.001)
    async with stun_server(lambda *_: None) as (_, where), client() as (asking, _sock):
        with pytest.raises(UnreachableError, match="no answer"):
            await asking.mapped_address(where)
        assert not asking._waiting


async def test_an_answer_without_sense_is_told() -> None:
    def strange(request: bytes, address: tuple[str, int]) -> bytes:
        return b"\x01\x01\0\0" + request[4:20]

    async with stun_server(strange) as (_, where), client() as (asking, _):
        with pytest.raises(ProtocolError, match="no address"):
            await asking.mapped_address(where)


async def test_an_answer_from_somebody_else_is_not_believed() -> None:
    inner = Inner()
    async with (
        stun_server(lambda *_: None) as (_, where),
        stun_server() as (_, other),
        client(inner) as (asking, sock),
    ):
        task = asyncio.create_task(asking.mapped_address(where))
        await asyncio.sleep(0)
        [transaction] = asking._waiting
        forged = binding_answer(b"\0" * 8 + transaction, "6.6.6.6", 6)
        asking.receive_train(memoryview(forged), len(forged), (other.ip, other.port))
        assert inner.got == [forged]
        honest = binding_answer(b"\0" * 8 + transaction, "1.2.3.4", 5)
        train = memoryview(b"x" * len(honest) + honest)
        asking.receive_train(train, len(honest), (where.ip, where.port))
        assert await task == SocketAddr("1.2.3.4", 5)
        assert inner.got[1:] == [b"x" * len(honest)]


async def test_the_rest_is_passed_on() -> None:
    inner = Inner()
    async with client(inner) as (asking, _):
        asking.receive_train(memoryview(b"quic"), 4, ("127.0.0.1", 1))
        asking.end_batch()
        asking.writable()
    assert (inner.got, inner.calls) == ([b"quic"], ["end", "writable"])


async def test_without_anybody_behind_it_the_rest_is_dropped() -> None:
    async with client() as (asking, _):
        asking.receive_train(memoryview(b"quic"), 4, ("127.0.0.1", 1))
        asking.end_batch()
        asking.writable()
