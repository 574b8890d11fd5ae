import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.support.ice_scene import SESSION, Reports
from tests.support.sockets import until

from tunnel_rs.errors import LinkClosedError, UnreachableError, WrongPeerError
from tunnel_rs.ice import session as module
from tunnel_rs.ice.session import IceSession
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.proto.certificates import Certificate


@asynccontextmanager
async def sessions(**changes: Any) -> Any:
    settings = replace(SESSION, **changes)
    both = [IceSession(settings, Reports(), SystemResolver(), controlling=c) for c in (True, False)]
    try:
        yield both
    finally:
        for each in both:
            await each.close()
            await each.close()


@asynccontextmanager
async def linked() -> Any:
    async with sessions() as (client, server):
        here, there = await asyncio.gather(client.gather(), server.gather())
        yield await asyncio.gather(
            client.dial(there, server.certificate.fingerprint, None),
            server.accept(here, client=client.certificate.fingerprint, fixed_source=None),
        )


async def test_both_ends_are_known_by_their_certificates() -> None:
    async with linked() as (ours, theirs):
        assert ours.peer != theirs.peer and ours.fixed_source is None
        stream = await ours.open_stream()
        stream.write(b"x")
        assert (await theirs.accept_stream()).stream_id == stream.stream_id
        await ours.drain()
        assert ours.address.startswith("direct, 127.0.0.1:")


async def test_an_orderly_end_is_told_to_the_other_side() -> None:
    async with linked() as (ours, theirs):
        ours.close(0, "done")
        ended = await theirs.wait_closed()
        assert isinstance(ended, LinkClosedError) and ended.by_application and ended.by_peer


async def test_a_dead_path_is_noticed_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.KEEP_ALIVE + module.SILENCE < 10
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.1)
    monkeypatch.setattr(module, "SILENCE", 0.3)
    async with linked() as (ours, theirs):
        ours._agent.face.send_train = lambda *_: True
        theirs._agent.face.send_train = lambda *_: True
        for link in (ours, theirs):
            ended = await link.wait_closed()
            assert isinstance(ended, LinkClosedError) and not ended.by_peer and ended.transient


async def test_lost_consent_ends_the_link() -> None:
    async with linked() as (ours, _):
        ours._agent._connection.on_consent_lost()
        assert "ice disconnected" in str(await ours.wait_closed())


async def test_a_wrong_fingerprint_never_connects() -> None:
    async with sessions() as (client, server):
        here, there = await asyncio.gather(client.gather(), server.gather())
        accepting = asyncio.create_task(server.accept(here, client=None, fixed_source=None))
        with pytest.raises(WrongPeerError, match="not the one it announced"):
            await client.dial(there, Certificate().fingerprint, None)
        assert not accepting.done()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)


async def test_a_client_that_never_speaks_quic_is_given_up() -> None:
    async with sessions(handshake_timeout=0.2) as (client, server):
        here, there = await asyncio.gather(client.gather(), server.gather())
        meeting = asyncio.create_task(client._agent.connect(there, timeout=5))
        with pytest.raises(UnreachableError, match="began no QUIC connection"):
            await server.accept(here, client=None, fixed_source=None)
        await meeting


async def test_a_server_that_never_speaks_quic_is_given_up() -> None:
    async with sessions(handshake_timeout=0.2) as (client, server):
        here, there = await asyncio.gather(client.gather(), server.gather())
        meeting = asyncio.create_task(server._agent.connect(here, timeout=5))
        with pytest.raises(UnreachableError, match="did not answer on it"):
            await client.dial(there, server.certificate.fingerprint, None)
        await until(meeting.done)
