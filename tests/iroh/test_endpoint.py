"""Tests of `tunnel_rs.iroh.endpoint`: real sockets and real multicast, on loopback only."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from tests.support.discovery import dns_server
from tests.support.endpoints import until
from tests.support.relay_network import relay_server, url_of
from tests.support.tape import Tape

from tunnel_rs.errors import (
    ConfigError,
    LinkClosedError,
    LocalError,
    PeerNotFoundError,
    TunnelError,
    UnreachableError,
)
from tunnel_rs.iroh import endpoint as endpoint_module
from tunnel_rs.iroh import path_keeper
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.interfaces import Interface, local_interfaces
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import Notice, PathChanged, PathStatus, Report, Reporter, Trying, silent
from tunnel_rs.values import Secret, SocketAddr

SEED = Secret(bytes(range(32)))
LOOPBACK = SocketAddr("127.0.0.1", 0)
SERVER = EndpointSettings(secret_key=SEED, bind=LOOPBACK, lan_discovery=False)
CLIENT = EndpointSettings(bind=LOOPBACK, lan_discovery=False)
SERVER_ID = Identity(SEED).endpoint_id


def client_settings(*addresses: SocketAddr, **options: Any) -> EndpointSettings:
    options = {"bind": LOOPBACK, "lan_discovery": False, **options}
    return EndpointSettings(peer_addrs=addresses, **options)


@pytest.fixture
def lan_on_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """LAN discovery that stays on this machine, on a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    loopback = [each for each in local_interfaces() if IPv4Address("127.0.0.1") in each.ipv4]

    def on_loopback(report: Any, *, scan: Any) -> LanDiscovery:
        return LanDiscovery(report, scan=scan, port=port)

    monkeypatch.setattr(endpoint_module, "LanDiscovery", on_loopback)
    monkeypatch.setattr(endpoint_module, "local_interfaces", lambda: tuple(loopback))
    yield


async def test_a_server_is_dialled_by_a_given_address_and_both_know_each_other() -> None:
    server = await Endpoint.bind(SERVER, accept=True, report=silent)
    [address] = server.addresses
    client = await Endpoint.bind(client_settings(address), accept=False, report=silent)
    assert server.endpoint_id == SERVER_ID
    link = await client.connect(SERVER_ID, timeout=5)
    accepted = await server.accept()
    assert link.peer == SERVER_ID
    assert accepted.peer == client.endpoint_id
    assert link.address == str(address)
    assert link.engine._silence_timeout is None, "the keeper sees to silence"
    accepted.open_window()
    stream = await link.open_stream()
    stream.write(b"through")
    assert await Tape(await accepted.accept_stream()).read(7) == b"through"
    await client.close(4, "enough")
    error = await accepted.wait_closed()
    assert isinstance(error, LinkClosedError)
    assert (error.code, error.reason) == (4, "enough")
    await server.close()


async def test_by_lan_alone_a_client_is_connected_within_a_second(lan_on_loopback: None) -> None:
    reports: list[Report] = []
    settings = EndpointSettings(secret_key=SEED)
    loop = asyncio.get_running_loop()
    began = loop.time()
    server = await Endpoint.bind(settings, accept=True, report=silent)
    client = await Endpoint.bind(EndpointSettings(), accept=False, report=reports.append)
    assert server.ways == client.ways == ("LAN",)
    link = await client.connect(SERVER_ID, timeout=5)
    assert loop.time() - began < 1
    assert link.peer == SERVER_ID
    assert reports
    assert all(isinstance(report, Trying) and "(LAN)" in report.way for report in reports)
    await client.close()
    await server.close()


async def test_lan_and_given_addresses_race_and_a_stale_address_does_no_harm(
    lan_on_loopback: None,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stale:
        stale.bind(("127.0.0.1", 0))
        stale_address = SocketAddr("127.0.0.1", stale.getsockname()[1])
        server = await Endpoint.bind(
            EndpointSettings(secret_key=SEED, bind=LOOPBACK), accept=True, report=silent
        )
        other = await Endpoint.bind(CLIENT, accept=True, report=silent)  # has another key
        [wrong] = other.addresses
        for address in (stale_address, wrong):
            settings = client_settings(address, lan_discovery=True)
            client = await Endpoint.bind(settings, accept=False, report=silent)
            link = await client.connect(SERVER_ID, timeout=5)
            assert link.address == str(server.addresses[0])
            await client.close()
        await other.close()
        await server.close()


async def test_without_a_key_each_run_has_a_new_one() -> None:
    first = await Endpoint.bind(CLIENT, accept=False, report=silent)
    second = await Endpoint.bind(CLIENT, accept=False, report=silent)
    assert first.endpoint_id != second.endpoint_id
    await first.close()
    await second.close()


async def test_a_port_in_use_is_a_local_error_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = UdpSocket.bind(LOOPBACK)
    settings = EndpointSettings(bind=taken.address)
    with pytest.raises(LocalError, match=f"cannot bind UDP {taken.address}: the port is in use"):
        await Endpoint.bind(settings, accept=True, report=silent)
    taken.close()


@pytest.mark.parametrize("bind", [LOOPBACK, None])
async def test_offload_can_be_switched_off_for_all_sockets(bind: SocketAddr | None) -> None:
    transport = TransportSettings(offload=False)
    settings = EndpointSettings(bind=bind, lan_discovery=False, transport=transport)
    endpoint = await Endpoint.bind(settings, accept=True, report=silent)
    assert not any(sock.segmentation or sock.coalescing for sock in endpoint._sockets)
    await endpoint.close()


async def test_by_default_there_is_a_socket_for_each_family() -> None:
    endpoint = await Endpoint.bind(
        EndpointSettings(lan_discovery=False), accept=True, report=silent
    )
    assert {address.ip for address in endpoint._bound()} == {"0.0.0.0", "::"}
    assert SocketAddr("127.0.0.1", endpoint._bound()[0].port) in endpoint.addresses
    assert endpoint.ways == ()
    await endpoint.close()
    assert endpoint.addresses  # still known


@pytest.mark.parametrize("missing", ["0.0.0.0", "::"])
async def test_a_machine_with_one_family_gets_one_socket(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    bind = UdpSocket.bind

    def without(address: SocketAddr, **options: bool) -> UdpSocket:
        if address.ip == missing:
            raise LocalError(f"cannot bind UDP {address}")
        return bind(address, **options)

    monkeypatch.setattr(endpoint_module.UdpSocket, "bind", without)
    settings = EndpointSettings(lan_discovery=False)
    endpoint = await Endpoint.bind(settings, accept=False, report=silent)
    [address] = endpoint._bound()
    assert address.ip != missing
    await endpoint.close()


async def test_a_machine_without_any_family_gives_a_local_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(address: SocketAddr, **_: bool) -> UdpSocket:
        raise LocalError(f"cannot bind UDP {address}")

    monkeypatch.setattr(endpoint_module.UdpSocket, "bind", refuse)
    with pytest.raises(LocalError, match="cannot bind UDP"):
        await Endpoint.bind(EndpointSettings(), accept=False, report=silent)


async def test_bound_to_one_family_the_other_is_not_dialled() -> None:
    settings = client_settings(SocketAddr("::1", 9))
    client = await Endpoint.bind(settings, accept=False, report=silent)
    with pytest.raises(UnreachableError, match="we have no socket of that address family"):
        await client.connect(SERVER_ID, timeout=5)
    await client.close()


async def test_a_client_does_not_accept_and_does_not_announce_itself(
    lan_on_loopback: None,
) -> None:
    client = await Endpoint.bind(EndpointSettings(secret_key=SEED), accept=False, report=silent)
    other = await Endpoint.bind(EndpointSettings(), accept=False, report=silent)
    with pytest.raises(PeerNotFoundError, match="asked: LAN"):
        await other.connect(SERVER_ID, timeout=0.3)
    await client.close()
    await other.close()


@pytest.mark.parametrize("polite", [True, False])
async def test_a_server_restarted_with_its_key_and_port_is_reached_again(polite: bool) -> None:
    server = await Endpoint.bind(SERVER, accept=True, report=silent)
    [address] = server.addresses
    client = await Endpoint.bind(client_settings(address), accept=False, report=silent)
    link = await client.connect(SERVER_ID, timeout=5)
    if not polite:
        for each in server._sockets:
            each.close()  # its close is not heard
    await server.close()
    again = await Endpoint.bind(
        EndpointSettings(secret_key=SEED, bind=address, lan_discovery=False),
        accept=True,
        report=silent,
    )
    stream = await link.open_stream() if not polite else None
    if stream is not None:
        stream.write(b"x" * 100)
    async with asyncio.timeout(5):
        assert isinstance(await link.wait_closed(), LinkClosedError)
    assert (await client.connect(SERVER_ID, timeout=5)).peer == SERVER_ID
    await client.close()
    await again.close()


async def test_after_closing_nothing_can_be_begun(lan_on_loopback: None) -> None:
    endpoint = await Endpoint.bind(EndpointSettings(), accept=True, report=silent)
    accepting = asyncio.create_task(endpoint.accept())
    connecting = asyncio.create_task(endpoint.connect(SERVER_ID, timeout=5))
    await asyncio.sleep(0)
    await endpoint.close()
    await endpoint.close()
    with pytest.raises(LinkClosedError, match="the endpoint was closed"):
        await accepting
    with pytest.raises(LinkClosedError, match="the endpoint was closed"):
        await endpoint.connect(SERVER_ID, timeout=5)
    with pytest.raises(LinkClosedError, match="the endpoint was closed"):
        await endpoint.accept()
    connecting.cancel()
    await asyncio.wait([connecting])


async def test_a_bind_that_is_cancelled_closes_its_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[UdpSocket] = []
    bind = UdpSocket.bind

    def noting(address: SocketAddr, **options: bool) -> UdpSocket:
        opened.append(bind(address, **options))
        return opened[-1]

    class Stuck:
        def __init__(self, report: object, *, scan: object) -> None:
            self.closed = False

        async def start(self) -> None:
            await asyncio.Event().wait()

        async def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(endpoint_module.UdpSocket, "bind", noting)
    monkeypatch.setattr(endpoint_module, "LanDiscovery", Stuck)
    task = asyncio.create_task(Endpoint.bind(EndpointSettings(), accept=True, report=silent))
    await until(lambda: len(opened) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(each._sock.fileno() == -1 for each in opened)


# Relays and discovery


def over_relays(*relays: RelayUrl, **options: Any) -> EndpointSettings:
    return EndpointSettings(**{"relays": relays, "lan_discovery": False, **options})


@asynccontextmanager
async def endpoint(
    settings: EndpointSettings, *, accept: bool = False, report: Reporter = silent
) -> AsyncIterator[Endpoint]:
    made = await Endpoint.bind(settings, accept=accept, report=report)
    try:
        yield made
    finally:
        await made.close()


async def echoed(link: QuicConnection, server: Endpoint, payload: bytes) -> bytes:
    """What comes out at the server of a stream that the client opens."""
    accepted = await server.accept()
    accepted.open_window()
    stream = await link.open_stream()
    stream.write(payload)
    return await Tape(await accepted.accept_stream()).read(len(payload))


async def test_with_the_relay_alone_no_udp_socket_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint_module.UdpSocket, "bind", None)
    monkeypatch.setattr(endpoint_module, "LanDiscovery", None)
    async with relay_server() as relay:
        settings = over_relays(url_of(relay), relay_only=True, lan_discovery=True)
        async with (
            endpoint(replace(settings, secret_key=SEED), accept=True) as server,
            endpoint(settings) as client,
        ):
            await server.online()
            assert server.ways == (f"relay {url_of(relay)}",) and server.addresses == ()
            link = await client.connect(SERVER_ID, timeout=5)
            assert link.address == url_of(relay).text
            assert await echoed(link, server, b"through") == b"through"


async def test_a_way_that_is_tried_again_is_told_once_until_it_has_led_somewhere() -> None:
    nobody = SocketAddr("127.0.0.1", 9)
    reports: list[Report] = []
    async with endpoint(replace(SERVER), accept=True) as server:
        given = client_settings(nobody, *server.addresses)
        async with endpoint(given, report=reports.append) as client:
            other = Identity(Secret(bytes(32))).endpoint_id
            for _ in range(2):
                with pytest.raises(TunnelError):
                    await client.connect(other, timeout=0.2)
            tried = [str(nobody), str(server.addresses[0])]
            assert [each.way for each in reports if isinstance(each, Trying)] == tried
            await client.connect(SERVER_ID, timeout=5)
            await client.connect(SERVER_ID, timeout=5)
            assert [each.way for each in reports if isinstance(each, Trying)] == tried * 2


async def test_a_client_asks_at_all_given_relays() -> None:
    async with relay_server() as home, relay_server() as other:
        both = (url_of(other), url_of(home))
        async with (
            endpoint(over_relays(url_of(home), secret_key=SEED), accept=True) as server,
            endpoint(over_relays(*both)) as client,
        ):
            await server.online()
            link = await client.connect(SERVER_ID, timeout=5)
            assert link.address == url_of(home).text


async def test_by_its_id_alone_a_server_is_found() -> None:
    async with relay_server() as relay, relay_server() as other, dns_server() as dns:
        publishing = DiscoverySettings(publish_url=dns.pkarr_url)
        asking = DiscoverySettings(resolve_url=dns.pkarr_url)
        reports: list[Report] = []
        settings = over_relays(url_of(relay), secret_key=SEED, discovery=publishing)
        async with (
            endpoint(settings, accept=True, report=reports.append) as server,
            endpoint(over_relays(url_of(other), discovery=asking)) as client,
            endpoint(over_relays(discovery=asking)) as without_relays,
        ):
            await server.online()
            await until(lambda: any("published" in str(report) for report in reports))
            link = await client.connect(SERVER_ID, timeout=5)
            assert link.address == url_of(relay).text
            with pytest.raises(PeerNotFoundError, match="and relays are turned off"):
                await without_relays.connect(SERVER_ID, timeout=0.5)


async def test_direct_addresses_are_published_and_dialled_when_asked_for() -> None:
    async with dns_server() as dns:
        publishing = DiscoverySettings(publish_url=dns.pkarr_url, publish_direct_addresses=True)
        asking = DiscoverySettings(resolve_url=dns.pkarr_url)
        reports: list[Report] = []
        settings = replace(SERVER, discovery=publishing)
        async with (
            endpoint(settings, accept=True, report=reports.append) as server,
            endpoint(replace(CLIENT, discovery=asking)) as client,
        ):
            await server.online()
            await until(lambda: any("published" in str(report) for report in reports))
            link = await client.connect(SERVER_ID, timeout=5)
            assert link.address == str(server.addresses[0])


async def test_what_was_tried_and_why_it_failed_is_in_the_error() -> None:
    nobody = RelayUrl.parse("http://127.0.0.1:9/")
    async with relay_server() as relay, dns_server() as dns:
        settings = over_relays(
            url_of(relay), nobody, discovery=DiscoverySettings(resolve_url=dns.pkarr_url)
        )
        async with endpoint(settings) as client:
            with pytest.raises(UnreachableError) as caught:
                await client.connect(SERVER_ID, timeout=3)
    text = str(caught.value)
    assert f"relay {url_of(relay)}: no answer through it; is the peer connected" in text
    assert "relay http://127.0.0.1:9/: " in text and "refused" in text.lower()
    assert f"{dns.pkarr_url}: {dns.pkarr_url} has no record of {SERVER_ID.short}" in text


async def test_a_server_without_its_relay_goes_on_with_a_warning() -> None:
    nobody = RelayUrl.parse("http://127.0.0.1:9/")
    reports: list[Report] = []
    settings = over_relays(nobody, bind=LOOPBACK, secret_key=SEED)
    async with endpoint(settings, accept=True, report=reports.append) as server:
        await server.online(timeout=0.3)
        assert server.ways == ()
    warnings = [each.text for each in reports if isinstance(each, Notice)]
    assert any(
        text.startswith("no relay was reached in 0.3 s (http://127.0.0.1:9/: ") for text in warnings
    )


async def test_a_server_that_has_nothing_but_its_relay_cannot_do_without() -> None:
    nobody = RelayUrl.parse("http://127.0.0.1:9/")
    async with endpoint(over_relays(nobody, relay_only=True), accept=True) as server:
        with pytest.raises(UnreachableError, match="check the network and --relay-url"):
            await server.online(timeout=0.3)


async def test_a_connection_over_a_relay_moves_to_a_direct_path_once_the_client_is_let_in() -> None:
    async with relay_server() as relay:
        reports: list[Report] = []
        settings = over_relays(url_of(relay), bind=LOOPBACK, secret_key=SEED)
        async with endpoint(settings, accept=True) as server:
            await server.online()
            dialling = over_relays(url_of(relay), bind=LOOPBACK)
            async with endpoint(dialling, report=reports.append) as client:
                link = await client.connect(SERVER_ID, timeout=5)
                assert link.address == url_of(relay).text
                assert await echoed(link, server, b"through" * 10_000) == b"through" * 10_000
                await until(lambda: link.address == str(server.addresses[0]))
                moved = [each for each in reports if isinstance(each, PathChanged)]
                assert [each.way for each in moved] == [f"direct {server.addresses[0]}"]
                assert moved[0].before == f"relay {url_of(relay).text}"


@pytest.mark.parametrize("by", ["option", "discovery"])
async def test_a_connection_to_a_given_address_gets_a_spare_over_the_relay(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_keeper, "SPARE_AFTER", 0.0)
    async with relay_server() as relay, relay_server() as other, dns_server() as dns:
        publishing = DiscoverySettings(publish_url=dns.pkarr_url)
        settings = over_relays(url_of(relay), bind=LOOPBACK, secret_key=SEED, discovery=publishing)
        reports: list[Report] = []
        async with endpoint(settings, accept=True, report=reports.append) as server:
            await server.online()
            await until(lambda: any("published" in str(report) for report in reports))
            asking = DiscoverySettings(resolve_url=dns.pkarr_url)
            known = (
                over_relays(url_of(relay))
                if by == "option"
                else over_relays(url_of(other), public_relays=True, discovery=asking)
            )
            dialling = replace(known, bind=LOOPBACK, peer_addrs=server.addresses)
            async with endpoint(dialling) as client:
                link = await client.connect(SERVER_ID, timeout=5)
                assert link.address == str(server.addresses[0])
                spare = PathStatus(url_of(relay).text, "relay", ANY, False)
                await until(lambda: len(link.paths) == 2 and link.paths[1] == spare)
                assert client._candidates is not None
                assert all(not len(each._scope) for each in client._candidates._mapped)


async def test_when_the_server_goes_to_another_relay_the_connection_follows() -> None:
    async with relay_server() as one, relay_server() as two:
        both = (url_of(one), url_of(two))
        settings = over_relays(*both, relay_only=True)
        async with (
            endpoint(replace(settings, secret_key=SEED), accept=True) as server,
            endpoint(settings) as client,
        ):
            await server.online()
            link = await client.connect(SERVER_ID, timeout=5)
            assert await echoed(link, server, b"before") == b"before"
            home = one if link.address == url_of(one).text else two
            await home.close()
            stream = await link.open_stream()
            stream.write(b"after")
            left = url_of(two if home is one else one).text
            async with asyncio.timeout(6):
                while link.address != left or link.engine.total_unsent:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_a_client_is_told_when_a_relay_is_back() -> None:
    async with relay_server() as relay:
        told = asyncio.Event()
        async with endpoint(over_relays(url_of(relay))) as client:
            client.on_change = told.set
            with pytest.raises(UnreachableError):
                await client.connect(SERVER_ID, timeout=0.5)
            await asyncio.wait_for(told.wait(), 5)


async def test_a_wrong_ca_file_leaves_nothing_open(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    relay = RelayUrl.parse("https://relay.example")
    with pytest.raises(ConfigError, match="ca.pem"):
        await Endpoint.bind(over_relays(relay, relay_ca_file=file), accept=True, report=silent)
    discovery = DiscoverySettings(resolve_url="https://dns.example/pkarr", ca_file=file)
    with pytest.raises(ConfigError, match="ca.pem"):
        await Endpoint.bind(over_relays(discovery=discovery), accept=False, report=silent)


async def test_the_device_of_a_vpn_over_this_endpoint_is_no_way_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Interface("vpn0", 7, (IPv4Address("10.7.0.1"),))
    other = Interface("eth0", 2, (IPv4Address("192.0.2.1"),))
    monkeypatch.setattr(endpoint_module, "local_interfaces", lambda: (own, other))
    settings = EndpointSettings(own_device="vpn0", lan_discovery=False)
    endpoint = await Endpoint.bind(settings, accept=True, report=silent)
    assert {address.ip for address in endpoint.addresses} == {"192.0.2.1"}
    await endpoint.close()
