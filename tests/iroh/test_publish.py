import asyncio
from collections.abc import Callable

import pytest
from tests.support.discovery import NOW, RELAY_RECORD, WallClock, dns_server, seed

from tunnel_rs.errors import UnreachableError
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.publish import Publisher, published_record
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import SocketAddr

LAN = SocketAddr("192.168.1.20", 4000)
V6 = SocketAddr("2001:db8::1", 4000)
LOOPBACK = SocketAddr("127.0.0.1", 4000)


class FakeClient(PkarrClient):
    """Takes packets, or fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.base_url = "https://own.example/pkarr"
        self.failures = failures
        self.attempts = 0
        self._arrived: asyncio.Queue[SignedPacket] = asyncio.Queue()

    async def put(self, packet: SignedPacket) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise UnreachableError("https://own.example/pkarr: Connection refused")
        self._arrived.put_nowait(packet)

    async def arrived(self) -> SignedPacket:
        async with asyncio.timeout(5):
            return await self._arrived.get()


def publisher(
    client: PkarrClient, report: Callable[[Report], None] = lambda _: None, **times: float
) -> Publisher:
    return Publisher(client, seed(1), report=report, clock=WallClock(), **times)


async def test_every_change_is_published_with_growing_timestamps() -> None:
    client = FakeClient()
    published = publisher(client)
    async with TaskScope("test") as scope:
        scope.spawn(published.run(), "publish")
        for number in range(3):
            record = EndpointRecord((f"https://relay{number}.example/",))
            published.update(record)
            packet = await client.arrived()
            assert packet.endpoint_record() == record
            assert packet.timestamp == NOW + number


async def test_nothing_is_sent_before_there_is_something_to_say() -> None:
    client = FakeClient()
    published = publisher(client)
    async with TaskScope("test") as scope:
        scope.spawn(published.run(), "publish")
        published.update(EndpointRecord(user_data="no relay yet"))
        published.update(RELAY_RECORD)
        assert (await client.arrived()).endpoint_record() == RELAY_RECORD
    assert client.attempts == 1


async def test_a_record_is_repeated_after_the_interval() -> None:
    client = FakeClient()
    published = publisher(client, interval=0.01)
    async with TaskScope("test") as scope:
        scope.spawn(published.run(), "publish")
        published.update(RELAY_RECORD)
        packets = [await client.arrived() for _ in range(3)]
    assert [packet.timestamp for packet in packets] == [NOW, NOW + 1, NOW + 2]


async def test_a_lost_relay_is_withdrawn() -> None:
    client = FakeClient()
    published = publisher(client, withdraw_after=0.01)
    async with TaskScope("test") as scope:
        scope.spawn(published.run(), "publish")
        published.update(RELAY_RECORD)
        await client.arrived()
        published.update(EndpointRecord())
        assert (await client.arrived()).endpoint_record() == EndpointRecord()


async def test_failures_are_retried_and_reported_once() -> None:
    client, reports = FakeClient(failures=3), list[Report]()
    published = publisher(client, reports.append, interval=0.01)
    async with TaskScope("test") as scope:
        scope.spawn(published.run(), "publish")
        published.update(RELAY_RECORD)
        await client.arrived()
    levels = [report.level for report in reports if isinstance(report, Notice)]
    assert levels[:4] == ["warning", "debug", "debug", "info"]
    assert "Connection refused" in str(reports[0])


async def test_a_change_waits_for_no_retry() -> None:
    client = FakeClient(failures=1)
    failed = asyncio.Event()
    published = publisher(client, lambda _: failed.set())
    async with TaskScope("test") as scope:
        scope.spawn(published.run(), "publish")
        published.update(RELAY_RECORD)
        await failed.wait()
        published.update(other := EndpointRecord(("https://other.example/",)))
        async with asyncio.timeout(0.5):
            assert (await client.arrived()).endpoint_record() == other


async def test_a_real_server_takes_it() -> None:
    arrived = asyncio.Event()
    async with dns_server() as server:
        assert server.pkarr_url is not None
        async with PkarrClient(server.pkarr_url) as client, TaskScope("test") as scope:
            published = publisher(client, lambda _: arrived.set())
            scope.spawn(published.run(), "publish")
            published.update(RELAY_RECORD)
            async with asyncio.timeout(5):
                await arrived.wait()
            packet = await client.get(SignedPacket.sign(seed(1), 0, b"").endpoint_id)
            assert packet is not None
            assert packet.endpoint_record() == published.published == RELAY_RECORD


def test_addresses_are_published_only_when_asked_for() -> None:
    urls = ["https://relay.example/"]
    assert published_record(urls, [LAN]) == EndpointRecord(("https://relay.example/",))
    assert published_record(urls, [LAN], direct=True).addresses == (LAN,)


@pytest.mark.parametrize(
    ("addresses", "meaningful"),
    [
        ([LAN, V6, LAN], (LAN, V6)),
        ([LOOPBACK, LAN], (LAN,)),
        ([LOOPBACK], (LOOPBACK,)),
        ([SocketAddr("0.0.0.0", 1), SocketAddr("fe80::1", 1), SocketAddr("10.0.0.1", 0)], ()),
    ],
)
def test_only_addresses_that_mean_something_elsewhere_are_published(
    addresses: list[SocketAddr], meaningful: tuple[SocketAddr, ...]
) -> None:
    assert published_record([], addresses, direct=True).addresses == meaningful


def test_more_addresses_than_fit_are_cut() -> None:
    many = [SocketAddr(f"2001:db8::{n:x}", 40000) for n in range(1, 100)]
    record = published_record(["https://relay.example/"], many, direct=True)
    assert 10 < len(record.addresses) < 99
    SignedPacket.for_record(seed(1), 1, record)
