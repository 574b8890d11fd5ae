"""dig and curl against our discovery server."""

import asyncio
import json
import shutil
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.support.discovery import LOOPBACK, ORIGIN, dns_server, packet

from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsSettings
from tunnel_rs.values import SocketAddr

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not (shutil.which("dig") and shutil.which("curl")), reason="needs dig and curl"
    ),
]

Z32 = packet().endpoint_id.z32
NAME = f"_iroh.{Z32}.{ORIGIN}"
DNS = DnsSettings(
    bind=LOOPBACK, origins=(ORIGIN,), rr_a=IPv4Address("192.0.2.1"), rr_ns=f"ns.{ORIGIN}"
)


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode() + output.decode()
    return output.decode()


async def dig(server: DnsServer, *arguments: str) -> str:
    assert server.dns_address is not None
    where = ("@127.0.0.1", "-p", str(server.dns_address.port))
    return await run("dig", *where, "+tries=1", "+timeout=3", "+norecurse", *arguments)


async def publish(server: DnsServer, tmp_path: Path, signed: SignedPacket) -> str:
    """The HTTP status of a PUT by curl."""
    body = tmp_path / "packet"
    body.write_bytes(signed.payload)
    url = f"{server.pkarr_url}/{signed.endpoint_id.z32}"
    return await run(
        "curl",
        "-s",
        "--noproxy",
        "*",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-T",
        str(body),
        url,
    )


@pytest.mark.parametrize("transport", ["+notcp", "+tcp", "+noedns", "+keepopen"])
async def test_dig_reads_what_curl_has_published(tmp_path: Path, transport: str) -> None:
    async with dns_server(dns=DNS) as server:
        assert await publish(server, tmp_path, packet()) == "204"
        answer = await dig(server, transport, "TXT", NAME)
        assert "status: NOERROR" in answer
        assert " aa" in answer
        assert f'{NAME} 30 IN TXT "relay=https://relay.example/"' in " ".join(answer.split())
        assert "WARNING" not in answer


async def test_dig_comes_back_over_tcp_for_what_udp_cannot_carry(tmp_path: Path) -> None:
    addresses = tuple(SocketAddr(f"2001:db8:1111:2222::{n:x}", 40000) for n in range(1, 32))
    full = packet(record=EndpointRecord((), addresses).fitted())
    async with dns_server(dns=DNS) as server:
        await publish(server, tmp_path, full)
        answer = await dig(server, "+noedns", "TXT", NAME)
        assert "Truncated, retrying in TCP mode" in answer
        assert "2001:db8:1111:2222::1]:40000" in answer


async def test_dig_sees_the_zone_of_the_configuration() -> None:
    async with dns_server(dns=DNS) as server:
        assert (await dig(server, "+short", "A", ORIGIN)).strip() == "192.0.2.1"
        assert (await dig(server, "+short", "NS", ORIGIN)).strip() == f"ns.{ORIGIN}"
        assert (await dig(server, "+short", "SOA", ORIGIN)).endswith(" 604800 30\n")
        assert "status: NXDOMAIN" in await dig(server, "TXT", NAME)
        assert "status: REFUSED" in await dig(server, "TXT", "example.com")
        assert "RFC8482" in await dig(server, "ANY", ORIGIN)
        assert "status: BADVERS" in await dig(server, "+edns=1", "+noednsneg", "A", ORIGIN)


async def test_dig_gets_no_zone_transfer() -> None:
    async with dns_server(dns=DNS) as server:
        assert "Transfer failed" in await dig(server, "AXFR", ORIGIN)


async def test_curl_asks_over_http(tmp_path: Path) -> None:
    async with dns_server(dns=DNS) as server:
        await publish(server, tmp_path, packet())
        base = f"http://{server.http_address}"
        url = f"{base}/dns-query?name={NAME}&type=TXT"
        body = json.loads(await run("curl", "-s", "--noproxy", "*", url))
        assert body["Answer"][0]["data"] == '"relay=https://relay.example/"'
        assert await run("curl", "-s", "--noproxy", "*", f"{base}/healthcheck") == "OK"
        status = ("-o", "/dev/null", "-w", "%{http_code}")
        html = ("-H", "Accept: text/html")
        assert await run("curl", "-s", "--noproxy", "*", *status, *html, url) == "406"
