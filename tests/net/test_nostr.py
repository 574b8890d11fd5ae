import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

from tests.support.ice_scene import CLIENT_KEY, SERVER_KEY, Reports
from tests.support.nostr_relay import Behaviour, relay
from tests.support.sockets import until

from tunnel_rs.net import nostr
from tunnel_rs.net.nostr import NostrRelays
from tunnel_rs.proto.nostr_events import Conversation, Event, EventType

NOW = 1_700_000_000
SPEAKER = Conversation(CLIENT_KEY, SERVER_KEY.public_key, lambda n: bytes(n))
LISTENER = Conversation(SERVER_KEY, CLIENT_KEY.public_key, lambda n: bytes(n))


def event(number: int = 0) -> Event:
    return SPEAKER.event(EventType.REQUEST, b"%d" % number, NOW, encrypted=False)


@asynccontextmanager
async def pool(*urls: str) -> Any:
    """A listener's relays, what they brought, and what they reported."""
    arrived: list[Event] = []
    reports = Reports()
    relays = NostrRelays(
        urls,
        LISTENER.filter,
        lambda url, challenge: LISTENER.auth_event(url, challenge, NOW),
        arrived.append,
        reports,
        random=lambda: 0.0,
    )
    async with relays:
        yield relays, arrived, reports


async def test_an_event_of_several_relays_is_handed_on_once() -> None:
    async with relay() as one, relay() as two, pool(one.url, two.url) as (relays, arrived, _):
        await until(lambda: len(relays.connected) == 2)
        same = event().as_json()
        for each in (one, two):
            await each.deliver(same)
            await each.deliver(same)
        await one.deliver(event(1).as_json())
        await until(lambda: event(1).content in [e.content for e in arrived])
        assert len(arrived) == 2


async def test_a_forged_copy_does_not_hide_the_true_event() -> None:
    async with relay() as one, pool(one.url) as (relays, arrived, _):
        await relays.wait_subscribed(5)
        true = event().as_json()
        await one.deliver({**true, "sig": "00" * 64})
        await one.deliver({**true, "content": "x"})
        await one.deliver(true)
        await until(lambda: len(arrived) == 2)
        understood = [LISTENER.understand(each) is not None for each in arrived]
        assert understood == [False, True]


async def test_a_relay_that_closes_the_subscription_is_asked_again() -> None:
    async with relay(Behaviour(closes_first=1)) as one, pool(one.url) as (relays, _, reports):
        assert await relays.wait_subscribed(10)
        assert one.requests == 2 and "tired" in reports.texts("debug")


async def test_a_relay_that_wants_to_know_who_we_are_is_told() -> None:
    async with relay(Behaviour(wants_auth=True)) as one, pool(one.url) as (relays, _, _r):
        assert await relays.wait_subscribed(10)


async def test_a_lost_relay_is_connected_to_again_and_gets_what_was_just_said() -> None:
    async with relay() as one, pool(one.url) as (relays, _, _r):
        await relays.wait_subscribed(5)
        relays.publish(event())
        await until(lambda: len(one.events) == 1)
        await one.drop_connections()
        await until(lambda: not one.sockets)
        async with asyncio.timeout(10):
            while len(one.events) < 2:
                one.changed.clear()
                await one.changed.wait()
        assert one.events[0]["id"] == one.events[1]["id"]


async def test_a_refusal_is_told_and_when_all_refuse_twice(monkeypatch: Any) -> None:
    monkeypatch.setattr(nostr, "VERDICT_PATIENCE", 0.3)
    async with relay(Behaviour(refuses="blocked: kind")) as one:
        async with pool(one.url) as (relays, _, reports):
            await relays.wait_subscribed(5)
            relays.publish(event())
            await until(lambda: "all that answered refused it" in reports.texts("warning"))
            assert f"{one.url} refuses our event: blocked: kind" in reports.texts("warning")


async def test_what_is_no_relay_is_told() -> None:
    async with pool("ws://127.0.0.1:9/") as (relays, _, reports):
        assert not await relays.wait_subscribed(0.2)
        await until(lambda: "trying again in 1 s" in reports.texts("warning"))


async def test_nonsense_from_a_relay_is_ignored() -> None:
    async with relay() as one, pool(one.url) as (relays, arrived, reports):
        await relays.wait_subscribed(5)
        [socket] = one.sockets
        for text in ("x", "[]", "{}", json.dumps(["EVENT", "tunnel", {"id": 1}])):
            await socket.send_str(text)
        await one.deliver(event().as_json())
        await until(lambda: len(arrived) == 1)
        assert "internal error" not in reports.texts()


async def test_a_message_of_any_size_does_not_fill_the_memory() -> None:
    async with relay() as one, pool(one.url) as (relays, arrived, _):
        await relays.wait_subscribed(5)
        [socket] = one.sockets
        await socket.send_str("x" * 1_000_000)
        await until(lambda: not relays.connected)
        assert not arrived
