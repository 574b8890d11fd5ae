"""The WebSocket to a relay: TLS, proxies, and the request that is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.relay_network import (
    LOOPBACK,
    States,
    http_server,
    is_down,
    relay_client,
    relay_server,
)
from tests.support.relay_peers import write_certificate

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.relay import RelayDown
from tunnel_rs.net.relay_websocket import RelayClientSettings, relay_session
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.selfhost.relay_settings import RelayTls


@asynccontextmanager
async def tls_server(directory: Path) -> AsyncIterator[tuple[RelayUrl, Path]]:
    chain, key = write_certificate(directory)
    async with relay_server(tls=RelayTls(chain, key, https_bind_addr=LOOPBACK)) as server:
        assert server.addresses.https is not None
        yield RelayUrl.parse(f"https://localhost:{server.addresses.https.port}"), chain


async def test_tls_with_our_own_authority(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (url, chain):
        async with relay_client(url, 1, RelayClientSettings(ca_file=chain)) as (client, _):
            await client.wait_up()


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    states = States()
    async with tls_server(tmp_path) as (url, _), relay_client(url, 1, states=states):
        down = await states.wait_for(is_down)
        assert isinstance(down, RelayDown)
        assert down.reason == "its certificate is not trusted: self-signed certificate"


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    states = States()
    async with tls_server(tmp_path) as (url, chain):
        other = RelayUrl.parse(url.text.replace("localhost", "[::ffff:127.0.0.1]"))
        async with relay_client(other, 1, RelayClientSettings(ca_file=chain), states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and "not trusted" in down.reason


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"relay_ca_file .*ca\.pem: "):
        relay_session(RelayClientSettings(ca_file=path))


async def test_the_offer_is_sent_as_old_relays_want_it_and_nothing_tells_who_we_are() -> None:
    seen: asyncio.Future[web.BaseRequest] = asyncio.get_running_loop().create_future()

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if not seen.done():
            seen.set_result(request)
        return web.Response(status=404)

    async with http_server(serve) as url, relay_client(url, 1):
        request = await seen
        assert request.path == "/relay"
        assert request.headers["Sec-WebSocket-Protocol"] == "iroh-relay-v2, iroh-relay-v1"
        assert request.headers["Upgrade"] == "websocket"
        unwanted = {"User-Agent", "Origin", "Sec-WebSocket-Extensions", "Authorization"}
        assert not unwanted & set(request.headers)


async def test_a_proxy_of_the_environment_is_used_for_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        host, port = asked[0].split()[1].rsplit(b":", 1)
        upstream = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pipe(reader, upstream[1]), pipe(upstream[0], writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    port = listener.sockets[0].getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{port}")
    async with tls_server(tmp_path) as (url, chain):
        async with relay_client(url, 1, RelayClientSettings(ca_file=chain)) as (client, _):
            await client.wait_up()
    listener.close()
    assert asked[0].startswith(b"CONNECT localhost:")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in asked[0]
