import pytest
from aiohttp import web
from tests.support.discovery import ORIGIN, WallClock, dns_server
from tests.support.relay_network import http_server, relay_server, url_of

from tunnel_rs.iroh import netcheck_services as module
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.netcheck_findings import Relay
from tunnel_rs.iroh.netcheck_services import RelayAnswer, check_discovery, check_relay
from tunnel_rs.net.relay_websocket import RelayClientSettings, relay_session
from tunnel_rs.proto.relay_access import AllowList
from tunnel_rs.proto.relay_addr import RelayUrl

SETTINGS = RelayClientSettings()


async def look_at(relay: RelayUrl) -> RelayAnswer:
    async with relay_session(SETTINGS) as session:
        return await check_relay(relay, session, SETTINGS)


async def test_a_relay_that_works_has_a_latency_and_a_clock() -> None:
    async with relay_server() as server:
        answer = await look_at(url_of(server))
    assert answer.relay.let_in and answer.relay.problem == ""
    assert answer.relay.latency is not None and answer.relay.latency > 0
    assert answer.date is not None and answer.date > 1_700_000_000


async def test_a_relay_that_refuses_us_says_so_but_has_a_latency() -> None:
    async with relay_server(access=AllowList(frozenset())) as server:
        relay = (await look_at(url_of(server))).relay
    assert not relay.let_in and relay.latency is not None
    assert relay.problem == "the relay refused us: not authorized"


async def test_a_relay_that_is_down_is_told() -> None:
    async with relay_server() as server:
        url = url_of(server)
    assert (await look_at(url)).relay == Relay(url.text, None, False, "Connection refused")


async def test_what_is_no_relay_is_told() -> None:
    async def serve(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    async with http_server(serve) as url:
        relay = (await look_at(url)).relay
    assert relay.problem == "answered HTTP status 404 instead of opening a WebSocket"


async def test_a_relay_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGIN_TIMEOUT", 0.05)

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/ping":
            return web.Response()
        websocket = web.WebSocketResponse(protocols=("iroh-relay-v2",))
        await websocket.prepare(request)
        await websocket.receive()
        return websocket

    async with http_server(serve) as url:
        relay = (await look_at(url)).relay
    assert not relay.let_in and relay.problem == "no answer within 0.05 s"
    assert relay.latency is not None


async def test_a_record_is_published_and_found_over_http() -> None:
    async with dns_server() as server:
        url = server.pkarr_url or ""
        settings = DiscoverySettings(publish_url=url, resolve_url=url)
        found = await check_discovery(settings, WallClock())
        assert found is not None
        assert found.problem == "" and found.resolved_by == url
        assert found.publish_time is not None and found.resolve_time is not None
        assert server.metrics.pkarr_publish_update == 1


async def test_a_record_is_published_and_found_over_dns() -> None:
    async with dns_server() as server:
        assert server.dns_address is not None
        settings = DiscoverySettings(
            publish_url=server.pkarr_url, dns_origin=ORIGIN, nameservers=(server.dns_address,)
        )
        found = await check_discovery(settings, WallClock())
        assert found is not None
        assert (found.problem, found.resolved_by) == ("", f"DNS, {ORIGIN}")
        assert server.metrics.dns_lookup_success == 1


async def test_a_server_that_is_down_is_told() -> None:
    async with dns_server() as server:
        url = server.pkarr_url or ""
    found = await check_discovery(DiscoverySettings(publish_url=url, resolve_url=url), WallClock())
    assert found is not None and found.publish_time is None
    assert found.problem == f"{url}: Connection refused"


async def test_a_server_that_forgets_is_told() -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=204 if request.method == "PUT" else 404)

    async with http_server(serve) as place:
        url = place.text.removesuffix("/ignored") + "/pkarr"
        settings = DiscoverySettings(publish_url=url, resolve_url=url)
        found = await check_discovery(settings, WallClock())
    assert found is not None and found.publish_time is not None and found.resolve_time is None
    assert "has no record of" in found.problem


async def test_without_a_server_nothing_is_looked_at() -> None:
    assert await check_discovery(DiscoverySettings(), WallClock()) is None
