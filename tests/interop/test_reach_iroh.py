"""Real iroh endpoints and ours reach each other, in both directions, with nothing but a relay of
ours or an EndpointId."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.namespace import needs_namespaces, run_in_namespace
from tests.support.relay_network import relay_server, until, url_of
from tests.support.tape import Tape

from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.quic import ALPN
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.reports import silent
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.values import EndpointId, Secret

iroh = pytest.importorskip("iroh", reason="the iroh package has no wheel for this platform")

pytestmark = pytest.mark.interop

SEED = Secret(bytes([42]) * 32)
PAYLOAD = os.urandom(1_000_000)


@pytest.fixture(autouse=True)
async def iroh_loop() -> None:
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())


@asynccontextmanager
async def theirs(*relays: RelayServer, online: bool = True) -> AsyncIterator["iroh.Endpoint"]:
    """A real endpoint that knows these relays and nobody else."""
    known = iroh.RelayMap.empty()
    for relay in relays:
        # Without a QUIC port: otherwise iroh waits 3 s for address discovery that nobody serves.
        known.insert(iroh.RelayConfig(url=url_of(relay).text, quic_port=None, auth_token=None))
    bound = await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr="127.0.0.1:0",
            relay_mode=iroh.RelayMode.custom(known),
            alpns=[ALPN.encode()],
        )
    )
    try:
        if online:
            await asyncio.wait_for(bound.online(), 10)
        yield bound
    finally:
        await bound.close()


@asynccontextmanager
async def ours(*relays: RelayUrl, accept: bool, relay_only: bool = True) -> AsyncIterator[Endpoint]:
    settings = EndpointSettings(relays=relays, relay_only=relay_only, lan_discovery=False)
    settings = replace(settings, secret_key=SEED) if accept else settings
    endpoint = await Endpoint.bind(settings, accept=accept, report=silent)
    try:
        if accept:
            await endpoint.online()
        yield endpoint
    finally:
        await endpoint.close()


def id_of(endpoint: "iroh.Endpoint") -> EndpointId:
    return EndpointId.parse(str(endpoint.id()))


async def echo(listener: "iroh.Endpoint", streams: int = 1) -> "iroh.Connection":
    """A real server that sends everything back, stream by stream."""
    incoming = await listener.accept_next()
    connection = await (await incoming.accept()).connect()
    for _ in range(streams):
        stream = await connection.accept_bi()
        await stream.send().write_all(await stream.recv().read_to_end(len(PAYLOAD) + 1))
        await stream.send().finish()
    return connection


async def sent_and_received(link: QuicConnection, payload: bytes) -> bytes:
    stream = await link.open_stream()
    tape = Tape(stream)
    stream.write(payload)
    stream.write_eof()
    await asyncio.wait_for(tape.heard("eof"), 30)
    return tape.data


async def send_back(server: Endpoint) -> QuicConnection:
    """Our server's side of an exchange with a real client."""
    link = await server.accept()
    link.open_window()
    stream = await link.accept_stream()
    tape = Tape(stream)
    await tape.heard("eof")
    stream.write(tape.data)
    stream.write_eof()
    return link


async def ask(dialling: "iroh.Endpoint", where: "iroh.EndpointAddr", payload: bytes) -> bytes:
    connection = await dialling.connect(where, ALPN.encode())
    stream = await connection.open_bi()
    await stream.send().write_all(payload)
    await stream.send().finish()
    return bytes(await stream.recv().read_to_end(len(payload) + 1))


async def test_our_client_reaches_a_real_server_with_only_the_relay_url() -> None:
    async with relay_server() as relay, theirs(relay) as server:
        answering = asyncio.create_task(echo(server))
        async with ours(url_of(relay), accept=False) as client:
            link = await client.connect(id_of(server), timeout=10)
            assert link.address == url_of(relay).text
            assert await sent_and_received(link, PAYLOAD) == PAYLOAD
            await answering
        assert relay.metrics.frames_invalid == 0


async def test_a_real_client_reaches_our_server_with_only_the_relay_url() -> None:
    async with relay_server() as relay, ours(url_of(relay), accept=True) as server:
        answering = asyncio.create_task(send_back(server))
        async with theirs(relay) as client:
            peer = iroh.EndpointId.from_string(str(server.endpoint_id))
            where = iroh.EndpointAddr(peer, url_of(relay).text, [])
            assert await ask(client, where, PAYLOAD) == PAYLOAD
            link = await answering
            assert link.peer == id_of(client) and link.address == url_of(relay).text
        assert relay.metrics.frames_invalid == 0


async def test_of_several_relays_our_client_finds_the_home_of_a_real_server() -> None:
    async with relay_server() as home, relay_server() as other, theirs(home) as server:
        answering = asyncio.create_task(echo(server))
        async with ours(url_of(other), url_of(home), accept=False) as client:
            link = await client.connect(id_of(server), timeout=10)
            assert await sent_and_received(link, b"x" * 10_000) == b"x" * 10_000
            await answering


async def test_a_connection_to_a_real_server_survives_the_restart_of_the_relay() -> None:
    async with relay_server() as relay, theirs(relay) as server:
        answering = asyncio.create_task(echo(server, streams=2))
        async with ours(url_of(relay), accept=False) as client:
            link = await client.connect(id_of(server), timeout=10)
            assert await sent_and_received(link, b"before") == b"before"
            await relay.close()
            await until(lambda: link.engine.path_is_down)
            async with relay_server(http_bind_addr=relay.addresses.http):
                assert await sent_and_received(link, b"after") == b"after"
                await answering


def is_ipv4(address: str) -> bool:
    return not address.startswith("[")


async def test_a_connection_to_a_real_server_leaves_the_relay_for_a_direct_path() -> None:
    async with relay_server() as relay, theirs(relay) as server:
        answering = asyncio.create_task(echo(server, streams=2))
        async with ours(url_of(relay), accept=False, relay_only=False) as client:
            link = await client.connect(id_of(server), timeout=10)
            assert await sent_and_received(link, b"relayed") == b"relayed"
            host, port = next(filter(is_ipv4, server.bound_sockets())).split(":")
            client._quic.probe(link, (host, int(port)))
            await until(lambda: not isinstance(link.engine.address, RelayAddr))
            # The one that was asked for here, or one that the two have found before.
            ports = {bound.rpartition(":")[2] for bound in server.bound_sockets()}
            assert link.address.rpartition(":")[2] in ports
            assert await sent_and_received(link, PAYLOAD) == PAYLOAD
            await answering


@pytest.mark.netns
@needs_namespaces
@pytest.mark.parametrize("scene", ["their_client_finds_ours", "our_client_finds_theirs"])
def test_by_the_id_alone_through_a_discovery_server_of_ours(scene: str, tmp_path: Path) -> None:
    """With the public defaults of both sides, in a network where the resolver is ours."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    seen = run_in_namespace("tests.interop.reach_scene", scene, resolv_conf=path)
    assert seen == {"same": True, "over_relay": True}
