"""One client of the relay server, spoken to through a raw WebSocket."""

import asyncio
import time

import aiohttp
import pytest
from tests.support.relay_network import (
    States,
    log_in,
    raw_socket,
    relay_client,
    relay_server,
    until,
    url_of,
)
from tests.support.relay_peers import CLIENT_AUTH, identity

from tunnel_rs.proto.relay_access import AllowList, SharedToken
from tunnel_rs.proto.relay_frames import encode_denial, encode_pong, encode_to_relay
from tunnel_rs.selfhost.relay_settings import ClientRxLimit, RelayLimits
from tunnel_rs.values import Secret

ALICE, BOB = identity(1).endpoint_id, identity(2).endpoint_id
ENDED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def over(websocket: aiohttp.ClientWebSocketResponse) -> bool:
    return (await websocket.receive()).type in ENDED


async def test_a_client_that_proves_its_id_is_confirmed() -> None:
    async with relay_server() as server, raw_socket(server) as websocket:
        assert await log_in(websocket, 1) == b"\x02"
        assert server.metrics.accepts == 1 and len(server._roster) == 1


async def test_a_replayed_answer_is_denied_and_closed() -> None:
    async with relay_server() as server, raw_socket(server) as websocket:
        await websocket.receive_bytes()
        await websocket.send_bytes(CLIENT_AUTH)
        assert await websocket.receive_bytes() == encode_denial("signature invalid")
        assert await over(websocket)
        assert server.metrics.auth_failures == 1 and not len(server._roster)


async def test_the_tls_exporter_header_is_ignored() -> None:
    headers = {"x-iroh-relay-client-auth-v1": "not even base64url!"}
    async with relay_server() as server, raw_socket(server, headers=headers) as websocket:
        assert await log_in(websocket, 1) == b"\x02"


async def test_a_client_that_is_not_allowed_hears_it_after_proving_its_id() -> None:
    async with relay_server(access=AllowList(frozenset({BOB}))) as server:
        async with raw_socket(server) as websocket:
            assert await log_in(websocket, 1) == encode_denial("not authorized")
            assert await over(websocket) and server.metrics.access_denied == 1
        async with raw_socket(server) as websocket:
            assert await log_in(websocket, 2) == b"\x02"


@pytest.mark.parametrize(
    ("query", "header", "answer"),
    [
        ("?token=a%2Fb", None, b"\x02"),
        ("", "bearer a/b", b"\x02"),
        ("?token=a%2Fb", "Bearer wrong", encode_denial("not authorized")),
        ("", None, encode_denial("not authorized")),
    ],
)
async def test_a_token_is_taken_from_header_or_query(
    query: str, header: str | None, answer: bytes
) -> None:
    headers = {"Authorization": header} if header else {}
    async with relay_server(access=SharedToken((Secret("a/b"),))) as server:
        async with raw_socket(server, query=query, headers=headers) as websocket:
            assert await log_in(websocket, 1) == answer


@pytest.mark.parametrize(
    "message",
    [b"", b"\x0e", b"\x09" + bytes(7), b"\x06" + bytes(40), b"\x04" + bytes(20), CLIENT_AUTH],
    ids=["empty", "unknown", "short ping", "server frame", "cut off", "handshake"],
)
async def test_what_a_client_may_not_send_ends_its_connection_only(message: bytes) -> None:
    async with relay_server() as server, raw_socket(server) as bad, raw_socket(server) as good:
        await log_in(bad, 1)
        await log_in(good, 2)
        await bad.send_bytes(message)
        assert await over(bad)
        await good.send_bytes(b"\x09" + b"12345678")
        assert await good.receive_bytes() == encode_pong(b"12345678")
        await until(lambda: len(server._roster) == 1)
        assert server.metrics.frames_invalid == 1


async def test_an_oversize_message_ends_the_connection() -> None:
    async with relay_server() as server, raw_socket(server) as websocket:
        await log_in(websocket, 1)
        await websocket.send_bytes(b"\x04" + bytes(70_000))
        assert await over(websocket)


async def test_text_and_websocket_pings_do_no_harm() -> None:
    async with relay_server() as server, raw_socket(server) as websocket:
        await log_in(websocket, 1)
        await websocket.send_str("hello")
        await websocket.ping(b"are you there")
        await websocket.send_bytes(b"\x09" + b"12345678")
        assert await websocket.receive_bytes() == encode_pong(b"12345678")


async def test_datagrams_for_nobody_and_empty_ones_are_dropped_silently() -> None:
    async with relay_server() as server, raw_socket(server) as alice, raw_socket(server) as bob:
        await log_in(alice, 1)
        await log_in(bob, 2)
        await alice.send_bytes(encode_to_relay(identity(3).endpoint_id.key, b"x"))
        await alice.send_bytes(b"\x04" + BOB.key + b"\x00")
        await alice.send_bytes(b"\x05" + BOB.key + b"\x00\x00\x05")
        await alice.send_bytes(encode_to_relay(BOB.key, b"real", ecn=2))
        assert await bob.receive_bytes() == b"\x06" + ALICE.key + b"\x02real"
        assert server.metrics.send_packets_dropped == 3
        assert server.metrics.send_packets_sent == 1


async def test_a_client_that_sends_nothing_is_gone_after_the_deadline() -> None:
    async with relay_server(limits=RelayLimits(handshake_timeout=0.05)) as server:
        async with raw_socket(server) as silent, raw_socket(server) as good:
            await log_in(good, 1)
            await silent.receive_bytes()
            assert await over(silent)
            await good.send_bytes(b"\x09" + b"12345678")
            assert await good.receive_bytes() == encode_pong(b"12345678"), "who is in may stay"


async def test_a_quiet_client_that_answers_no_ping_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunnel_rs.proto.relay_server.IDLE_BEFORE_PING", -4.95)
    monkeypatch.setattr("tunnel_rs.selfhost.relay_session.random.uniform", lambda _, high: high)
    monkeypatch.setattr("tunnel_rs.proto.relay_ping.FIRST_PONG_DEADLINE", 0.05)
    async with relay_server() as server, raw_socket(server) as websocket:
        await log_in(websocket, 1)
        assert (await websocket.receive_bytes())[0] == 9
        assert await over(websocket)
        await until(lambda: not len(server._roster))


async def test_a_client_that_never_reads_is_dropped_and_slows_nobody() -> None:
    limits = RelayLimits(write_timeout=0.2)
    async with relay_server(limits=limits) as server, raw_socket(server) as stuck:
        await log_in(stuck, 3)
        transport = stuck._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        async with (
            relay_client(url_of(server), 1) as (alice, _),
            relay_client(url_of(server), 2) as (bob, inbox),
        ):
            await alice.wait_up()
            await bob.wait_up()
            flood = memoryview(bytes(60_000))
            slowest = 0.0
            for _ in range(400):
                if not server.metrics.slow_clients_dropped:
                    alice.send(identity(3).endpoint_id, 0, flood)
                sent = time.monotonic()
                alice.send(BOB, 0, memoryview(b"probe"))
                assert (await inbox.next())[0] == b"probe"
                slowest = max(slowest, time.monotonic() - sent)
            await until(lambda: server.metrics.slow_clients_dropped)
            assert len(server._roster) == 2
            assert slowest < limits.write_timeout, "nobody waited for the stuck client"
        transport.abort()  # type: ignore[union-attr]


async def test_packets_for_a_full_queue_are_dropped_but_pongs_are_not() -> None:
    limits = RelayLimits(queue_packets=4)
    async with relay_server(limits=limits) as server, raw_socket(server) as bob:
        await log_in(bob, 2)
        session = next(iter(server._roster))
        accepted = [session.offer(b"\x06" + ALICE.key + b"\x00x") for _ in range(6)]
        assert accepted == [True] * 4 + [False] * 2
        session.notify(encode_pong(b"12345678"))
        assert await bob.receive_bytes() == encode_pong(b"12345678")
        assert [(await bob.receive_bytes())[0] for _ in range(4)] == [6] * 4


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    async with relay_server(limits=RelayLimits(queue_bytes=1000)) as server:
        async with raw_socket(server) as bob:
            await log_in(bob, 2)
            session = next(iter(server._roster))
            assert session.offer(bytes(900)) and not session.offer(bytes(101))
            assert session.offer(bytes(100))


async def test_a_fast_sender_is_held_back_and_told_and_nothing_is_lost() -> None:
    limits = RelayLimits(client_rx=ClientRxLimit(bytes_per_second=100_000))
    async with relay_server(limits=limits) as server, raw_socket(server) as alice:
        async with relay_client(url_of(server), 2) as (bob, inbox):
            await bob.wait_up()
            await log_in(alice, 1)
            began = time.monotonic()
            for _ in range(5):
                await alice.send_bytes(encode_to_relay(BOB.key, bytes(10_000)))
            assert [len((await inbox.next())[0]) for _ in range(5)] == [10_000] * 5
            assert time.monotonic() - began > 0.25, "50 kB at 100 kB/s, 10 kB of them at once"
            assert await alice.receive_bytes() == b"\x0d\x02"
            await alice.send_bytes(b"\x09" + b"12345678")
            assert await alice.receive_bytes() == encode_pong(b"12345678"), "told once"


async def test_too_many_connections_with_one_id_drop_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunnel_rs.proto.relay_server.MAX_SAME_ID", 1)
    async with relay_server() as server, raw_socket(server) as first, raw_socket(server) as second:
        await log_in(first, 1)
        await log_in(second, 1)
        assert await over(first) or await over(first)
        await until(lambda: len(server._roster) == 1)


async def test_a_connection_that_just_breaks_leaves_nothing_behind() -> None:
    states = States()
    async with relay_server() as server:
        async with raw_socket(server) as websocket:
            await log_in(websocket, 1)
            websocket._response.connection.transport.abort()  # type: ignore[union-attr]
            await until(lambda: not len(server._roster))
        await until(lambda: not server._relay_listener._http._admitted)
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert not [name for name in names if name.startswith("relay session")]
        assert not states.seen
