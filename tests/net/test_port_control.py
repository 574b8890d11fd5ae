"""Tests of `tunnel_rs.net.port_control`. A real router is asked in tests/netns."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address

import pytest
from tests.support.sockets import UdpTarget, until

from tunnel_rs.errors import ProtocolError, UnreachableError
from tunnel_rs.net import port_control as module
from tunnel_rs.net.port_control import PortControl
from tunnel_rs.values import SocketAddr

HERE = IPv4Address("127.0.0.1")
OUTSIDE = bytes((198, 51, 100, 21))
EPOCH = bytes(4)


def pcp_router(message: bytes) -> bytes | None:
    """Grants every wish."""
    if message[0] != 2:
        return None
    head = bytes((2, 0x81, 0, 0)) + message[4:8] + EPOCH + bytes(12)
    return head + message[24:44] + bytes(10) + b"\xff\xff" + OUTSIDE


def pcp_router6(message: bytes) -> bytes:
    head = bytes((2, 0x81, 0, 0)) + message[4:8] + EPOCH + bytes(12)
    return head + message[24:44] + IPv6Address("2001:db8::2").packed


def nat_pmp_router(message: bytes) -> bytes | None:
    """Knows no PCP."""
    if message[0] != 0:
        return bytes((0, 0x80 | message[1], 0, 1)) + EPOCH
    if message[1] == 0:
        return bytes((0, 0x80, 0, 0)) + EPOCH + OUTSIDE
    return bytes((0, 0x81, 0, 0)) + EPOCH + message[4:]


@asynccontextmanager
async def router(
    answer: Callable[[bytes], bytes | None],
) -> AsyncIterator[tuple[UdpTarget, PortControl]]:
    target = UdpTarget(answer)
    try:
        yield target, PortControl(HERE, 4444, router_port=target.port)
    finally:
        target.close()


@pytest.mark.parametrize("answer", [pcp_router, nat_pmp_router])
async def test_a_port_is_obtained_renewed_and_released(
    answer: Callable[[bytes], bytes | None],
) -> None:
    async with router(answer) as (target, control):
        lease = await control.obtain(5555)
        assert lease.external == SocketAddr("198.51.100.21", 5555)
        assert (await control.obtain(5555)).lifetime == 7200
        nonces = {message[24:36] for message in target.received if message[0] == 2}
        assert len(nonces) == 1
        await control.release()
        lifetime = target.received[-1][4:8] if answer is pcp_router else target.received[-1][8:12]
        assert lifetime == bytes(4)


async def test_of_ipv6_only_pcp_is_spoken_and_from_the_address_that_it_is_about() -> None:
    own = IPv6Address("::1")
    received: list[bytes] = []
    answers = [pcp_router6, lambda message: bytes((0, 0x81, 0, 1)) + EPOCH]

    def answer() -> None:
        message, source = sock.recvfrom(2000)
        received.append(message)
        sock.sendto(answers.pop(0)(message), source)

    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        asyncio.get_running_loop().add_reader(sock, answer)
        control = PortControl(own, 4444, router_port=sock.getsockname()[1], source=own)
        lease = await control.obtain(4444)
        assert lease.external == SocketAddr("2001:db8::2", 4444)
        with pytest.raises(ProtocolError, match="NAT-PMP, not PCP"):
            await control.obtain(4444)
        asyncio.get_running_loop().remove_reader(sock)
    assert [message[8:24] for message in received] == [own.packed] * 2


async def test_pcp_is_not_tried_again_with_a_router_that_does_not_know_it() -> None:
    async with router(nat_pmp_router) as (target, control):
        await control.obtain(7)
        await control.obtain(7)
        assert [message[0] for message in target.received] == [2, 0, 0, 0, 0]


async def test_a_lost_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAITS", (0.01, 5.0))
    seen: list[bytes] = []

    def deaf_at_first(message: bytes) -> bytes | None:
        seen.append(message)
        return pcp_router(message) if len(seen) > 1 else None

    async with router(deaf_at_first) as (_, control):
        assert (await control.obtain(5555)).external.port == 5555


async def test_a_router_that_says_nothing_is_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAITS", (0.01, 0.01))
    async with router(lambda _: None) as (_, control):
        with pytest.raises(UnreachableError, match="no answer by PCP or NAT-PMP"):
            await control.obtain(0)


async def test_a_refusal_ends_the_wait() -> None:
    def refuse(message: bytes) -> bytes:
        return bytes((2, 0x81, 0, 2)) + bytes(20) + message[24:]

    async with router(refuse) as (_, control):
        with pytest.raises(ProtocolError, match="does not allow"):
            await control.obtain(0)


async def test_a_router_that_will_not_give_up_a_port_is_asked_for_the_shortest_lease() -> None:
    def keep(message: bytes) -> bytes | None:
        if message[4:8] == bytes(4):
            return bytes((2, 0x81, 0, 2)) + bytes(20) + message[24:]
        return pcp_router(message)

    async with router(keep) as (target, control):
        await control.obtain(5555)
        await control.release()
        lifetimes = [int.from_bytes(message[4:8], "big") for message in target.received]
        assert lifetimes == [7200, 0, 1]


async def test_junk_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAITS", (0.02,))
    async with router(lambda _: b"\x02\x81 junk") as (_, control):
        with pytest.raises(UnreachableError):
            await control.obtain(0)


async def test_who_gives_up_leaves_no_socket() -> None:
    async with router(lambda _: None) as (target, control):
        task = asyncio.create_task(control.obtain(0))
        await until(lambda: bool(target.received))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
