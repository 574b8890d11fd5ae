"""Tests of `tunnel_rs.net.datagrams`."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.support.sockets import until

from tunnel_rs.errors import TargetError
from tunnel_rs.net.datagrams import MAX_BATCH, Address, Batch, DatagramSocket, connect_udp


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def bound() -> tuple[socket.socket, Address]:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()


async def test_what_waits_is_read_in_batches(peer: socket.socket) -> None:
    sock, address = bound()
    sent = [b"%d" % i for i in range(MAX_BATCH + 6)]
    for datagram in sent:
        peer.sendto(datagram, address)
    batches: list[Batch] = []
    with closing(DatagramSocket(sock, batches.append)):
        await until(lambda: len(batches) == 2)
    assert [len(batch) for batch in batches] == [MAX_BATCH, 6]
    assert [payload for batch in batches for payload, _ in batch] == sent
    assert {source for batch in batches for _, source in batch} == {peer.getsockname()}


async def test_empty_and_largest_datagrams_pass(peer: socket.socket) -> None:
    sock, address = bound()
    got: list[bytes] = []
    with closing(DatagramSocket(sock, lambda batch: got.extend(p for p, _ in batch))) as datagrams:
        peer.sendto(b"", address)
        peer.sendto(bytes(65_507), address)
        await until(lambda: len(got) == 2)
        assert [len(payload) for payload in got] == [0, 65_507]
        assert datagrams.send(b"", peer.getsockname())
        assert peer.recvfrom(10) == (b"", address)


async def test_a_datagram_that_is_too_long_is_dropped(peer: socket.socket) -> None:
    with closing(DatagramSocket(bound()[0], lambda _: None)) as datagrams:
        assert datagrams.send(bytes(65_535), peer.getsockname()) is False
        assert datagrams.send(b"next", peer.getsockname()) is True


async def test_an_icmp_error_does_not_end_reading(peer: socket.socket) -> None:
    sock = connect_udp(["127.0.0.1"], peer.getsockname()[1])
    address = sock.getsockname()
    got: list[bytes] = []
    with closing(DatagramSocket(sock, lambda batch: got.extend(p for p, _ in batch))) as datagrams:
        where = peer.getsockname()
        peer.close()
        assert datagrams.send(b"nobody there")
        await asyncio.sleep(0)
        with socket.socket(type=socket.SOCK_DGRAM) as again:
            again.bind(where)
            again.sendto(b"now", address)
            await until(lambda: got == [b"now"])


async def test_closing_twice_is_harmless_and_sending_afterwards_drops() -> None:
    datagrams = DatagramSocket(bound()[0], lambda _: None)
    datagrams.close()
    datagrams.close()
    assert datagrams.send(b"x", ("127.0.0.1", 9)) is False


def test_connecting_takes_the_first_address_with_a_route(peer: socket.socket) -> None:
    port = peer.getsockname()[1]
    with connect_udp(["::1", "127.0.0.1"], port) as sock:
        assert sock.getpeername()[:2] == ("127.0.0.1", port)  # all loopback: IPv4 first
        assert sock.getblocking() is False


def test_our_own_address_can_be_chosen(peer: socket.socket) -> None:
    with connect_udp(["127.0.0.1"], peer.getsockname()[1], "127.0.0.2") as sock:
        assert sock.getsockname()[0] == "127.0.0.2"


@pytest.mark.skipif(sys.platform != "linux", reason="loopback has another name elsewhere")
def test_an_address_may_name_its_interface() -> None:
    with connect_udp(["::1%lo"], 9) as sock:
        assert sock.getpeername()[:2] == ("::1", 9)
    with pytest.raises(TargetError, match=r"::1%none7\]:9: no "):
        connect_udp(["::1%none7"], 9)


def test_without_any_route_each_address_is_named() -> None:
    refused = r"cannot send: 255\.255\.255\.255:9: (permission denied|network is unreachable)"
    with pytest.raises(TargetError, match=refused):
        connect_udp(["255.255.255.255"], 9)
    with pytest.raises(TargetError, match="no address to try"):
        connect_udp([], 9)
