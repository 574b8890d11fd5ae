import os
from collections.abc import Callable

import pytest
from tests.support.ice_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    client_settings,
    nostr_client,
    nostr_server,
)
from tests.support.nostr_relay import Behaviour, relay
from tests.support.sockets import connect, echo_server, read_exactly, send, until

from tunnel_rs.errors import TargetError, UnreachableError
from tunnel_rs.ice.nostr_client import wall_clock
from tunnel_rs.proto.ice_messages import IceParameters, Request, encode
from tunnel_rs.proto.nostr_events import Conversation, EventType
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.reports import ClientAuthenticated, ServerReady
from tunnel_rs.values import Secret

EVE = NostrSecretKey(Secret(bytes([9]) * 32))
CLIENT = Conversation(CLIENT_KEY, SERVER_KEY.public_key, os.urandom)
ICE = IceParameters("u" * 16, "p" * 22, ())


def types(events: list[dict[str, object]]) -> list[object]:
    found: list[object] = []
    for event in events:
        tags = event["tags"]
        assert isinstance(tags, list)
        found += [tag[1] for tag in tags if tag[0] == "type"]
    return found


async def ask(served: object, session: str, age: int = 0, key: Conversation = CLIENT) -> None:
    request = Request(ICE, session, wall_clock() - age, "tcp://127.0.0.1:22")
    event = key.event(EventType.REQUEST, encode(request), wall_clock(), encrypted=False)
    await served.deliver(event.as_json())  # type: ignore[attr-defined]


async def test_a_repeated_request_gets_the_same_offer_again() -> None:
    async with relay() as one, nostr_server(one.url):
        for _ in range(2):
            await ask(one, "a" * 16)
            await until(lambda: bool(one.events))
        await ask(one, "a" * 16, age=1)  # other bytes, so not the same event
        await until(lambda: len(one.events) >= 2)
        assert set(types(one.events)) == {"tunnel-offer"}


async def test_a_stale_request_is_ignored_and_told() -> None:
    async with relay() as one, nostr_server(one.url) as reports:
        await ask(one, "a" * 16, age=100)
        await until(lambda: "s old" in reports.texts("warning"))
        assert not one.events


async def test_a_stranger_s_request_is_ignored() -> None:
    async with relay() as one, nostr_server(one.url):
        await ask(one, "a" * 16, key=Conversation(EVE, SERVER_KEY.public_key, os.urandom))
        await ask(one, "b" * 16)
        await until(lambda: bool(one.events))
        assert types(one.events) == ["tunnel-offer"]


async def test_beyond_the_limit_of_sessions_requests_are_declined() -> None:
    async with echo_server() as target, relay() as one:
        async with nostr_server(one.url, max_sessions=1):
            settings = client_settings(target.url)
            async with nostr_client(settings, one.url) as (first, _, _r):
                sock = await connect(("127.0.0.1", first.port()))
                await send(sock, b"x")
                await read_exactly(sock, 1)
                async with nostr_client(settings, one.url) as (second, _, _r2):
                    await until(second.task.done)
                    error = second.task.exception()
                    assert isinstance(error, UnreachableError)
                    assert "Server at capacity (1/1 sessions)" in str(error)
                sock.close()


async def test_a_client_without_source_gets_a_reason() -> None:
    async with relay() as one, nostr_server(one.url) as reports:
        request = Request(ICE, "a" * 16, wall_clock())
        event = CLIENT.event(EventType.REQUEST, encode(request), wall_clock(), encrypted=False)
        await one.deliver(event.as_json())
        await until(lambda: bool(one.events))
        assert types(one.events) == ["tunnel-reject"] and "no source" in reports.texts("warning")


class Dropping:
    """Drops the first event of each type."""

    def __init__(self) -> None:
        self.dropped: set[object] = set()

    def __call__(self, event: dict[str, object]) -> list[dict[str, object]]:
        [kind] = types([event])
        if kind in self.dropped:
            return [event]
        self.dropped.add(kind)
        return []


def repeat(event: dict[str, object]) -> list[dict[str, object]]:
    return [event] * 3


def forge(event: dict[str, object]) -> list[dict[str, object]]:
    """Damaged copies, and one signed by somebody else, before and after the true event."""
    eve = Conversation(EVE, SERVER_KEY.public_key, os.urandom)
    forged = [
        {**event, "sig": "00" * 64},
        {**event, "content": "x"},
        {**event, "pubkey": EVE.public_key.hex},
        {**event, "created_at": 0},
        eve.event(EventType.REJECT, b"{}", 0, encrypted=False).as_json(),
    ]
    return [*forged, event, *forged]


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(lambda: Behaviour(tamper=Dropping()), id="drops"),
        pytest.param(lambda: Behaviour(tamper=repeat, keeps=True), id="repeats and keeps"),
        pytest.param(lambda: Behaviour(delay=0.3), id="delays"),
        pytest.param(lambda: Behaviour(tamper=forge), id="forges"),
        pytest.param(lambda: Behaviour(closes_first=1), id="closes subscriptions"),
        pytest.param(lambda: Behaviour(wants_auth=True), id="wants to know who we are"),
    ],
)
async def test_a_hostile_relay_does_not_keep_two_apart(behaviour: Callable[[], Behaviour]) -> None:
    async with (
        echo_server() as target,
        relay(behaviour()) as one,
        nostr_server(one.url) as reports,
        nostr_client(client_settings(target.url), one.url) as (running, _, _r),
    ):
        sock = await connect(("127.0.0.1", running.port()))
        await send(sock, b"hello")
        assert await read_exactly(sock, 5) == b"hello"
        sock.close()
        assert "internal error" not in reports.texts() and len(reports.of(ClientAuthenticated)) == 1


async def test_two_servers_with_one_key_give_the_client_one_session_only() -> None:
    async with echo_server() as target, relay() as one:
        async with nostr_server(one.url) as first, nostr_server(one.url) as second:
            async with nostr_client(client_settings(target.url), one.url) as (running, _, _r):
                sock = await connect(("127.0.0.1", running.port()))
                await send(sock, b"hello")
                assert await read_exactly(sock, 5) == b"hello"
                sock.close()
                assert types(one.events).count("tunnel-offer-e") == 2
                joined = [*first.of(ClientAuthenticated), *second.of(ClientAuthenticated)]
                assert len(joined) == 1


async def test_a_client_whose_clock_is_wrong_is_told_at_the_server() -> None:
    async with relay() as one, nostr_server(one.url) as reports:
        settings = client_settings("tcp://127.0.0.1:22")
        async with nostr_client(settings, one.url, wall=lambda: wall_clock() - 100):
            await until(lambda: "s old; if that repeats, check both clocks" in reports.texts())
        assert types(one.events) and set(types(one.events)) <= {
            "tunnel-request",
            "tunnel-request-e",
        }


async def test_a_source_that_is_not_allowed_is_declined_by_name() -> None:
    async with relay() as one, nostr_server(one.url):
        async with nostr_client(client_settings("udp://192.0.2.1:53"), one.url) as (running, _, _r):
            await until(running.task.done)
            error = running.task.exception()
            assert isinstance(error, TargetError) and "Source 'udp://192.0.2.1:53'" in str(error)


async def test_a_server_is_ready_once_a_relay_delivers() -> None:
    async with relay() as one, nostr_server("ws://127.0.0.1:9/", one.url) as reports:
        await until(lambda: bool(reports.of(ServerReady)))
        [ready] = reports.of(ServerReady)
        assert ready.ways == (one.url,) and ready.endpoint_id.key == SERVER_KEY.public_key.key
