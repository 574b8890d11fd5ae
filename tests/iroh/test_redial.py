"""Tests of `tunnel_rs.iroh.redial`: real endpoints on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.endpoints import End, open_end
from tests.support.sockets import until

from tunnel_rs.iroh import redial as module
from tunnel_rs.iroh.redial import Redial
from tunnel_rs.iroh.ways import GivenAddresses
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.transport_settings import TransportSettings


class Scene:
    def __init__(self, client: End, server: End, connection: QuicConnection) -> None:
        self.client, self.server, self.connection = client, server, connection
        self.tasks = TaskScope("test")
        self.found: list[QuicConnection] = []
        self.redial = Redial(
            client.quic,
            connection,
            server.id,
            lambda: [GivenAddresses([server.socket.address])],
            TransportSettings(),
            self.tasks,
            self.found.append,
        )


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    server, client = open_end(1, accept=True), open_end(2)
    connection = client.dial(server)
    await connection.handshaken
    await server.quic.accept()
    one = Scene(client, server, connection)
    try:
        yield one
    finally:
        await one.tasks.aclose()
        client.quic.close(0, "done")
        server.quic.close(0, "done")


async def test_a_server_that_has_lost_us_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_CHANCE", 0.2)
    async with scene() as one:
        monkeypatch.setattr(one.connection.engine, "silent_for", lambda _: 12.0)
        one.redial.start()
        one.redial.start()
        await until(lambda: bool(one.found))
        assert one.found[0].peer == one.server.id
        assert str(await one.connection.wait_closed()) == "the server has lost the connection"


async def test_a_connection_that_answers_after_all_is_kept() -> None:
    async with scene() as one:
        one.redial.start()
        await one.tasks.join()
        assert one.found == []
        assert not one.connection.engine.is_closing


async def test_who_is_heard_again_is_not_dialled_any_longer() -> None:
    async with scene() as one:
        one.server.path.cut = True
        one.redial.start()
        await asyncio.sleep(0)
        one.redial.cancel()
        one.redial.cancel()
        await one.tasks.join()
        assert one.found == []


async def test_it_is_tried_again_until_somebody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONE_TRY", 0.05)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    async with scene() as one:
        one.server.path.cut = True
        one.redial.start()
        sent = len(one.client.path.sent)
        await until(lambda: len(one.client.path.sent) > sent + 3)
        monkeypatch.setattr(module, "ONE_TRY", 5.0)
        one.server.path.cut = False
        await one.tasks.join()
        assert not one.connection.engine.is_closing
