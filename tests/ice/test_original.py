"""Sessions with an emulated original on either side, in both modes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.ice_scene import (
    SESSION,
    Carrier,
    Reports,
    client_settings,
    forward_server,
    nostr_client,
    nostr_server,
    run_client,
    service,
)
from tests.support.nostr_relay import relay
from tests.support.original import (
    Bytes,
    Original,
    OriginalOnNostr,
    echoes_tcp,
    serve_as_the_original,
)
from tests.support.sockets import UdpTarget, connect, echo_server, read_exactly, send, until

from tunnel_rs.ice.manual import ManualClient, serve_manual
from tunnel_rs.ice.settings import ClientRequest
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.proto.ice_messages import (
    Answer,
    Offer,
    Request,
    decode_answer,
    decode_offer,
    decode_request,
    encode,
)
from tunnel_rs.proto.manual_text import BlockKind
from tunnel_rs.proto.nostr_events import EventType
from tunnel_rs.values import SourceUrl

NOW = 1_700_000_000


@asynccontextmanager
async def manual_client_of_the_original(source: str) -> AsyncIterator[QuicConnection]:
    carrier, reports = Carrier(), Reports()
    original = Original(controlling=True, is_server=False)
    server = forward_server(reports)
    serving = asyncio.create_task(
        serve_manual(SESSION, service(server), carrier, reports, SystemResolver())
    )
    await original.ice.gather()
    carrier.show(BlockKind.OFFER, encode(Offer(original.ice.parameters, source=source)))
    answer = decode_answer(await carrier.read(BlockKind.ANSWER))
    assert answer.fingerprint is not None and answer.streams is None
    try:
        yield await original.dial(answer.ice, answer.fingerprint)
    finally:
        await original.close()
        await asyncio.gather(serving, return_exceptions=True)
        await server.close(timeout=0)


async def test_its_client_in_manual_mode_reaches_tcp() -> None:
    async with echo_server() as target, manual_client_of_the_original(target.url) as connection:
        await echoes_tcp(connection)


async def test_its_client_in_manual_mode_reaches_udp_on_one_stream() -> None:
    target = UdpTarget()
    async with manual_client_of_the_original(target.url) as connection:
        stream = await connection.open_stream()
        received = Bytes(stream)
        stream.write(b"\0\5hello")
        await until(lambda: received.data == b"\0\5hello")
    target.close()


async def test_a_target_that_refuses_just_ends_its_stream() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        source = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        async with manual_client_of_the_original(source) as connection:
            stream = await connection.open_stream()
            received = Bytes(stream)
            stream.write(b"\0hello")
            await until(lambda: received.ended)
            assert not received.data


@asynccontextmanager
async def manual_server_of_the_original(source: str, *, udp: bool) -> AsyncIterator[int]:
    """The port of our client's listener."""
    carrier, reports = Carrier(), Reports()
    original = Original(controlling=False, is_server=True)
    client = ManualClient(
        SESSION, ClientRequest(SourceUrl.parse(source)), carrier, reports, SystemResolver()
    )

    async def serve() -> None:
        offer = decode_offer(await carrier.read(BlockKind.OFFER))
        assert offer.source == source and offer.fingerprint is None
        await original.ice.gather()
        answer = Answer(original.ice.parameters, fingerprint=original.certificate.fingerprint)
        carrier.show(BlockKind.ANSWER, encode(answer))
        await serve_as_the_original(await original.accept(offer.ice), udp=udp)

    serving = asyncio.create_task(serve())
    try:
        async with run_client(client_settings(source), client.connect) as running:
            yield running.port()
    finally:
        await client.close()
        await original.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_our_client_reaches_tcp_through_its_server_in_manual_mode() -> None:
    async with manual_server_of_the_original("tcp://127.0.0.1:7", udp=False) as port:
        sock = await connect(("127.0.0.1", port))
        await send(sock, b"hello")
        assert await read_exactly(sock, 5) == b"hello"
        sock.close()


async def test_all_local_udp_peers_share_the_one_stream_its_server_serves() -> None:
    async with manual_server_of_the_original("udp://127.0.0.1:7", udp=True) as port:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", port))
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, b"hello")
            assert await loop.sock_recv(sock, 100) == b"hello"


async def test_its_client_in_nostr_mode_reaches_tcp() -> None:
    async with echo_server() as target, relay() as one, nostr_server(one.url) as reports:
        speaker = OriginalOnNostr(one.url, is_server=False)
        original = Original(controlling=False, is_server=False)
        await original.ice.gather()
        async with speaker.relays as relays:
            await relays.wait_subscribed(5)
            # The clock of the test's server is the real one; a request from the future is fresh.
            request = Request(original.ice.parameters, "0" * 16, 1 << 40, target.url)
            speaker.say(EventType.REQUEST, encode(request))
            signal = await speaker.next()
            offer = decode_offer(signal.body)
            assert signal.type is EventType.OFFER and offer.streams is None
            assert offer.fingerprint is not None
            await echoes_tcp(await original.dial(offer.ice, offer.fingerprint))
        await original.close()
        assert "internal error" not in reports.texts()


@pytest.mark.parametrize("source", ["tcp://127.0.0.1:7"])
async def test_our_client_falls_back_to_plain_text_for_its_server(source: str) -> None:
    async with relay() as one:
        speaker = OriginalOnNostr(one.url, is_server=True)
        original = Original(controlling=True, is_server=True)

        async def serve() -> None:
            async with speaker.relays as relays:
                await relays.wait_subscribed(5)
                request = decode_request((await speaker.next()).body)
                await original.ice.gather()
                offer = Offer(
                    original.ice.parameters,
                    fingerprint=original.certificate.fingerprint,
                    session_id=request.session_id,
                )
                speaker.say(EventType.OFFER, encode(offer))
                await serve_as_the_original(await original.accept(request.ice), udp=False)

        serving = asyncio.create_task(serve())
        settings = client_settings(source)
        async with nostr_client(settings, one.url, republish_interval=0.5) as (running, _, _):
            sock = await connect(("127.0.0.1", running.port()))
            await send(sock, b"hello")
            assert await read_exactly(sock, 5) == b"hello"
            sock.close()
        await original.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
