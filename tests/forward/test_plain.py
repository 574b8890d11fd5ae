import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.forwarding import LOOPBACK
from tests.support.memory_link import link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import echo_server, until

from tunnel_rs.errors import LinkClosedError, StreamResetError, TargetError
from tunnel_rs.forward.plain import HeadDecoder, PlainStreams, SharedUdpStream, accept_plain
from tunnel_rs.forward.server import ForwardServer
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.messages import SourceResponse
from tunnel_rs.values import SourceUrl

TCP = SourceUrl.parse("tcp://127.0.0.1:22")
UDP = SourceUrl.parse("udp://127.0.0.1:53")


@given(st.binary(max_size=50), st.integers(0, 5), st.integers(1, 7))
def test_the_head_is_skipped_however_it_comes(data: bytes, length: int, size: int) -> None:
    decoder = HeadDecoder(length)
    found = bytearray()
    ready = False
    for start in range(0, len(data), size):
        if ready:
            found += data[start : start + size]
            continue
        decoder.feed(data[start : start + size])
        if decoder.next_message() is not None:
            ready = True
            found += decoder.take_rest()
            assert decoder.at_boundary
    if ready:
        assert bytes(found) == data[length:]


async def test_a_tcp_stream_begins_with_one_byte_of_no_meaning() -> None:
    ours, theirs = link_pair()
    dialogue = await PlainStreams(ours, TCP).request(TCP)
    recorder = Recorder(dialogue.stream, attach=False)
    dialogue.hand_over(recorder)
    dialogue.stream.write(b"hello")
    accepted = accept_plain(await theirs.accept_stream(), TCP)
    await accepted.receive()
    there = Recorder(accepted.stream, attach=False)
    accepted.hand_over(there)
    await until(lambda: bytes(there.data) == b"hello")
    ours.close(0, "done")


async def test_another_source_than_the_link_s_is_refused() -> None:
    ours, _ = link_pair()
    with pytest.raises(TargetError, match="carries tcp://127.0.0.1:22 only"):
        await PlainStreams(ours, TCP).request(UDP)
    ours.close(0, "done")


async def test_a_refusal_is_the_end_of_the_stream() -> None:
    ours, theirs = link_pair()
    stream = await ours.open_stream()
    recorder = Recorder(stream)
    stream.write(b"\0x")
    accepted = accept_plain(await theirs.accept_stream(), TCP)
    await accepted.receive()
    accepted.finish(SourceResponse(False, "no"))
    await until(lambda: "eof" in recorder.events)
    assert not recorder.data
    ours.close(0, "done")


async def test_a_stream_without_its_head_is_an_error() -> None:
    ours, theirs = link_pair()
    stream = await ours.open_stream()
    stream.reset(0)
    accepted = accept_plain(await theirs.accept_stream(), TCP)
    with pytest.raises(StreamResetError):
        await accepted.receive()
    ours.close(0, "done")


async def test_udp_flows_share_one_stream_and_the_last_sender_gets_what_comes() -> None:
    ours, theirs = link_pair()
    streams = PlainStreams(ours, UDP)
    one, two = await asyncio.gather(streams.request(UDP), streams.request(UDP))
    first, second = (Recorder(d.stream, attach=False) for d in (one, two))
    one.hand_over(first)
    two.hand_over(second)
    one.stream.write(b"\0\1a")
    two.stream.write(b"\0\1b")
    there = await theirs.accept_stream()
    server = Recorder(there)
    await until(lambda: bytes(server.data) == b"\0\1a\0\1b")
    there.write(b"\0\1B")
    await until(lambda: bytes(second.data) == b"\0\1B")
    one.stream.write(b"\0\1a")
    await until(lambda: len(server.data) == 9)
    there.write(b"\0")
    there.write(b"\1A")
    await until(lambda: bytes(first.data) == b"\0\1A")
    one.stream.write_eof()
    two.stream.write(b"\0\1c")
    await until(lambda: len(server.data) == 12)
    assert "eof" not in server.events
    ours.close(0, "done")


async def test_the_end_of_the_shared_stream_ends_all_flows_and_the_next_opens_another() -> None:
    ours, theirs = link_pair()
    streams = PlainStreams(ours, UDP)
    one = await streams.request(UDP)
    recorder = Recorder(one.stream, attach=False)
    one.hand_over(recorder)
    one.stream.write(b"\0\0")
    (await theirs.accept_stream()).write_eof()
    await until(lambda: bool(recorder.lost))
    two = await streams.request(UDP)
    two.stream.write(b"\0\0")
    await theirs.accept_stream()
    ours.close(0, "done")


async def test_a_lost_link_is_told_to_every_flow() -> None:
    ours, _ = link_pair()
    shared = SharedUdpStream(await ours.open_stream())
    shares = [shared.share() for _ in range(3)]
    recorders = [Recorder(share, attach=False) for share in shares]
    for share, recorder in zip(shares, recorders, strict=True):
        share.set_receiver(recorder)
    ours.close(0, "done")
    await until(lambda: all(recorder.lost for recorder in recorders))
    assert all(isinstance(r.lost[0], LinkClosedError) for r in recorders if r.lost)
    shares[0].write(b"\0\0")


async def test_a_server_serves_a_link_with_a_fixed_source() -> None:
    async with echo_server() as target:
        ours, theirs = link_pair()
        theirs.fixed_source = SourceUrl.parse(target.url)
        server = ForwardServer(ServerSettings(LOOPBACK, (), access=of_tokens()))
        serving = asyncio.create_task(server.serve(theirs, authenticated=True))
        stream = await ours.open_stream()
        recorder = Recorder(stream)
        stream.write(b"\0hello")
        await until(lambda: bytes(recorder.data) == b"hello")
        stream.write_eof()
        await until(lambda: "eof" in recorder.events)
        ours.close(0, "done")
        await serving
        await server.close(timeout=0)
