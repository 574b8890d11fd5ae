"""Real sockets, on the loopback interface and a port of our own only."""

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
import pytest_asyncio

from tunnel_rs.net import multicast
from tunnel_rs.net.interfaces import Interface, local_interfaces
from tunnel_rs.net.multicast import GROUP_V4, MulticastGroups
from tunnel_rs.proto.lan_discovery import Packet, Where

[LOOPBACK] = [each for each in local_interfaces() if IPv4Address("127.0.0.1") in each.ipv4]
LO4 = replace(LOOPBACK, ipv6=())
MISSING = Interface("gone0", 999_999, (IPv4Address("192.0.2.123"),), (IPv6Address("2001:db8::1"),))
HELLO = Packet(b"hello", Where.EVERYWHERE)


@pytest.fixture
def port() -> Iterator[int]:
    """A UDP port that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        number = sock.getsockname()[1]
    yield number


class Recorder:
    """What one member was told."""

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, str]] = []
        self.changes = 0
        self.errors: list[OSError] = []
        self._news = asyncio.Event()

    def received(self, packet: bytes, source_ip: str) -> None:
        self.packets.append((packet, source_ip))
        self._news.set()

    def changed(self) -> None:
        self.changes += 1
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()


Join = Callable[..., tuple[MulticastGroups, Recorder]]


@pytest_asyncio.fixture
async def join(port: int) -> AsyncIterator[Join]:
    """Opens groups on the given interfaces (loopback by default); all are closed at the end."""
    opened: list[MulticastGroups] = []

    def open_groups(
        interfaces: Sequence[Interface] | Callable[[], Sequence[Interface]] = (LO4,),
        **options: Any,
    ) -> tuple[MulticastGroups, Recorder]:
        recorder = Recorder()
        options = {"received": recorder.received, **options}
        groups = MulticastGroups(
            changed=recorder.changed,
            unavailable=recorder.errors.append,
            scan=interfaces if callable(interfaces) else lambda: interfaces,
            port=port,
            **options,
        )
        groups.open()
        opened.append(groups)
        if isinstance(interfaces, tuple) and LO4 in interfaces and recorder.errors:
            pytest.skip(f"no multicast on loopback here: {recorder.errors[0]}")
        return groups, recorder

    yield open_groups
    for groups in opened:
        groups.close()


async def test_all_members_on_this_machine_hear_a_packet_the_sender_too(join: Join) -> None:
    sender, first = join()
    _, second = join()
    sender.send(HELLO)
    for recorder in (first, second):
        await recorder.until(lambda recorder=recorder: bool(recorder.packets))  # type: ignore[misc]
        assert recorder.packets == [(b"hello", "127.0.0.1")]


async def test_a_packet_for_the_network_is_not_sent_on_loopback(join: Join) -> None:
    sender, recorder = join()
    sender.send(Packet(b"network", Where.NETWORK))
    sender.send(Packet(b"loopback", Where.LOOPBACK))
    await recorder.until(lambda: bool(recorder.packets))
    assert [packet for packet, _ in recorder.packets] == [b"loopback"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux binds to the group")
async def test_unicast_traffic_of_the_port_is_left_to_others(join: Join, port: int) -> None:
    groups, recorder = join()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"unicast", ("127.0.0.1", port))
    groups.send(HELLO)
    await recorder.until(lambda: bool(recorder.packets))
    assert [packet for packet, _ in recorder.packets] == [b"hello"]


async def test_a_port_that_another_program_keeps_to_itself_is_told_once_and_tried_again(
    join: Join, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multicast, "_FRESH", -1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unwilling:
        unwilling.bind(("", port))
        groups, recorder = join([LO4])
        groups.refresh()
        assert [error.errno for error in recorder.errors] == [errno.EADDRINUSE]
        groups.send(HELLO)
    groups.refresh()
    assert recorder.changes == 1
    groups.send(HELLO)
    await recorder.until(lambda: bool(recorder.packets))
    assert len(recorder.errors) == 1


async def test_interfaces_are_followed_as_they_come_and_go(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multicast, "RESCAN_INTERVAL", 0.005)
    monkeypatch.setattr(multicast, "_FRESH", -1.0)
    present: list[Interface] = [MISSING]
    groups, recorder = join(lambda: present)
    present.append(LO4)
    await recorder.until(lambda: recorder.changes == 1)
    groups.send(HELLO)
    await recorder.until(lambda: len(recorder.packets) == 1)
    present.remove(LO4)
    groups.refresh()
    groups.send(HELLO)
    present.append(LO4)
    groups.refresh()
    assert recorder.changes == 2
    groups.send(Packet(b"again", Where.EVERYWHERE))
    await recorder.until(lambda: len(recorder.packets) == 2)
    assert recorder.packets[1][0] == b"again"


async def test_an_interface_that_cannot_be_used_does_not_harm_the_others(join: Join) -> None:
    groups, recorder = join((MISSING, LOOPBACK))
    groups.send(HELLO)
    await recorder.until(lambda: bool(recorder.packets))
    assert recorder.errors == []


async def test_a_machine_without_any_interface_is_told_once(join: Join) -> None:
    _, recorder = join([])
    assert [error.errno for error in recorder.errors] == [errno.ENETDOWN]


async def test_a_system_that_does_not_tell_its_interfaces_is_no_failure(join: Join) -> None:
    def scan() -> Sequence[Interface]:
        raise OSError(errno.EPERM, "not allowed")

    groups, recorder = join(scan)
    groups.send(HELLO)
    assert [error.errno for error in recorder.errors] == [errno.EPERM]


async def test_the_number_of_sockets_is_bounded(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def open_socket(place: object, port: int) -> socket.socket:
        opened.append(place)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    monkeypatch.setattr(multicast, "_open_socket", open_socket)
    join([Interface(f"veth{n}", n, (IPv4Address("192.0.2.1"),)) for n in range(1, 200)])
    assert len(opened) == multicast.MAX_SOCKETS


async def test_a_flood_is_read_in_small_lots_and_no_faster_than_the_budget(
    join: Join, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multicast, "READS_PER_WAKE", 4)
    monkeypatch.setattr(multicast, "PACKETS_PER_SECOND", 10)
    monkeypatch.setattr(multicast, "_BUDGET_WINDOW", 0.05)
    loop = asyncio.get_running_loop()
    groups, recorder = join()
    began = loop.time()
    for _ in range(25):
        groups.send(HELLO)
    lots: list[int] = []

    def count_lots() -> None:
        lots.append(len(recorder.packets))
        if len(recorder.packets) < 25:
            loop.call_soon(count_lots)

    count_lots()
    await recorder.until(lambda: len(recorder.packets) == 25)
    assert max(after - before for before, after in zip(lots, lots[1:], strict=False)) <= 4
    assert loop.time() - began >= 0.09, "two windows had to pass"


async def test_a_receiver_may_close_the_groups(join: Join) -> None:
    closed = asyncio.Event()

    packets: list[bytes] = []

    def received(packet: bytes, source_ip: str) -> None:
        packets.append(packet)
        groups.close()
        closed.set()

    groups, _ = join(received=received)
    groups.send(HELLO)
    groups.send(HELLO)
    async with asyncio.timeout(5):
        await closed.wait()
    groups.close()
    groups.refresh()
    groups.send(HELLO)
    assert packets == [b"hello"]


async def test_an_oversize_datagram_is_not_mistaken_for_a_shorter_one(
    join: Join, port: int
) -> None:
    groups, recorder = join()
    groups.send(Packet(bytes(9000), Where.EVERYWHERE))
    await recorder.until(lambda: bool(recorder.packets))
    assert len(recorder.packets[0][0]) > 1472


def test_the_groups_are_those_of_multicast_dns() -> None:
    assert (GROUP_V4, multicast.GROUP_V6, multicast.MDNS_PORT) == ("224.0.0.251", "ff02::fb", 5353)
