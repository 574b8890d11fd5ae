"""Real multicast, on the loopback interface only."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from ipaddress import IPv4Address
from typing import Any

import pytest
import pytest_asyncio

from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.net.interfaces import Interface, local_interfaces
from tunnel_rs.net.multicast import GROUP_V4, MDNS_PORT
from tunnel_rs.proto import mdns
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import EndpointId, SocketAddr

[LOOPBACK] = [each for each in local_interfaces() if IPv4Address("127.0.0.1") in each.ipv4]
ID = EndpointId.parse("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61")
OTHER = EndpointId.parse("ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6")
WILDCARD = SocketAddr("0.0.0.0", 4444)
LOCAL = SocketAddr("127.0.0.1", 4444)


@pytest.fixture
def port() -> Iterator[int]:
    """A UDP port that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        number = sock.getsockname()[1]
    yield number


Start = Callable[..., Any]


@pytest_asyncio.fixture
async def start(port: int) -> AsyncIterator[Start]:
    """Starts discoveries on loopback; all are closed at the end."""
    started: list[LanDiscovery] = []

    async def start_one(**options: Any) -> LanDiscovery:
        reports: list[Report] = []
        options = {"scan": lambda: [LOOPBACK], "port": port, "report": reports.append, **options}
        lan = LanDiscovery(**options)
        await lan.start()
        started.append(lan)
        if reports:
            pytest.skip(f"no multicast on loopback here: {reports[0]}")
        return lan

    yield start_one
    for lan in started:
        await lan.close()


async def next_found(lan: LanDiscovery, endpoint_id: EndpointId) -> SocketAddr:
    found: asyncio.Queue[SocketAddr] = asyncio.Queue()
    lookup = lan.lookup(endpoint_id, found.put_nowait)
    try:
        async with asyncio.timeout(5):
            return await found.get()
    finally:
        lookup.cancel()


async def test_a_server_on_the_same_machine_is_found_within_half_a_second(start: Start) -> None:
    server, client = await start(), await start()
    server.announce(ID, lambda: [WILDCARD])
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await next_found(client, ID) == LOCAL
    assert loop.time() - began < 0.5


async def test_a_server_that_starts_after_the_lookup_is_found_as_soon_as_it_is_there(
    start: Start,
) -> None:
    server, client = await start(), await start()
    found = asyncio.Event()
    client.lookup(ID, lambda _: found.set())
    server.announce(OTHER, lambda: [WILDCARD])
    assert await next_found(client, OTHER) == LOCAL
    assert not found.is_set()
    server.announce(ID, lambda: [WILDCARD])
    async with asyncio.timeout(0.5):
        await found.wait()


async def test_one_discovery_can_announce_and_look_up_and_finds_its_own_too(start: Start) -> None:
    lan = await start()
    lan.announce(ID, lambda: [WILDCARD])
    assert await next_found(lan, ID) == LOCAL


async def test_addresses_are_asked_for_anew_with_each_answer(start: Start) -> None:
    server, client = await start(), await start()
    bound = [SocketAddr("0.0.0.0", 1)]
    server.announce(ID, lambda: bound)
    assert (await next_found(client, ID)).port == 1
    bound[:] = [SocketAddr("0.0.0.0", 2)]
    found: asyncio.Queue[SocketAddr] = asyncio.Queue()
    client.lookup(ID, found.put_nowait)
    async with asyncio.timeout(5):
        while (await found.get()).port != 2:
            pass


async def test_a_lookup_in_vain_ends_in_time_and_says_so(start: Start) -> None:
    client = await start()
    found: list[SocketAddr] = []
    ended = asyncio.Event()
    client.lookup(ID, found.append, timeout=0.02, on_end=ended.set)
    async with asyncio.timeout(5):
        await ended.wait()
    assert found == []


async def test_callbacks_come_after_the_lookup_was_returned_and_stop_with_cancel(
    start: Start,
) -> None:
    server, client = await start(), await start()
    server.announce(ID, lambda: [SocketAddr("0.0.0.0", port) for port in (1, 2, 3)])
    assert await next_found(client, ID)
    found: list[SocketAddr] = []
    known = asyncio.Event()

    def on_found(address: SocketAddr) -> None:
        found.append(address)
        lookup.cancel()
        lookup.cancel()
        known.set()

    lookup = client.lookup(ID, on_found)  # known already
    assert found == []
    async with asyncio.timeout(5):
        await known.wait()
    assert await next_found(client, ID)
    assert len(found) == 1


async def test_after_closing_nothing_is_called_and_nothing_can_be_asked(start: Start) -> None:
    server, client = await start(), await start()
    called: list[object] = []
    client.lookup(ID, called.append, timeout=0.001, on_end=lambda: called.append("end"))
    await client.close()
    await client.close()
    server.announce(ID, lambda: [WILDCARD])
    assert await next_found(server, ID) == LOCAL
    assert called == []
    with pytest.raises(RuntimeError, match="not started, or is closed"):
        client.lookup(ID, called.append)
    with pytest.raises(RuntimeError, match="not started, or is closed"):
        client.announce(ID, lambda: [])


async def test_garbage_on_the_group_does_not_disturb(start: Start, port: int) -> None:
    server, client = await start(), await start()
    server.announce(ID, lambda: [WILDCARD])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        liar = mdns.encode_response(ID, [SocketAddr("224.0.0.1", 9), SocketAddr("127.0.0.1", 0)])
        for packet in (b"", bytes(9000), b"_irohv1" * 200, mdns.encode_query()[:-1], *liar):
            sock.sendto(packet, (GROUP_V4, port))
    assert await next_found(client, ID) == LOCAL


async def test_a_port_held_by_another_program_draws_one_notice_and_no_failure(port: int) -> None:
    reports: list[Report] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unwilling:
        unwilling.bind(("", port))
        lan = LanDiscovery(reports.append, scan=lambda: [LOOPBACK], port=port)
        await lan.start()
        lan.announce(ID, lambda: [WILDCARD])
        ended = asyncio.Event()
        lan.lookup(ID, lambda _: None, timeout=0.02, on_end=ended.set)
        await ended.wait()
        await lan.close()
    [notice] = reports
    assert isinstance(notice, Notice)
    assert notice.level == "warning"
    assert f"another program uses UDP port {port} and does not share it" in notice.text


async def test_without_any_interface_there_is_one_notice_and_no_failure() -> None:
    def scan() -> Sequence[Interface]:
        return []

    reports: list[Report] = []
    lan = LanDiscovery(reports.append, scan=scan)
    await lan.start()
    lan.announce(ID, lambda: [WILDCARD])
    await lan.close()
    [notice] = reports
    assert isinstance(notice, Notice)
    assert "there is no network interface" in notice.text


async def test_the_real_port_is_shared_with_other_responders(start: Start) -> None:
    """Also with one that uses the same options on the wildcard address, as avahi does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as responder:
        responder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            responder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            responder.bind(("", MDNS_PORT))
        except OSError as error:
            pytest.skip(f"port {MDNS_PORT} is held by another program: {error}")
        server, client = await start(port=MDNS_PORT), await start(port=MDNS_PORT)
        server.announce(ID, lambda: [WILDCARD])
        assert await next_found(client, ID) == LOCAL
