import asyncio
import socket
import struct
import threading
import time

import pytest
from tests.support.stun_server import stun_server

from tunnel_rs.errors import UnreachableError
from tunnel_rs.net import nat_type as module
from tunnel_rs.net.nat_type import MAX_SENT, GuardedSocket, NatType, nat_type
from tunnel_rs.values import SocketAddr


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_TIMEOUT", 0.02)


def old_answer(request: bytes, address: tuple[str, int], seen_as: tuple[str, int]) -> bytes:
    """An answer in RFC 3489's form: mapped and changed address."""

    def value(ip: str, port: int) -> bytes:
        return struct.pack(">BBH", 0, 1, port) + bytes(map(int, ip.split(".")))

    body = b""
    for kind, where in ((1, seen_as), (5, ("127.0.0.1", 9))):
        body += struct.pack(">HH", kind, 8) + value(*where)
    return b"\x01\x01" + len(body).to_bytes(2, "big") + request[4:20] + body


async def test_no_nat_is_recognised() -> None:
    def answer(request: bytes, address: tuple[str, int]) -> bytes:
        return old_answer(request, address, address)

    async with stun_server(answer) as (_, where):
        found = await nat_type(where, "127.0.0.1", timeout=5)
    assert found.kind == "no NAT"
    assert found.external is not None and found.external.ip == "127.0.0.1"


async def test_a_full_cone_is_recognised() -> None:
    def answer(request: bytes, address: tuple[str, int]) -> bytes:
        return old_answer(request, address, ("192.0.2.7", 700))

    async with stun_server(answer) as (_, where):
        found = await nat_type(where, "127.0.0.1", timeout=5)
    assert found == NatType("full cone", SocketAddr("192.0.2.7", 700))


async def test_silence_is_no_answer() -> None:
    async with stun_server(lambda *_: None) as (server, where):
        assert await nat_type(where, "127.0.0.1", timeout=5) == NatType("no answer", None)
        assert server.requests == 4


async def test_a_server_that_refuses_does_not_make_it_loop() -> None:
    """pystun3 asks again at once, and for ever, when the answer is an error."""

    def refuse(request: bytes, address: tuple[str, int]) -> bytes:
        if len(request) > 20:
            return b"\x01\x11\0\0" + request[4:20]
        return old_answer(request, address, ("192.0.2.7", 700))

    async with stun_server(refuse) as (server, where):
        with pytest.raises(UnreachableError, match="does not let it be found out"):
            await nat_type(where, "127.0.0.1", timeout=5)
        assert server.requests <= MAX_SENT


async def test_a_server_without_other_address_is_told() -> None:
    def plain(request: bytes, address: tuple[str, int]) -> bytes | None:
        if len(request) > 20:
            return None
        value = struct.pack(">BBH", 0, 1, 700) + bytes([192, 0, 2, 7])
        return b"\x01\x01\0\x0c" + request[4:20] + struct.pack(">HH", 1, 8) + value

    async with stun_server(plain) as (_, where):
        with pytest.raises(UnreachableError, match="does not name its other address"):
            await nat_type(where, "127.0.0.1", timeout=5)


@pytest.mark.parametrize("junk", [b"x", b"\x01\x01\xff\xff" + bytes(16), bytes(20)])
async def test_junk_is_told_without_a_traceback(junk: bytes) -> None:
    async with stun_server(lambda *_: junk) as (_, where):
        with pytest.raises(UnreachableError):
            await nat_type(where, "127.0.0.1", timeout=5)


async def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(UnreachableError):
        await nat_type(SocketAddr("127.0.0.1", 9), "192.0.2.222", timeout=5)


async def test_nobody_waits_beyond_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def stuck(*_: object) -> NatType:
        released.wait(10)
        return NatType("late", None)

    monkeypatch.setattr(module, "classify", stuck)
    try:
        with pytest.raises(UnreachableError, match="not found out within 0.01 s"):
            await nat_type(SocketAddr("127.0.0.1", 9), "127.0.0.1", timeout=0.01)
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name == "nat type":
            await asyncio.to_thread(thread.join, 5)
    await asyncio.sleep(0)


def test_the_socket_stops_at_its_deadline() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        guarded = GuardedSocket(sock, time.monotonic() - 1)
        with pytest.raises(TimeoutError):
            guarded.sendto(b"x", ("127.0.0.1", 9))
