import asyncio
import datetime
import socket
import ssl
from ipaddress import IPv4Address
from pathlib import Path

import aiohttp
import dnslib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.discovery import (
    LOOPBACK,
    NOW,
    ORIGIN,
    RELAY_RECORD,
    WallClock,
    dns_server,
    packet,
    server_settings,
)

from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.proto.dns_wire import RecordType, encode_query, parse_name
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.reports import Report
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsSettings, HttpsSettings, ZoneStoreSettings
from tunnel_rs.values import SocketAddr


async def put(server: DnsServer, signed: SignedPacket) -> int:
    async with aiohttp.ClientSession() as session:
        url = f"{server.pkarr_url}/{signed.endpoint_id.z32}"
        async with session.put(url, data=signed.payload) as response:
            return response.status


async def ask_tcp(address: SocketAddr, name: str) -> dnslib.DNSRecord:
    reader, writer = await asyncio.open_connection(address.ip, address.port)
    query = encode_query(parse_name(name), RecordType.TXT, 3)
    writer.write(len(query).to_bytes(2, "big") + query)
    answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    writer.close()
    await writer.wait_closed()
    return dnslib.DNSRecord.parse(answer)


async def ask_udp(address: SocketAddr, name: str) -> dnslib.DNSRecord:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((address.ip, address.port))
        sock.send(encode_query(parse_name(name), RecordType.TXT, 3))
        return dnslib.DNSRecord.parse(await asyncio.get_running_loop().sock_recv(sock, 2000))


async def test_what_is_published_over_http_is_found_over_udp_and_tcp() -> None:
    async with dns_server() as server:
        assert await put(server, packet()) == 204
        assert server.dns_address is not None
        name = f"_iroh.{packet().endpoint_id.z32}.{ORIGIN}"
        for ask in (ask_udp, ask_tcp):
            answer = await ask(server.dns_address, name)
            assert [str(rr.rdata) for rr in answer.rr] == ['"relay=https://relay.example/"']
        assert server.metrics.pkarr_publish_update == 1
        assert (server.metrics.dns_requests_udp, server.metrics.dns_requests_tcp) == (1, 1)


async def test_a_changed_record_is_answered_at_once() -> None:
    async with dns_server() as server:
        assert server.dns_address is not None
        name = f"_iroh.{packet().endpoint_id.z32}.{ORIGIN}"
        assert (await ask_udp(server.dns_address, name)).header.rcode == 3
        await put(server, packet())
        changed = EndpointRecord(("https://other.example/",))
        await put(server, packet(record=changed, timestamp=NOW + 1))
        await put(server, packet())
        answer = await ask_udp(server.dns_address, name)
        assert [str(rr.rdata) for rr in answer.rr] == ['"relay=https://other.example/"']
        assert server.metrics.pkarr_publish_noop == 1


async def test_records_survive_a_restart(tmp_path: Path) -> None:
    async with dns_server(data_dir=tmp_path) as server:
        await put(server, packet())
    async with dns_server(data_dir=tmp_path) as server:
        assert server.dns_address is not None
        name = f"_iroh.{packet().endpoint_id.z32}.{ORIGIN}"
        assert len((await ask_udp(server.dns_address, name)).rr) == 1


async def test_records_are_written_when_the_batch_is_full_or_its_time_is_over(
    tmp_path: Path,
) -> None:
    for number, batch in enumerate(
        (
            ZoneStoreSettings(max_batch_size=1, max_batch_time=1000.0),
            ZoneStoreSettings(max_batch_size=1000, max_batch_time=0.0),
        )
    ):
        async with dns_server(data_dir=tmp_path / str(number), zone_store=batch) as server:
            await put(server, packet())
            assert server._store is not None
            assert server._store.pending == 0


async def test_old_records_are_gone_after_a_start(tmp_path: Path) -> None:
    async with dns_server(data_dir=tmp_path) as server:
        await put(server, packet())
    clock = WallClock(NOW + 8 * 86_400_000_000)
    server = DnsServer(server_settings(data_dir=tmp_path), clock=clock)
    await server.start()
    assert server.metrics.store_packets_expired == 1
    await server.close()
    await server.close()


async def test_old_records_are_dropped_while_it_runs() -> None:
    settings = server_settings(zone_store=ZoneStoreSettings(eviction_interval=0.0))
    clock = WallClock()
    server = DnsServer(settings, clock=clock)
    await server.start()
    await put(server, packet())
    clock.now += 8 * 86_400_000_000
    await put(server, packet(2, timestamp=clock.now))
    assert server.metrics.store_packets_expired == 1
    await server.close()


async def test_metrics_have_a_listener_of_their_own() -> None:
    async with dns_server() as server, aiohttp.ClientSession() as session:
        await put(server, packet())
        async with session.get(f"http://{server.metrics_address}/metrics") as response:
            text = await response.text()
            assert response.content_type == "text/plain"
        assert "dnsserver_records 1" in text
        async with session.get(f"http://{server.metrics_address}/") as response:
            assert response.status == 404
        async with session.get(f"http://{server.http_address}/metrics") as response:
            assert response.status == 404


async def test_a_port_in_use_is_an_error_that_leaves_nothing_open() -> None:
    async with dns_server() as server:
        for change in (
            {"http": server.http_address},
            {"dns": DnsSettings(bind=server.dns_address or LOOPBACK)},
        ):
            second = DnsServer(server_settings(**change))
            with pytest.raises(LocalError, match="cannot listen"):
                await second.start()
            assert second._store is None


@pytest.mark.parametrize(
    "change",
    [
        {"dns": DnsSettings(default_soa="no soa")},
        {"http": None, "dns": None, "https": None},
    ],
)
def test_settings_that_cannot_be_served_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="dns-server"):
        DnsServer(server_settings(**change))


async def test_a_failing_disk_is_reported_and_answered() -> None:
    reports: list[Report] = []
    server = DnsServer(server_settings(), report=reports.append, clock=WallClock())
    await server.start()
    assert server._store is not None
    server._store._database.close()
    assert await put(server, packet()) == 500
    assert server.dns_address is not None
    name = f"_iroh.{packet().endpoint_id.z32}.{ORIGIN}"
    assert (await ask_udp(server.dns_address, name)).header.rcode == 2
    assert "record store" in str(reports[0])
    await server.close()


async def test_a_flood_over_udp_gets_few_answers_and_is_led_to_tcp() -> None:
    dns = DnsSettings(bind=LOOPBACK, origins=(ORIGIN,), responses_per_second=0.001)
    async with dns_server(dns=dns) as server:
        assert server.dns_address is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((server.dns_address.ip, server.dns_address.port))
            for _ in range(20):
                sock.send(encode_query(parse_name(ORIGIN), RecordType.SOA, 3))
            loop = asyncio.get_running_loop()
            answers = [dnslib.DNSRecord.parse(await loop.sock_recv(sock, 2000)) for _ in range(10)]
            await ask_tcp(server.dns_address, ORIGIN)
            assert server.metrics.dns_requests_limited == 20
            with pytest.raises(BlockingIOError):
                sock.recv(2000)
        assert all(answer.header.tc and not answer.rr for answer in answers)
        answer = await ask_tcp(server.dns_address, ORIGIN)
        assert answer.header.rcode == 0


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "server.crt", directory / "server.key"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


async def get_over_tls(server: DnsServer, ca_file: Path, path: str) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(ca_file))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://{server.https_address}{path}", ssl=context) as response,
    ):
        return response.status, await response.text()


async def test_https_serves_the_same_and_reloads_its_certificate(tmp_path: Path) -> None:
    cert_path, key_path = certificate(tmp_path, "first")
    https = HttpsSettings(LOOPBACK, cert_path, key_path)
    async with dns_server(http=None, https=https) as server:
        assert server.pkarr_url is None
        assert await get_over_tls(server, cert_path, "/healthcheck") == (200, "OK")
        certificate(tmp_path, "second")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get_over_tls(server, cert_path, "/healthcheck")
        server.reload_certificate()
        assert await get_over_tls(server, cert_path, "/healthcheck") == (200, "OK")
        key_path.write_text("")
        with pytest.raises(ConfigError):
            server.reload_certificate()
        assert await get_over_tls(server, cert_path, "/healthcheck") == (200, "OK")


async def test_a_missing_certificate_is_a_config_error(tmp_path: Path) -> None:
    https = HttpsSettings(LOOPBACK, tmp_path / "no.crt", tmp_path / "no.key")
    with pytest.raises(ConfigError, match="no.crt"):
        await DnsServer(server_settings(https=https)).start()


async def test_http_alone_and_dns_alone_can_be_served() -> None:
    async with dns_server(dns=None) as server:
        assert server.dns_address is None
        assert await put(server, packet()) == 204
    async with dns_server(http=None) as server:
        assert server.http_address is None
        assert server.dns_address is not None
        assert (await ask_udp(server.dns_address, ORIGIN)).header.rcode == 0


async def test_no_task_and_no_socket_outlives_the_server() -> None:
    before = asyncio.all_tasks()
    async with dns_server() as server:
        assert server.dns_address is not None
        reader, writer = await asyncio.open_connection(
            server.dns_address.ip, server.dns_address.port
        )
        address = server.http_address
        assert address is not None
        idle_reader, idle_writer = await asyncio.open_connection(address.ip, address.port)
        await put(server, packet(record=RELAY_RECORD))
    assert asyncio.all_tasks() == before
    for each in (reader, idle_reader):
        try:
            assert await each.read() == b""
        except ConnectionResetError:
            pass
    for closing in (writer, idle_writer):
        closing.close()
    for port in (server.dns_address.port, address.port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
