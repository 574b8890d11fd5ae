"""Real iroh endpoints with nothing but our relay, and our client beside them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.relay_network import (
    States,
    relay_client,
    relay_server,
    until,
    url_of,
)
from tests.support.relay_peers import key

from tunnel_rs.net.relay import RelayProblem
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.relay_access import SharedToken
from tunnel_rs.proto.relay_handshake import RelayIdentity, RelayVersion
from tunnel_rs.selfhost import relay_routes
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.values import EndpointId, Secret, SocketAddr

iroh = pytest.importorskip("iroh", reason="the iroh package has no wheel for this platform")

pytestmark = pytest.mark.interop

ALPN = b"test/relay"
PAYLOAD = os.urandom(1_000_000)


@pytest.fixture(autouse=True)
async def iroh_loop() -> None:
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())


@asynccontextmanager
async def endpoint(
    server: RelayServer, *, seed: bytes | None = None, token: str | None = None
) -> AsyncIterator["iroh.Endpoint"]:
    relays = iroh.RelayMap.empty()
    # Without a QUIC port: otherwise iroh waits 3 s for address discovery that nobody serves.
    url = url_of(server).text
    relays.insert(iroh.RelayConfig(url=url, quic_port=None, auth_token=token))
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        bind_addr="127.0.0.1:0",
        relay_mode=iroh.RelayMode.custom(relays),
        secret_key=seed,
        alpns=[ALPN],
    )
    bound = await iroh.Endpoint.bind(options)
    try:
        yield bound
    finally:
        await bound.close()


async def echo(listener: "iroh.Endpoint") -> "iroh.Connection":
    incoming = await listener.accept_next()
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    data = await stream.recv().read_to_end(len(PAYLOAD) + 1)
    await stream.send().write_all(data)
    await stream.send().finish()
    return connection


async def send_and_receive(connection: "iroh.Connection", data: bytes) -> bytes:
    stream = await connection.open_bi()
    await stream.send().write_all(data)
    await stream.send().finish()
    return bytes(await stream.recv().read_to_end(len(data) + 1))


def via(server: RelayServer, peer: "iroh.Endpoint") -> "iroh.EndpointAddr":
    return iroh.EndpointAddr(peer.id(), url_of(server).text, [])


@pytest.mark.parametrize("version", [RelayVersion.V2, RelayVersion.V1], ids=["v2", "v1"])
async def test_two_endpoints_connect_with_only_the_relay_url(
    version: RelayVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version is RelayVersion.V1:
        monkeypatch.setattr(relay_routes, "choose_version", lambda offer: RelayVersion.V1)
    async with relay_server() as server, endpoint(server) as alice, endpoint(server) as bob:
        async with asyncio.timeout(10):
            await asyncio.gather(alice.online(), bob.online())
        assert {s._connection.version for s in server._roster} == {version}
        answering = asyncio.create_task(echo(bob))
        connection = await alice.connect(via(server, bob), ALPN)
        assert await send_and_receive(connection, PAYLOAD) == PAYLOAD
        await answering
        assert server.metrics.send_packets_sent > 4
        assert server.metrics.frames_invalid == 0


async def test_a_token_is_presented_and_a_wrong_one_never_gets_online() -> None:
    async with relay_server(access=SharedToken((Secret("open"),))) as server:
        async with endpoint(server, token="open") as alice, endpoint(server, token="wrong") as bob:
            await asyncio.wait_for(alice.online(), 10)
            await until(lambda: server.metrics.access_denied > 1)
            assert len(server._roster) == 1
            assert str(alice.id()) != str(bob.id())


async def test_endpoints_come_back_after_a_restart_of_the_relay() -> None:
    async with relay_server() as server:
        port = server.addresses.http.port
        async with endpoint(server) as alice, endpoint(server) as bob:
            async with asyncio.timeout(10):
                await asyncio.gather(alice.online(), bob.online())
            answering = asyncio.create_task(echo(bob))
            await server.close()
            async with relay_server(http_bind_addr=SocketAddr("127.0.0.1", port)) as again:
                await until(lambda: len(again._roster) == 2)
                connection = await alice.connect(via(again, bob), ALPN)
                assert await send_and_receive(connection, PAYLOAD[:10_000]) == PAYLOAD[:10_000]
                await answering


async def test_a_connection_over_the_relay_survives_its_restart() -> None:
    async with relay_server() as server:
        port = server.addresses.http.port
        async with endpoint(server) as alice, endpoint(server) as bob:
            async with asyncio.timeout(10):
                await asyncio.gather(alice.online(), bob.online())
            answering = asyncio.create_task(echo(bob))
            connection = await alice.connect(via(server, bob), ALPN)
            stream = await connection.open_bi()
            await stream.send().write_all(b"before ")
            await server.close()
            async with relay_server(http_bind_addr=SocketAddr("127.0.0.1", port)):
                await stream.send().write_all(b"after")
                await stream.send().finish()
                assert bytes(await stream.recv().read_to_end(100)) == b"before after"
                await answering


async def test_a_duplicate_id_takes_over_and_gives_back() -> None:
    seed = bytes([7]) * 32
    own = key(7)
    me = RelayIdentity(EndpointId(own.public_key().public_bytes_raw()), own.sign)
    async with relay_server() as server, endpoint(server, seed=seed) as original:
        await asyncio.wait_for(original.online(), 10)
        assert str(original.id()) == str(me.endpoint_id)
        states = States()
        async with relay_client(url_of(server), me, states=states) as (twin, inbox):
            await twin.wait_up()
            async with endpoint(server) as alice:
                await asyncio.wait_for(alice.online(), 10)
                dialling = asyncio.create_task(alice.connect(via(server, original), ALPN))
                data, _, source = await inbox.next()
                assert len(data) >= 1200 and str(source.endpoint_id) == str(alice.id())
                await twin.close()
                # The first flight is repeated, and now reaches the original.
                incoming = await original.accept_next()
                await (await incoming.accept()).connect()
                await dialling
        assert not [state for state in states.seen if isinstance(state, RelayProblem)]
        assert server.metrics.duplicate_endpoints == 1


@pytest.mark.parametrize("offer", ["iroh-relay-v2, iroh-relay-v1", "iroh-relay-v1"])
async def test_a_real_endpoint_and_our_client_object_hear_each_other(offer: str) -> None:
    own = key(9)
    me = RelayIdentity(EndpointId(own.public_key().public_bytes_raw()), own.sign)
    settings = RelayClientSettings(offer=offer)
    async with (
        relay_server() as server,
        endpoint(server) as alice,
        relay_client(url_of(server), me, settings) as (client, inbox),
    ):
        await asyncio.wait_for(alice.online(), 10)
        await client.wait_up()
        peer = iroh.EndpointId.from_string(str(me.endpoint_id))
        where = iroh.EndpointAddr(peer, url_of(server).text, [])
        dialling = asyncio.create_task(alice.connect(where, ALPN))
        data, segment_size, source = await inbox.next()
        assert str(source.endpoint_id) == str(alice.id())
        # RFC 9000 section 17.2: a long-header Initial of QUIC version 1, padded to 1200 bytes.
        assert data[0] & 0xF0 == 0xC0 and data[1:5] == b"\x00\x00\x00\x01"
        assert segment_size >= 1200
        dialling.cancel()
        # A version nobody speaks is answered with those the endpoint does (section 6.1).
        unknown = b"\xc0\x0a\x1a\x2a\x3a\x08destinat\x04srce".ljust(1200, b"\x00")
        assert client.send(source.endpoint_id, 0, memoryview(unknown))
        while data[1:5] != bytes(4):
            data, _, source = await inbox.next()
        assert str(source.endpoint_id) == str(alice.id())
        assert data[5:19] == b"\x04srce\x08destinat" and b"\x00\x00\x00\x01" in data[19:]
