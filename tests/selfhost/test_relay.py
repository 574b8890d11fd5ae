"""The relay server as a whole."""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from tests.net.test_qad import discovery
from tests.support.relay_network import (
    LOOPBACK,
    SETTINGS,
    States,
    log_in,
    raw_socket,
    relay_client,
    relay_server,
    until,
    url_of,
)
from tests.support.relay_peers import identity, write_certificate

from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.net.qad import system_trust
from tunnel_rs.net.relay import RelayDown
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.relay_access import AllowList
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.reports import Notice, Report
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.selfhost.relay_settings import (
    RelayLimits,
    RelayQuic,
    RelayServerSettings,
    RelayTls,
)
from tunnel_rs.values import SocketAddr

ALICE = identity(1).endpoint_id


async def test_metrics_are_served_on_their_own_port_only() -> None:
    async with relay_server() as server, aiohttp.ClientSession() as http:
        async with relay_client(url_of(server), 1) as (client, _):
            await client.wait_up()
            async with http.get(f"http://{server.addresses.metrics}/metrics") as answer:
                assert answer.status == 200
                assert answer.content_type == "text/plain"
                assert "relayserver_endpoints 1\n" in await answer.text()
        async with http.get(f"http://{server.addresses.metrics}/other") as answer:
            assert answer.status == 404
        async with http.get(f"http://{server.addresses.http}/metrics") as answer:
            assert answer.status == 404


async def test_metrics_can_be_off() -> None:
    async with relay_server(enable_metrics=False) as server:
        assert server.addresses.metrics is None and server.addresses.https is None


async def test_with_tls_the_plain_port_answers_the_captive_portal_check_only(
    tmp_path: Path,
) -> None:
    tls = RelayTls(*write_certificate(tmp_path), https_bind_addr=LOOPBACK)
    async with relay_server(tls=tls) as server, aiohttp.ClientSession() as http:
        for path, status in (("generate_204", 204), ("relay", 404), ("ping", 404)):
            async with http.get(f"http://{server.addresses.http}/{path}") as answer:
                assert answer.status == status


async def test_a_reload_serves_the_new_certificate_and_keeps_connections(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    chain, key = write_certificate(tmp_path)
    new_chain, new_key = write_certificate(tmp_path / "new")
    async with relay_server(tls=RelayTls(chain, key, https_bind_addr=LOOPBACK)) as server:
        assert server.addresses.https is not None
        url = RelayUrl.parse(f"https://localhost:{server.addresses.https.port}")
        old = RelayClientSettings(ca_file=tmp_path / "old.crt")
        shutil.copy(chain, tmp_path / "old.crt")
        async with relay_client(url, 1, old) as (before, _):
            await before.wait_up()
            shutil.copy(new_chain, chain)
            shutil.copy(new_key, key)
            server.reload()
            async with relay_client(url, 2, RelayClientSettings(ca_file=new_chain)) as (after, _):
                await after.wait_up()
                assert before.is_up


async def test_a_reload_does_what_it_can_and_tells_the_rest(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"{ALICE}\n")
    async with relay_server(
        tls=RelayTls(chain, key, https_bind_addr=LOOPBACK),
        access=AllowList(frozenset()),
        access_file=allowed,
        access_file_interval=3600.0,
    ) as server:
        chain.unlink()
        allowed.write_text("")
        with pytest.raises(ConfigError, match=r"TLS file .*No such file"):
            server.reload()
        assert not await server._access.may_enter(ALICE, None), "the list was read all the same"


async def test_who_is_taken_off_the_watched_list_is_dropped_and_who_is_added_gets_in(
    tmp_path: Path,
) -> None:
    allowed, states = tmp_path / "allowed", States()
    allowed.write_text("")
    async with relay_server(
        access=AllowList(frozenset()), access_file=allowed, access_file_interval=0.01
    ) as server:
        async with relay_client(url_of(server), 1, states=states) as (client, _):
            refused = await states.wait_for(lambda s: isinstance(s, RelayDown))
            assert isinstance(refused, RelayDown) and "not authorized" in refused.reason
            allowed.write_text(f"{ALICE}\n")
            await client.wait_up()
            allowed.write_text("# nobody\n")
            dropped = await states.wait_for(lambda s: isinstance(s, RelayDown) and s.was_up)
            assert isinstance(dropped, RelayDown)


async def test_a_watched_list_that_became_bad_is_told_and_the_old_one_stays(
    tmp_path: Path,
) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(f"{ALICE}\n")
    reports: asyncio.Queue[Report] = asyncio.Queue()
    settings = RelayServerSettings(
        http_bind_addr=LOOPBACK,
        enable_metrics=False,
        access=AllowList(frozenset()),
        access_file=allowed,
        access_file_interval=0.01,
    )
    server = RelayServer(settings, reports.put_nowait)
    await server.start()
    async with relay_client(url_of(server), 1) as (client, _):
        await client.wait_up()
        allowed.write_text("garbage\n")
        report = await reports.get()
        assert isinstance(report, Notice) and report.level == "warning"
        assert "line 1" in report.text and "stays in use" in report.text
        assert client.is_up
    await server.close()


async def test_a_port_in_use_leaves_nothing_open() -> None:
    async with relay_server() as other:
        settings = RelayServerSettings(
            http_bind_addr=LOOPBACK, metrics_bind_addr=other.addresses.http
        )
        server = RelayServer(settings)
        with pytest.raises(LocalError, match="cannot listen on"):
            await server.start()
        with pytest.raises(OSError, match=r"onnect"):
            await asyncio.open_connection("127.0.0.1", server.addresses.http.port)


async def test_the_number_of_connections_is_limited() -> None:
    limits = RelayLimits(max_connections=1)
    async with relay_server(limits=limits) as server, raw_socket(server) as websocket:
        await log_in(websocket, 1)
        with pytest.raises(aiohttp.ClientError):
            async with raw_socket(server):
                pass
        assert server.metrics.connections_refused >= 1


async def test_new_connections_are_limited_in_their_rate() -> None:
    limits = RelayLimits(accept_conn_limit=0.001, accept_conn_burst=1)
    async with relay_server(limits=limits) as server, raw_socket(server):
        with pytest.raises(aiohttp.ClientError):
            async with raw_socket(server):
                pass


def open_sockets() -> set[str]:
    links = Path("/proc/self/fd")
    found = set()
    for link in links.iterdir() if links.is_dir() else ():
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return {target for target in found if target.startswith("socket:")}


async def test_closing_ends_every_connection_and_leaves_no_socket_behind() -> None:
    before = open_sockets()
    server = RelayServer(SETTINGS)
    await server.start()
    states = States()
    async with relay_client(url_of(server), 1, states=states) as (client, _):
        await client.wait_up()
        await server.close()
        await server.close()
        down = await states.wait_for(lambda s: isinstance(s, RelayDown))
        assert isinstance(down, RelayDown) and down.was_up
    await until(lambda: open_sockets() <= before)


async def test_settings_are_applied_while_it_runs() -> None:
    bob = identity(2).endpoint_id
    async with relay_server(access=AllowList(frozenset([ALICE]))) as server:
        states = States()
        async with relay_client(url_of(server), 1, states=states) as (alice, _):
            await alice.wait_up()
            limits = RelayLimits(queue_packets=7, max_connections=5)
            changed = replace(SETTINGS, access=AllowList(frozenset([bob])), limits=limits)
            assert await server.apply(changed) == ("limits.max_connections",)
            down = await states.wait_for(lambda s: isinstance(s, RelayDown) and s.was_up)
            assert isinstance(down, RelayDown)
        async with relay_client(url_of(server), 2) as (client, _):
            await client.wait_up()
            assert [session._limits.queue_packets for session in server._roster] == [7]


async def test_what_cannot_be_changed_while_it_runs_is_named(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    tls, quic = RelayTls(*certificate, LOOPBACK), RelayQuic(*certificate, LOOPBACK)
    elsewhere = SocketAddr("127.0.0.1", 1)
    async with relay_server(tls=tls, quic=quic) as server:
        same = replace(SETTINGS, tls=tls, quic=quic)
        assert await server.apply(same) == ()
        moved = replace(
            same,
            http_bind_addr=elsewhere,
            tls=replace(tls, https_bind_addr=elsewhere),
            quic=replace(quic, bind_addr=elsewhere),
        )
        wanted = ("http_bind_addr", "tls.https_bind_addr", "tls.quic_bind_addr")
        assert await server.apply(moved) == wanted
        # Named again as long as it is not restarted.
        assert await server.apply(moved) == wanted
        plain = replace(SETTINGS, enable_relay=False)
        assert await server.apply(plain) == ("enable_relay", "tls", "enable_quic_addr_discovery")


async def test_settings_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    tls = RelayTls(certificate, key, LOOPBACK)
    async with relay_server(tls=tls, access=AllowList(frozenset([ALICE]))) as server:
        broken = replace(tls, manual_key_path=tmp_path / "missing")
        with pytest.raises(ConfigError, match="No such file"):
            await server.apply(replace(SETTINGS, tls=broken))
        url = RelayUrl.parse(f"https://localhost:{server.addresses.https.port}")  # type: ignore[union-attr]
        settings = RelayClientSettings(ca_file=certificate)
        async with relay_client(url, 1, settings) as (alice, _):
            await alice.wait_up()
        states = States()
        async with relay_client(url, 2, settings, states):
            down = await states.wait_for(lambda state: isinstance(state, RelayDown))
            assert isinstance(down, RelayDown) and "not authorized" in down.reason


async def test_address_discovery_is_served_and_counted(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    async with relay_server(quic=RelayQuic(*certificate, LOOPBACK)) as server:
        assert server.addresses.quic is not None
        async with discovery() as (asking, sock):
            trust = system_trust(certificate[0])
            session = asking.dial(server.addresses.quic, "localhost", trust)
            assert await session.observed() == sock.address
            assert server.metrics.qad_accepts == 1
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://{server.addresses.metrics}/metrics") as answer,
            ):
                assert "relayserver_qad_connections 1\n" in await answer.text()


async def test_a_certificate_is_read_again_unasked(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    reports: list[Report] = []
    tls = RelayTls(certificate, key, LOOPBACK, reload_interval=0.01)
    quic = RelayQuic(certificate, key, LOOPBACK)
    server = RelayServer(replace(SETTINGS, tls=tls, quic=quic), reports.append)
    await server.start()
    try:
        first = server._quic_listener.identity  # type: ignore[union-attr]
        write_certificate(tmp_path)
        await until(lambda: server._quic_listener.identity.certificate != first.certificate)  # type: ignore[union-attr]
        certificate.unlink()
        await until(lambda: reports)
        assert isinstance(reports[0], Notice) and "the certificate in use stays" in reports[0].text
    finally:
        await server.close()


async def test_its_urls_are_what_users_type(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    async with relay_server() as server:
        assert server.urls == (f"http://{server.addresses.http}/",)
    async with relay_server(tls=RelayTls(certificate, key, LOOPBACK)) as server:
        assert server.addresses.https is not None
        assert server.urls == (f"https://localhost:{server.addresses.https.port}/",)
    named = RelayTls(certificate, key, LOOPBACK, hostname=("relay.example",))
    async with relay_server(tls=named) as server:
        assert server.urls[0].startswith("https://relay.example:")
