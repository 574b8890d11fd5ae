"""The relay client against our relay server, and against servers that misbehave."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.relay_network import (
    States,
    http_server,
    is_down,
    relay_client,
    relay_server,
    until,
    url_of,
)
from tests.support.relay_peers import CHALLENGE, identity

from tunnel_rs.net import relay as net_relay
from tunnel_rs.net import relay_websocket
from tunnel_rs.net.relay import RelayDown, RelayPeerGone, RelayProblem
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.relay_access import SharedToken
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_client import DIAL_TIMEOUT
from tunnel_rs.values import Secret, SocketAddr

V1_ONLY = RelayClientSettings(offer="iroh-relay-v1")
ALICE, BOB = identity(1).endpoint_id, identity(2).endpoint_id


@pytest.mark.parametrize("settings", [RelayClientSettings(), V1_ONLY], ids=["v2", "v1"])
async def test_two_clients_reach_each_other(settings: RelayClientSettings) -> None:
    async with (
        relay_server() as server,
        relay_client(url_of(server), 1, settings) as (alice, _),
        relay_client(url_of(server), 2, settings) as (bob, inbox),
    ):
        await alice.wait_up()
        await bob.wait_up()
        assert alice.send(BOB, 0, memoryview(b"single"))
        assert alice.send(BOB, 4, memoryview(b"aaaabbbbcc"))
        where = RelayAddr(url_of(server).text, ALICE)
        assert await inbox.next() == (b"single", 6, where)
        assert await inbox.next() == (b"aaaabbbbcc", 4, where)
        await asyncio.sleep(0)
        assert inbox.batches >= 1


async def test_what_is_sent_while_dialling_is_delivered() -> None:
    async with (
        relay_server() as server,
        relay_client(url_of(server), 2) as (bob, inbox),
    ):
        await bob.wait_up()
        async with relay_client(url_of(server), 1) as (alice, _):
            assert not alice.is_up and alice.send(BOB, 0, memoryview(b"first"))
            assert (await inbox.next())[0] == b"first"


async def test_a_full_queue_drops_and_says_so() -> None:
    async with relay_client(RelayUrl.parse("http://127.0.0.1:9"), 1) as (client, _):
        sent = [client.send(BOB, 0, memoryview(b"x")) for _ in range(300)]
        assert sent == [True] * net_relay.MAX_QUEUED_MESSAGES + [False] * 44
        assert client.dropped == 44
    async with relay_client(RelayUrl.parse("http://127.0.0.1:9"), 1) as (client, _):
        sent = [client.send(BOB, 0, memoryview(bytes(60_000))) for _ in range(20)]
        assert sent.count(True) == net_relay.MAX_QUEUED_BYTES // 60_034


async def test_what_was_queued_too_long_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay_client(RelayUrl.parse("http://127.0.0.1:9"), 1) as (client, _):
        now = asyncio.get_running_loop().time()
        client.send(BOB, 0, memoryview(b"old"))
        monkeypatch.setattr(client._loop, "time", lambda: now + 3.5)
        client.send(BOB, 0, memoryview(b"new"))
        monkeypatch.undo()
        assert client.dropped == 1 and len(client._queue) == 1


async def test_a_client_comes_back_after_the_relay_restarted() -> None:
    states = States()
    async with relay_server() as server:
        url, port = url_of(server), server.addresses.http.port
        async with relay_client(url, 1, states=states) as (client, _):
            await states.up()
            await server.close()
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and down.was_up and down.retry_in < 0.1
            async with relay_server(http_bind_addr=SocketAddr("127.0.0.1", port)):
                client.retry_now()
                await states.up()
                assert client.is_up


async def test_a_dial_that_was_begun_in_another_network_is_not_waited_for() -> None:
    dialled: asyncio.Queue[None] = asyncio.Queue()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.put_nowait(None)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with relay_client(RelayUrl.parse(f"http://127.0.0.1:{port}"), 1) as (client, _):
            await dialled.get()
            async with asyncio.timeout(DIAL_TIMEOUT / 2):
                for _ in range(3):
                    client.retry_now()
                    await dialled.get()


async def test_a_connection_that_is_up_is_asked_when_the_network_changes() -> None:
    async with relay_server() as server, relay_client(url_of(server), 1) as (client, _):
        await client.wait_up()
        await until(lambda: client.round_trip is not None)
        assert client._connection is not None
        ping = client._connection._ping
        assert ping is not None
        before = ping._sent_at
        client.retry_now()
        await until(lambda: ping._sent_at > before and ping._outstanding is None)
        assert client.is_up


async def test_the_round_trip_is_measured() -> None:
    async with relay_server() as server, relay_client(url_of(server), 1) as (client, _):
        await client.wait_up()
        await until(lambda: client.round_trip is not None)
        assert (client.round_trip or 0) < 1


@pytest.mark.parametrize("settings", [RelayClientSettings(), V1_ONLY], ids=["v2", "v1"])
async def test_a_client_hears_that_its_key_is_used_elsewhere_and_when_it_is_over(
    settings: RelayClientSettings,
) -> None:
    states = States()
    async with (
        relay_server() as server,
        relay_client(url_of(server), 1, settings, states) as (first, _),
    ):
        await first.wait_up()
        async with relay_client(url_of(server), 1, settings) as (second, _):
            await second.wait_up()
            problem = await states.wait_for(lambda s: isinstance(s, RelayProblem))
            assert isinstance(problem, RelayProblem) and problem.text
        over = await states.wait_for(lambda s: isinstance(s, RelayProblem))
        assert over == RelayProblem(url_of(server).text, "")


async def test_a_client_hears_when_a_peer_has_gone() -> None:
    states = States()
    async with (
        relay_server() as server,
        relay_client(url_of(server), 1, states=states) as (alice, inbox),
    ):
        await alice.wait_up()
        async with relay_client(url_of(server), 2) as (bob, _):
            bob.send(ALICE, 0, memoryview(b"hello"))
            await inbox.next()
        gone = await states.wait_for(lambda s: isinstance(s, RelayPeerGone))
        assert gone == RelayPeerGone(url_of(server).text, BOB)


@pytest.mark.parametrize("place", ["url", "settings"])
async def test_an_access_token_opens_the_door(place: str) -> None:
    async with relay_server(access=SharedToken((Secret("s3/cret"),))) as server:
        url = url_of(server)
        token = Secret("s3/cret")
        relay = url._replace(token=token) if place == "url" else url
        settings = RelayClientSettings(token=token if place == "settings" else None)
        async with relay_client(relay, 1, settings) as (client, _):
            await client.wait_up()


async def test_a_wrong_token_is_told_as_a_denial_and_not_shown() -> None:
    states = States()
    async with relay_server(access=SharedToken((Secret("right"),))) as server:
        settings = RelayClientSettings(token=Secret("hunter2"))
        async with relay_client(url_of(server), 1, settings, states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and not down.was_up
            assert down.reason == "the relay refused us: not authorized"


# Servers that misbehave.

Behaviour = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def strange_relay(behave: Behaviour, protocol: str | None) -> AsyncIterator[RelayUrl]:
    """A WebSocket server that answers every offer with `protocol`."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        websocket = web.WebSocketResponse()
        if protocol:
            websocket.headers["Sec-WebSocket-Protocol"] = protocol
        await websocket.prepare(request)
        await behave(websocket)
        return websocket

    async with http_server(serve) as url:
        yield url


async def say(*messages: bytes | str, websocket: web.WebSocketResponse) -> None:
    for message in messages:
        if isinstance(message, str):
            await websocket.send_str(message)
        else:
            await websocket.send_bytes(message)
    await websocket.receive()


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((b"\x00" + CHALLENGE, b"\x02", b"\x0e"), "type 14"),
        ((b"ignored".decode(), b"\x02", b"\x0e"), "type 14"),
        ((b"\x00" + CHALLENGE, b"\x00" + CHALLENGE), "asked twice"),
        ((b"\x06" + bytes(40),), "before authentication"),
        ((b"\x02", b"\x06" + bytes(70_000)), "closed the connection"),
    ],
    ids=["unknown type", "text first", "two challenges", "datagram first", "oversize"],
)
async def test_what_a_relay_may_not_send_ends_the_connection(
    messages: tuple[bytes | str, ...], reason: str
) -> None:
    async def behave(websocket: web.WebSocketResponse) -> None:
        await say(*messages, websocket=websocket)

    states = States()
    async with strange_relay(behave, "iroh-relay-v2") as url:
        async with relay_client(url, 1, states=states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and reason in down.reason


@pytest.mark.parametrize("protocol", [None, "chat"])
async def test_a_websocket_that_speaks_no_relay_protocol_is_refused(protocol: str | None) -> None:
    async def behave(websocket: web.WebSocketResponse) -> None:
        await websocket.receive()

    states = States()
    async with strange_relay(behave, protocol) as url, relay_client(url, 1, states=states):
        down = await states.wait_for(is_down)
        assert isinstance(down, RelayDown) and "is it a relay?" in down.reason


async def test_a_relay_that_chooses_what_was_not_offered_is_refused() -> None:
    async def behave(websocket: web.WebSocketResponse) -> None:
        await websocket.receive()

    states = States()
    async with strange_relay(behave, "iroh-relay-v2") as url:
        async with relay_client(url, 1, V1_ONLY, states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and "did not offer" in down.reason


async def test_something_that_is_no_relay_is_told_by_its_status() -> None:
    states = States()
    async with relay_server(enable_relay=False) as server:
        async with relay_client(url_of(server), 1, states=states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and "HTTP status 404" in down.reason


async def test_a_relay_that_accepts_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(net_relay, "DIAL_TIMEOUT", 0.1)
    monkeypatch.setattr(relay_websocket, "DIAL_TIMEOUT", 0.1)
    states = States()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = RelayUrl.parse(f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with relay_client(url, 1, states=states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and down.reason == "no answer within 0.1 s"


async def test_a_port_nobody_listens_on_is_told_in_words() -> None:
    states = States()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with relay_client(RelayUrl.parse(f"http://127.0.0.1:{port}"), 1, states=states):
        down = await states.wait_for(is_down)
        assert isinstance(down, RelayDown) and down.reason == "Connection refused"
        later = await states.wait_for(lambda s: is_down(s) and s.retry_in > 0.05)  # type: ignore[union-attr]
        assert isinstance(later, RelayDown), "the pauses grow"


async def test_a_relay_that_answers_no_ping_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def behave(websocket: web.WebSocketResponse) -> None:
        await say(b"\x02", websocket=websocket)
        await websocket.receive()

    monkeypatch.setattr("tunnel_rs.proto.relay_ping.FIRST_PONG_DEADLINE", 0.05)
    states = States()
    async with strange_relay(behave, "iroh-relay-v2") as url:
        async with relay_client(url, 1, states=states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and down.reason == "the relay does not answer"


async def test_a_relay_that_pings_and_reads_nothing_fills_no_memory() -> None:
    flooding, checked = asyncio.Event(), asyncio.Event()

    async def behave(websocket: web.WebSocketResponse) -> None:
        await websocket.send_bytes(b"\x02")
        for _ in range(5000):
            await websocket.send_bytes(b"\x09" + bytes(8))
        flooding.set()
        await checked.wait()

    async with strange_relay(behave, "iroh-relay-v2") as url:
        async with relay_client(url, 1) as (client, _):
            await flooding.wait()
            assert len(client._queue) <= 2 * net_relay.MAX_QUEUED_MESSAGES
            checked.set()


async def test_closing_leaves_no_task_behind() -> None:
    async with relay_server() as server:
        async with relay_client(url_of(server), 1) as (client, _):
            await client.wait_up()
            await client.close()
            await client.close()
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert not [name for name in names if name.startswith("relay http")]


async def test_draining_waits_until_the_relay_has_what_was_queued() -> None:
    async with relay_server() as server, relay_client(url_of(server), 1) as (alice, _):
        await alice.drain()  # nothing is connected, so that there is nothing to wait for
        assert alice.problem == "not connected yet"
        await alice.wait_up()
        assert alice.problem == ""
        async with relay_client(url_of(server), 2) as (bob, mail):
            await bob.wait_up()
            for number in range(10):
                assert alice.send(identity(2).endpoint_id, 0, memoryview(bytes([number])))
            await alice.drain()
            await alice.close()
            assert [(await mail.next())[0] for _ in range(10)] == [bytes([n]) for n in range(10)]


async def test_why_a_relay_cannot_be_used_is_known() -> None:
    states = States()
    nobody = RelayUrl.parse("http://127.0.0.1:9/")
    async with relay_client(nobody, 1, states=states) as (alice, _):
        await states.wait_for(is_down)
        assert "refused" in alice.problem.lower()
