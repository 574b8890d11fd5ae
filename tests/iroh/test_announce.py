"""What is published as home and addresses change."""

import asyncio

from tests.support.discovery import dns_server, seed
from tests.support.virtual_time import virtual_time

from tunnel_rs.iroh import announce
from tunnel_rs.iroh.announce import Announcement
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import SocketAddr

HOME = "https://relay.example/"
HERE, THERE = SocketAddr("192.0.2.7", 4433), SocketAddr("198.51.100.9", 4433)


class Client(PkarrClient):
    """Keeps what is put."""

    base_url = "https://dns.example/pkarr"

    def __init__(self) -> None:
        self.put_records: asyncio.Queue[EndpointRecord] = asyncio.Queue()

    async def put(self, packet: SignedPacket) -> None:
        self.put_records.put_nowait(packet.endpoint_record())


def announcement(client: PkarrClient, *, direct: bool = False) -> tuple[Announcement, list[Report]]:
    reports: list[Report] = []
    settings = DiscoverySettings(publish_url="x", publish_direct_addresses=direct)
    return Announcement(client, seed(1), settings, reports.append), reports


@virtual_time
async def test_the_home_alone_is_published_unless_addresses_are_asked_for() -> None:
    for direct, addresses in ((False, ()), (True, (HERE,))):
        client = Client()
        made, _ = announcement(client, direct=direct)
        async with TaskScope("test") as tasks:
            tasks.spawn(made.run(lambda: (HERE,)), "publish")
            made.update(HOME, (HERE,))
            assert await client.put_records.get() == EndpointRecord((HOME,), addresses)


@virtual_time
async def test_a_home_that_is_lost_is_withdrawn_after_a_while() -> None:
    client = Client()
    made, _ = announcement(client)
    async with TaskScope("test") as tasks:
        tasks.spawn(made.run(lambda: ()), "publish")
        made.update(HOME, ())
        await client.put_records.get()
        made.update(None, ())
        assert await client.put_records.get() == EndpointRecord()


@virtual_time
async def test_our_addresses_are_followed_when_they_are_published() -> None:
    client = Client()
    made, _ = announcement(client, direct=True)
    async with TaskScope("test") as tasks:
        tasks.spawn(made.run(lambda: (THERE,)), "publish")
        made.update(HOME, (HERE,))
        await client.put_records.get()
        began = asyncio.get_running_loop().time()
        assert await client.put_records.get() == EndpointRecord((HOME,), (THERE,))
        assert asyncio.get_running_loop().time() - began <= announce.LOOK_EVERY


@virtual_time
async def test_a_home_whose_url_cannot_be_published_is_told() -> None:
    made, reports = announcement(Client())
    made.update("https://relay.example/a=b=c", ())
    [notice] = reports
    assert isinstance(notice, Notice) and notice.level == "warning"
    assert "cannot be published" in notice.text


async def test_a_real_server_has_it_in_the_end() -> None:
    async with dns_server() as server, PkarrClient(server.pkarr_url or "") as client:
        made, reports = announcement(client)
        async with TaskScope("test") as tasks:
            tasks.spawn(made.run(lambda: ()), "publish")
            made.update(HOME, ())
            async with asyncio.timeout(5):
                while not reports:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        packet = await client.get(SignedPacket.sign(seed(1), 0, b"").endpoint_id)
        assert packet is not None and packet.endpoint_record().relay_urls == (HOME,)
