"""The relay server as a whole."""

import asyncio
import os
import shutil
from pathlib import Path

import aiohttp
import pytest
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
from tunnel_rs.net.relay import RelayDown
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.relay_access import AllowList
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.reports import Notice, Report
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.selfhost.relay_settings import RelayLimits, RelayServerSettings, RelayTls

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
