"""Our publisher and resolvers against the real `iroh-dns-server`, where it is installed.

`cargo install iroh-dns-server`, and have it on PATH or named by IROH_DNS_SERVER_BIN. Our own
`tunnel-rs dns-server` is given the same configuration file and the same tests.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.discovery import seed
from tests.support.servers import free_port, running

from tunnel_rs.errors import PeerNotFoundError
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.publish import unix_microseconds
from tunnel_rs.iroh.resolve import DnsResolver
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.values import SocketAddr

PROGRAM = os.environ.get("IROH_DNS_SERVER_BIN") or shutil.which("iroh-dns-server")
ORIGIN = "discovery.example."
RECORD = EndpointRecord(
    ("https://relay.example/",), (SocketAddr("192.0.2.7", 4433),), "some user data"
)
OURS = [sys.executable, "-m", "tunnel_rs", "dns-server", "--config"]
THEIRS = [PROGRAM or "", "--config"]

pytestmark = [pytest.mark.interop]

servers = pytest.mark.parametrize(
    "command",
    [
        pytest.param(OURS, id="ours"),
        pytest.param(
            THEIRS,
            id="rust",
            marks=pytest.mark.skipif(
                PROGRAM is None, reason="iroh-dns-server is not installed (IROH_DNS_SERVER_BIN)"
            ),
        ),
    ],
)


class Server(NamedTuple):
    url: str
    nameserver: SocketAddr


@asynccontextmanager
async def discovery_server(command: list[str], directory: Path) -> AsyncIterator[Server]:
    http, dns = free_port(), free_port()
    config = directory / "dns.toml"
    config.write_text(
        f'pkarr_put_rate_limit = "disabled"\n[http]\nport = {http}\nbind_addr = "127.0.0.1"\n'
        f'[dns]\nport = {dns}\nbind_addr = "127.0.0.1"\norigins = ["{ORIGIN}", "."]\n'
        f'default_soa = "ns1.{ORIGIN} hostmaster.{ORIGIN} 0 10800 3600 604800 30"\n'
        f'default_ttl = 30\nrr_a = "127.0.0.1"\nrr_ns = "ns1.{ORIGIN}"\n'
        "[metrics]\ndisabled = true\n"
        "[zone_store]\nmax_batch_size = 64\nmax_batch_time = '100ms'\n"
        "eviction = '7d'\neviction_interval = '1h'\n"
    )
    environment = f"IROH_DNS_DATA_DIR={directory}/data"
    async with running("env", environment, *command, config) as program:
        async with asyncio.timeout(20):
            while not await answers(http):
                assert program.process.returncode is None, program.text
                await asyncio.sleep(0.02)
        yield Server(f"http://127.0.0.1:{http}/pkarr", SocketAddr("127.0.0.1", dns))


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def signed(number: int, record: EndpointRecord, age: int = 0) -> SignedPacket:
    """`age`: microseconds."""
    return SignedPacket.for_record(seed(number), unix_microseconds() - age, record)


@servers
async def test_what_is_published_is_found_over_http_and_dns(
    command: list[str], tmp_path: Path
) -> None:
    packet = signed(1, RECORD)
    async with discovery_server(command, tmp_path) as server, PkarrClient(server.url) as client:
        assert await client.get(packet.endpoint_id) is None
        await client.put(packet)
        assert await client.get(packet.endpoint_id) == packet
        for origin in (ORIGIN, "."):
            resolver = DnsResolver(origin, nameservers=(server.nameserver,))
            assert await resolver.look_up(packet.endpoint_id) == RECORD


@servers
async def test_the_newest_record_wins(command: list[str], tmp_path: Path) -> None:
    old = signed(2, EndpointRecord(("https://old.example/",)), age=1_000_000)
    new = signed(2, RECORD)
    async with discovery_server(command, tmp_path) as server, PkarrClient(server.url) as client:
        await client.put(new)
        await client.put(old)
        assert await client.get(new.endpoint_id) == new


@servers
async def test_an_unknown_endpoint_is_not_found(command: list[str], tmp_path: Path) -> None:
    stranger = signed(3, RECORD).endpoint_id
    async with discovery_server(command, tmp_path) as server:
        resolver = DnsResolver(ORIGIN, nameservers=(server.nameserver,), delays=(0.0, 0.05))
        with pytest.raises(PeerNotFoundError, match="no such name"):
            await resolver.look_up(stranger)
