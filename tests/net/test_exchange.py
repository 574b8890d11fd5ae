"""Tests of `tunnel_rs.net.exchange`; with real messages it is tested in `forward.test_dialogue`."""

import pytest
from tests.support.memory_link import MemoryStream, link_pair
from tests.support.recorder import Recorder

from tunnel_rs.errors import LinkClosedError, ProtocolError
from tunnel_rs.net.exchange import Exchange


async def pair_of_exchanges() -> tuple[Exchange, Exchange]:
    client, server = link_pair()
    stream = await client.open_stream()
    stream.write(b"\0\0\0\2hi")
    return Exchange(stream), Exchange(await server.accept_stream())


async def test_bodies_pass_in_both_directions() -> None:
    ours, theirs = await pair_of_exchanges()
    theirs.finish_encoded(b"\0\0\0\5hello")
    assert await theirs.receive() == b"hi"
    assert await ours.receive() == b"hello"


async def test_what_came_behind_the_message_is_handed_over() -> None:
    client, server = link_pair()
    stream = await client.open_stream()
    stream.write(b"\0\0\0\2hipayload")
    theirs = Exchange(await server.accept_stream())
    assert await theirs.receive() == b"hi"
    assert isinstance(theirs.stream, MemoryStream)
    recorder = Recorder(theirs.stream, attach=False)
    theirs.hand_over(recorder)
    assert recorder.data == b"payload"


async def test_a_stream_that_ends_without_a_message_is_an_error() -> None:
    ours, theirs = await pair_of_exchanges()
    theirs.finish_encoded()
    with pytest.raises(ProtocolError, match="without a message"):
        await ours.receive()


async def test_a_lost_link_ends_the_waiting() -> None:
    client, _ = link_pair()
    exchange = Exchange(await client.open_stream())
    client.lose("gone")
    with pytest.raises(LinkClosedError, match="gone"):
        await exchange.receive()
