"""All relays as one way to send and receive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.relay_network import Inbox, States, relay_client, relay_server, until, url_of
from tests.support.relay_peers import identity

from tunnel_rs.net import relay_face
from tunnel_rs.net.relay_face import RelayFace
from tunnel_rs.proto.relay_access import SharedToken
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.values import Secret

ALICE, BOB = identity(1).endpoint_id, identity(2).endpoint_id


@asynccontextmanager
async def face(who: int, **options: Any) -> AsyncIterator[tuple[RelayFace, Inbox]]:
    inbox = Inbox()
    relays = RelayFace(identity(who), inbox, **options)
    try:
        yield relays, inbox
    finally:
        await relays.close()
        await relays.close()


async def test_two_faces_exchange_trains_over_a_relay() -> None:
    async with relay_server() as server, face(1) as (alice, mail_a), face(2) as (bob, mail_b):
        url = url_of(server).text
        bob.keep(url)
        await bob.wait_connected(url)
        assert alice.send_train(memoryview(b"aabbc"), 2, RelayAddr(url, BOB))
        assert await mail_b.next() == (b"aabbc", 2, RelayAddr(url, ALICE))
        assert bob.send_train(memoryview(b"back"), 4, RelayAddr(url, ALICE))
        assert await mail_a.next() == (b"back", 4, RelayAddr(url, BOB))
        assert alice.connected == bob.connected == [url]


async def test_several_relays_are_used_side_by_side() -> None:
    async with (
        relay_server() as one,
        relay_server() as two,
        face(1) as (alice, _),
        relay_client(url_of(one), 2) as (on_one, mail_1),
        relay_client(url_of(two), 2) as (on_two, mail_2),
    ):
        await on_one.wait_up()
        await on_two.wait_up()
        for server, mail in ((one, mail_1), (two, mail_2)):
            url = url_of(server).text
            assert alice.send_train(memoryview(b"x"), 1, RelayAddr(url, BOB))
            assert (await mail.next())[2] == RelayAddr(url, ALICE)


async def test_the_token_of_a_known_relay_is_used() -> None:
    async with relay_server(access=SharedToken((Secret("t"),))) as server:
        known = url_of(server)._replace(token=Secret("t"))
        async with face(1, relays=(known,)) as (alice, _):
            await alice.wait_connected(known.text)


@pytest.mark.parametrize("url", ["", "nonsense", "HTTP://h/", "http://h:80/", "http://h/?token=x"])
async def test_an_address_that_is_no_relay_url_in_normal_form_is_dropped(url: str) -> None:
    async with face(1) as (alice, _):
        assert not alice.send_train(memoryview(b"x"), 1, RelayAddr(url, BOB))
        assert not alice._clients


async def test_keeping_what_is_no_relay_url_raises() -> None:
    async with face(1) as (alice, _):
        with pytest.raises(ValueError, match="must start with"):
            alice.keep("nonsense")


async def test_the_number_of_relays_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_face, "MAX_RELAYS", 2)
    async with face(1) as (alice, _):
        alice.keep("http://127.0.0.1:1/")
        alice.keep("http://127.0.0.1:2/")
        assert not alice.send_train(memoryview(b"x"), 1, RelayAddr("http://127.0.0.1:3/", BOB))
        with pytest.raises(RuntimeError, match="no room"):
            alice.keep("http://127.0.0.1:3/")
        alice.release("http://127.0.0.1:1/")
        assert alice.send_train(memoryview(b"x"), 1, RelayAddr("http://127.0.0.1:3/", BOB))
        assert set(alice._clients) == {"http://127.0.0.1:2/", "http://127.0.0.1:3/"}


async def test_an_idle_relay_is_left_and_the_home_is_not() -> None:
    states = States()
    async with relay_server() as home, relay_server() as other:
        async with face(1, idle_limit=0.5, on_state=states) as (alice, _):
            alice.keep(url_of(home).text)
            await alice.wait_connected(url_of(home).text)
            await alice.wait_connected(url_of(other).text)
            await until(lambda: not len(other._roster))
            assert alice.connected == [url_of(home).text]
            alice.release(url_of(home).text)
            await until(lambda: not len(home._roster))
            assert alice.connected == []


async def test_a_closed_face_sends_nothing_and_leaves_no_task() -> None:
    async with relay_server() as server:
        url = url_of(server).text
        async with face(1) as (alice, _):
            await alice.wait_connected(url)
            assert (alice.round_trip(url) or 0) < 1 and alice.round_trip("http://h/") is None
            alice.retry_now()
            await alice.close()
            assert not alice.send_train(memoryview(b"x"), 1, RelayAddr(url, BOB))
            with pytest.raises(RuntimeError, match="no room"):
                await alice.wait_connected(url)
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert not [name for name in names if name.startswith("relay http")]


async def test_our_home_finds_room_even_when_peers_relays_fill_the_face(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_face, "MAX_RELAYS", 1)
    async with relay_server() as home, relay_server() as other, face(1) as (alice, _):
        await alice.wait_connected(url_of(other).text)
        train = memoryview(b"x")
        assert not alice.send_train(train, 1, RelayAddr(url_of(home).text, BOB))
        alice.keep(url_of(home).text)
        await alice.wait_connected(url_of(home).text)
        assert alice.connected == [url_of(home).text]
