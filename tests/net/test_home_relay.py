"""Staying at home on one relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.relay_network import Inbox, relay_server, until, url_of
from tests.support.relay_peers import identity

from tunnel_rs.net import home_relay, relay_probe
from tunnel_rs.net.home_relay import HomeRelay
from tunnel_rs.net.relay_face import RelayFace
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.values import SocketAddr


@asynccontextmanager
async def at_home(
    *relays: RelayUrl,
) -> AsyncIterator[tuple[HomeRelay, "asyncio.Queue[str | None]"]]:
    told: asyncio.Queue[str | None] = asyncio.Queue()
    homes: list[HomeRelay] = []
    face = RelayFace(
        identity(1), Inbox(), relays=relays, on_state=lambda s: homes[0].state_changed(s)
    )
    homes.append(HomeRelay(face, relays, told.put_nowait))
    homes[0].start()
    try:
        yield homes[0], told
    finally:
        await homes[0].close()
        await face.close()


def restarted(server: RelayServer) -> SocketAddr:
    return SocketAddr("127.0.0.1", server.addresses.http.port)


async def test_the_only_relay_is_home_and_is_told_once_connected() -> None:
    async with relay_server() as server, at_home(url_of(server)) as (home, told):
        assert home.url is None
        assert await told.get() == url_of(server).text == home.url


async def test_of_two_relays_the_one_that_answers_is_home() -> None:
    dead = RelayUrl.parse("http://127.0.0.1:9/")
    async with relay_server() as server, at_home(dead, url_of(server)) as (_, told):
        assert await told.get() == url_of(server).text


async def test_when_the_home_dies_another_relay_becomes_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(home_relay, "LOSS_PATIENCE", 0.05)
    async with relay_server() as one, relay_server() as two:
        async with at_home(url_of(one), url_of(two)) as (_, told):
            servers = {url_of(one).text: one, url_of(two).text: two}
            first = await told.get()
            assert first is not None
            await servers.pop(first).close()
            assert await told.get() is None
            assert await told.get() == next(iter(servers))


async def test_a_home_that_is_back_at_once_is_kept() -> None:
    async with relay_server() as one, relay_server() as two:
        async with at_home(url_of(one), url_of(two)) as (home, told):
            first = await told.get()
            server = one if first == url_of(one).text else two
            await server.close()
            assert await told.get() is None
            async with relay_server(http_bind_addr=restarted(server)):
                assert await told.get() == first == home.url


@pytest.mark.parametrize("which", [0, 1])
async def test_when_all_relays_died_the_first_to_come_back_is_home(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_relay, "LOSS_PATIENCE", 0.02)
    monkeypatch.setattr(home_relay, "SEARCH_EVERY", 0.05)
    async with relay_server() as one, relay_server() as two:
        async with at_home(url_of(one), url_of(two)) as (home, told):
            await told.get()
            await one.close()
            await two.close()
            await until(lambda: home.url is None and len(home._choice._failed) == 2)
            back = (one, two)[which]
            async with relay_server(http_bind_addr=restarted(back)):
                await until(lambda: home.url == url_of(back).text)


async def test_a_network_change_measures_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: asyncio.Queue[str] = asyncio.Queue()

    async def fake(relay: RelayUrl, session: object) -> float | None:
        measured.put_nowait(relay.text)
        return 0.1

    monkeypatch.setattr(home_relay, "measure", fake)
    async with relay_server() as one, relay_server() as two:
        async with at_home(url_of(one), url_of(two)) as (home, told):
            await told.get()
            assert measured.qsize() == 2
            home.network_changed()
            await until(lambda: measured.qsize() == 4)


async def test_without_relays_there_is_no_home() -> None:
    async with at_home() as (home, told):
        home.network_changed()
        assert home.url is None and told.empty()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what comes, and say nothing."""
    await reader.read()
    writer.close()


async def test_a_relay_that_says_nothing_does_not_hold_up_the_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(home_relay, "STRAGGLER_TIME", 0.05)
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, relay_server() as server:
        mute = RelayUrl.parse(f"http://127.0.0.1:{port}")
        began = asyncio.get_running_loop().time()
        async with at_home(mute, url_of(server)) as (_, told):
            assert await told.get() == url_of(server).text
        assert asyncio.get_running_loop().time() - began < relay_probe.PROBE_TIMEOUT


async def test_relays_that_cannot_be_measured_are_connected_to_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unanswered(*_: object) -> None:
        return None

    monkeypatch.setattr(home_relay, "measure", unanswered)
    async with relay_server() as one, relay_server() as two:
        async with at_home(url_of(one), url_of(two)) as (_, told):
            assert await told.get() == url_of(one).text
