"""Tests of `tunnel_rs.iroh.roaming`: real endpoints on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.endpoints import End, open_end
from tests.support.sockets import until

from tunnel_rs.errors import LinkClosedError, UnreachableError
from tunnel_rs.iroh import roaming as module
from tunnel_rs.iroh.roaming import Roaming
from tunnel_rs.iroh.ways import GivenAddresses
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import silent


class Scene:
    def __init__(self, client: End, server: End, **options: Any) -> None:
        self.client, self.server = client, server
        self.tasks = TaskScope("test")
        self.found_again = 0
        self.roaming = Roaming(
            client.quic,
            TransportSettings(),
            silent,
            self.tasks,
            on_found_again=self._found,
            **options,
        )

    def _found(self) -> None:
        self.found_again += 1

    async def dialled(self) -> QuicConnection:
        connection = self.client.dial(self.server)
        await connection.handshaken
        await self.server.quic.accept()
        ways = lambda: [GivenAddresses([self.server.socket.address])]  # noqa: E731
        self.roaming.dialled(connection, [self.server.address], ways, ways())
        return connection


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[Scene]:
    server, client = open_end(1, accept=True), open_end(2)
    one = Scene(client, server, **options)
    try:
        yield one
    finally:
        one.roaming.close()
        await one.tasks.aclose()
        client.quic.close(0, "done")
        server.quic.close(0, "done")


async def test_a_dialled_connection_is_steered_and_silence_does_not_end_it() -> None:
    async with scene() as one:
        connection = await one.dialled()
        assert connection.engine.is_multipath
        assert connection.engine._silence_timeout is None
        assert list(one.roaming._steered) == [connection]


async def test_connections_that_have_ended_are_forgotten() -> None:
    async with scene() as one:
        first = await one.dialled()
        first.close(0, "done")
        [keeper] = one.roaming._keepers
        await until(lambda: not keeper.is_running)
        second = await one.dialled()
        assert list(one.roaming._steered) == [second]
        assert len(one.roaming._keepers) == 1


async def test_a_change_of_the_network_reaches_every_connection() -> None:
    async with scene() as one:
        connection = await one.dialled()
        sent = len(one.client.path.sent)
        one.roaming.network_changed()
        assert connection.engine.get_timer() is not None
        await until(lambda: len(one.client.path.sent) > sent)


async def test_direct_only_is_content_with_a_direct_path() -> None:
    async with scene(direct_only=True) as one:
        connection = await one.dialled()
        await one.roaming.until_direct(timeout=5)
        assert not connection.engine.is_closing


async def test_direct_only_gives_up_what_stays_on_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_relayed", lambda _: True)
    async with scene(direct_only=True) as one:
        await one.dialled()
        with pytest.raises(UnreachableError, match="leave out --direct-only"):
            await one.roaming.until_direct(timeout=0.05)


async def test_direct_only_does_not_wait_for_a_connection_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "is_relayed", lambda _: True)
    async with scene(direct_only=True) as one:
        connection = await one.dialled()
        waiting = asyncio.create_task(one.roaming.until_direct(timeout=10))
        await asyncio.sleep(0)
        connection.close(0, "enough")
        with pytest.raises(LinkClosedError, match="enough"):
            await waiting


@pytest.mark.parametrize("direct_only", [False, True])
async def test_a_spare_over_a_relay_is_looked_for_unless_all_is_to_be_direct(
    direct_only: bool,
) -> None:
    async with scene(direct_only=direct_only) as one:
        await one.dialled()
        [keeper] = one.roaming._keepers
        assert bool(keeper._spare_ways) != direct_only


async def test_while_the_latest_connection_is_up_and_on_no_relay_we_are_direct(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene() as one:
        assert not one.roaming.is_direct
        connection = await one.dialled()
        assert one.roaming.is_direct
        with monkeypatch.context() as patch:
            patch.setattr(module, "is_relayed", lambda _: True)
            assert not one.roaming.is_direct
        connection.close(0, "done")
        assert not one.roaming.is_direct


async def test_what_happens_to_the_data_path_is_told() -> None:
    told: list[str] = []
    options = {
        "on_path": lambda: told.append("another path"),
        "on_direct_failed": lambda: told.append("failed"),
    }
    async with scene(**options) as one:
        connection = await one.dialled()
        connection.on_path_failed(one.server.address)
        one.roaming._keepers[0]._on_path()
        assert told == ["failed", "another path"]


async def test_a_server_found_again_is_handed_out_once() -> None:
    async with scene() as one:
        connection = await one.dialled()
        one.roaming._lost(connection)
        assert one.found_again == 1
        assert one.roaming.take(one.server.id) is connection
        assert one.roaming.take(one.server.id) is None
        one.roaming._lost(connection)
        connection.close(0, "gone meanwhile")
        assert one.roaming.take(one.server.id) is None


async def test_a_peer_that_dialled_us_is_steered_too() -> None:
    async with scene() as one:
        connection = one.client.dial(one.server)
        await connection.handshaken
        accepted = await one.server.quic.accept()
        server = Roaming(one.server.quic, TransportSettings(), silent, one.tasks)
        server.accepted(accepted)
        assert list(server._steered) == [accepted]
        server.close()
