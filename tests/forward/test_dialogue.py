"""Tests of `tunnel_rs.forward.dialogue`."""

import asyncio

import pytest
from tests.support.memory_link import MemoryLink, MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import until

from tunnel_rs.errors import LinkClosedError, ProtocolError, StreamResetError
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.proto.messages import (
    SourceRequest,
    SourceResponse,
    decode_source_request,
    decode_source_response,
    encode,
)

REQUEST = encode(SourceRequest("tcp://10.0.0.1:22"))


async def opened(sizes: Sizes | None = None) -> tuple[MemoryLink, MemoryStream]:
    """The server's end of a link, and the client's end of a stream on it."""
    client, server = link_pair(sizes)
    return server, await client.open_stream()


async def accepted(server: MemoryLink) -> tuple[Dialogue, MemoryStream]:
    stream = await server.accept_stream()
    return Dialogue(stream), stream


async def test_a_question_and_its_answer_pass() -> None:
    server, stream = await opened()
    asking = Dialogue(stream)
    asking.send(SourceRequest("tcp://10.0.0.1:22"))
    answering, _ = await accepted(server)
    assert decode_source_request(await answering.receive()).source == "tcp://10.0.0.1:22"
    answering.send(SourceResponse(True))
    assert decode_source_response(await asking.receive()) == SourceResponse(True)


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_a_message_in_pieces_is_put_together(step: int) -> None:
    server, stream = await opened()
    for start in range(0, len(REQUEST), step):
        stream.write(REQUEST[start : start + step])
    dialogue, theirs = await accepted(server)
    assert b'"tcp://10.0.0.1:22"' in await dialogue.receive()
    assert theirs.unconsumed == 0


async def test_a_message_longer_than_the_window_arrives() -> None:
    server, stream = await opened(Sizes(window=1000, initial_window=1000))
    stream.write((16_384).to_bytes(4, "big") + bytes(16_384))
    dialogue, _ = await accepted(server)
    assert await dialogue.receive() == bytes(16_384)


async def test_payload_and_endings_behind_the_message_reach_the_next_receiver() -> None:
    server, stream = await opened()
    stream.write(REQUEST + b"early ")
    dialogue, theirs = await accepted(server)
    await dialogue.receive()
    stream.write(b"payload")
    stream.write_eof()
    await until(lambda: dialogue._eof)
    assert theirs.unconsumed == len(b"early payload")
    receiver = Recorder(theirs, attach=False)
    dialogue.hand_over(receiver)
    assert receiver.data == b"early payload"
    assert receiver.events == ["eof"]
    assert theirs.unconsumed == 0


async def test_what_happens_after_handing_over_goes_to_the_next_receiver() -> None:
    server, stream = await opened()
    stream.write(REQUEST)
    dialogue, theirs = await accepted(server)
    await dialogue.receive()
    receiver = Recorder(theirs, attach=False)
    dialogue.hand_over(receiver)
    stream.write(b"payload")
    await until(lambda: receiver.data == b"payload")
    stream.reset(5)
    await until(lambda: receiver.events == ["reset 5"])


async def test_a_pause_a_stop_a_reset_and_a_loss_are_handed_on() -> None:
    server, stream = await opened()
    stream.write(REQUEST)
    dialogue, theirs = await accepted(server)
    await dialogue.receive()
    dialogue.pause_writing()
    stream.stop(4)
    stream.reset(5)
    await until(lambda: dialogue._lost)
    receiver = Recorder(theirs, attach=False)
    dialogue.hand_over(receiver)
    assert receiver.events == ["pause", "stop 4", "reset 5"]
    assert receiver.lost == [None]


async def test_a_resumed_stream_is_not_handed_on_as_paused() -> None:
    server, stream = await opened()
    stream.write(REQUEST)
    dialogue, theirs = await accepted(server)
    dialogue.pause_writing()
    dialogue.resume_writing()
    receiver = Recorder(theirs, attach=False)
    dialogue.hand_over(receiver)
    assert receiver.events == []


async def test_a_huge_length_is_refused_with_its_first_four_bytes() -> None:
    server, stream = await opened()
    stream.write(b"\xff\xff\xff\xff")
    dialogue, _ = await accepted(server)
    with pytest.raises(ProtocolError, match="4294967295"):
        await dialogue.receive()


async def test_garbage_after_a_refusal_is_not_collected() -> None:
    server, stream = await opened()
    stream.write(b"\xff\xff\xff\xff")
    dialogue, theirs = await accepted(server)
    with pytest.raises(ProtocolError):
        await dialogue.receive()
    dialogue.finish(SourceResponse(False, "too long"))
    stream.write(bytes(1_000_000))
    await until(lambda: theirs.link.streams == {})
    assert theirs.unconsumed == 0


@pytest.mark.parametrize(
    ("sent", "words"),
    [(b"", "without a message"), (REQUEST[:9], "in the middle of a message")],
)
async def test_an_end_before_the_message_is_a_protocol_error(sent: bytes, words: str) -> None:
    server, stream = await opened()
    stream.write(sent)
    stream.write_eof()
    dialogue, _ = await accepted(server)
    with pytest.raises(ProtocolError, match=words):
        await dialogue.receive()


async def test_a_reset_before_the_message_is_told_with_its_code() -> None:
    server, stream = await opened()
    stream.reset(9)
    dialogue, _ = await accepted(server)
    with pytest.raises(StreamResetError) as caught:
        await dialogue.receive()
    assert caught.value.code == 9


async def test_the_loss_of_the_link_ends_the_wait() -> None:
    server, stream = await opened()
    stream.write(REQUEST[:3])
    dialogue, _ = await accepted(server)
    server.lose("gone")
    with pytest.raises(LinkClosedError, match="gone"):
        await dialogue.receive()
    dialogue.finish(SourceResponse(True))  # harmless now
    dialogue.abandon()


async def test_a_wait_that_was_given_up_can_be_taken_up_again() -> None:
    server, stream = await opened()
    stream.write(REQUEST[:3])
    dialogue, _ = await accepted(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await dialogue.receive()
    stream.write(REQUEST[3:])
    assert await dialogue.receive()


async def test_finishing_sends_the_answer_and_ends_both_directions() -> None:
    server, stream = await opened()
    asking = Dialogue(stream)
    asking.send(SourceRequest("tcp://10.0.0.1:22"))
    answering, _ = await accepted(server)
    await answering.receive()
    answering.finish(SourceResponse(False, "no"))
    answering.finish(SourceResponse(False, "no"))
    assert decode_source_response(await asking.receive()) == SourceResponse(False, "no")
    asking.finish()
    await until(lambda: not server.streams and not server.other.streams)


async def test_a_late_end_of_an_auth_stream_is_not_answered_with_a_stop() -> None:
    server, stream = await opened()
    stream.write(REQUEST)
    far = Recorder(stream)
    dialogue, theirs = await accepted(server)
    await dialogue.receive()
    dialogue.finish(SourceResponse(True), stop=False)
    await until(lambda: far.events == ["eof"])
    stream.write_eof()
    await until(lambda: far.lost == [None])
    assert far.events == ["eof"]


async def test_more_than_the_end_of_an_auth_stream_is_answered_with_a_stop() -> None:
    server, stream = await opened()
    stream.write(REQUEST)
    far = Recorder(stream)
    dialogue, theirs = await accepted(server)
    await dialogue.receive()
    dialogue.finish(SourceResponse(True), stop=False)
    stream.write(bytes(100))
    await until(lambda: far.events == ["eof", "stop 0"])
    assert theirs.unconsumed == 0


async def test_abandoning_resets_the_stream() -> None:
    server, stream = await opened()
    stream.write(REQUEST)
    far = Recorder(stream)
    dialogue, _ = await accepted(server)
    dialogue.abandon()
    dialogue.abandon()
    await until(lambda: sorted(far.events) == ["reset 0", "stop 0"])
