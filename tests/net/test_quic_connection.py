"""Tests of `tunnel_rs.net.quic_connection`: two endpoints of ours on loopback, against the contract
of `net.link`. Times are those of a clock that jumps."""

import asyncio
import gc
import hashlib
import os
import weakref
from typing import Any

import pytest
from tests.support.endpoints import DEFAULTS, Pair, connected, open_end, until
from tests.support.tape import Tape
from tests.support.virtual_time import turns, virtual_time

from tunnel_rs.errors import LinkClosedError, UnreachableError, WrongPeerError
from tunnel_rs.net import quic_connection
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.proto.transport_settings import TransportSettings

BOTH_ENGINES = pytest.mark.parametrize("fast", [True, False], ids=["fast path", "aioquic"])
BOTH_FAMILIES = pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0"], ids=["IPv4", "IPv6"])


def error_of(tape: Tape) -> LinkClosedError:
    [error] = tape.lost
    assert isinstance(error, LinkClosedError)
    return error


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def pair_of_tapes(pair: Pair, **options: Any) -> tuple[QuicStream, Tape, QuicStream, Tape]:
    """A stream opened by the client, with a tape at each end; its first byte is `!`."""
    ours = await pair.here.open_stream()
    ours.write(b"!")
    theirs = await pair.there.accept_stream()
    here, there = Tape(ours, **options), Tape(theirs, **options)
    await there.read(1)
    return ours, here, theirs, there


def cancel_once_served(
    link: QuicConnection, waiter: asyncio.Future[QuicStream], task: asyncio.Task[QuicStream]
) -> None:
    """Cancel `task` between the moment its waiter is served and the moment it runs again."""
    after_batch = link._after_batch

    def then_cancel() -> None:
        after_batch()
        if waiter.done():
            task.cancel()

    link._after_batch = then_cancel  # type: ignore[method-assign]


async def next_event(awaited: Any) -> Any:
    async with asyncio.timeout(30):
        return await awaited


# Handshake


@BOTH_FAMILIES
@BOTH_ENGINES
@virtual_time
async def test_both_ends_know_the_key_and_the_address_of_the_other(fast: bool, bind: str) -> None:
    settings = TransportSettings(fast_path=fast)
    async with connected(settings, dialling=settings, bind=bind) as pair:
        assert pair.here.peer == pair.server.id
        assert pair.there.peer == pair.client.id
        assert pair.here.address == str(pair.server.socket.address)
        assert pair.there.address == str(pair.client.socket.address)
        assert 0 <= pair.here.rtt < 1


@virtual_time
async def test_a_server_with_another_key_is_refused_by_the_client_and_learns_it() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    link = client.quic.dial(client.id, [server.address], DEFAULTS)
    with pytest.raises(WrongPeerError, match=str(server.id)):
        await link.handshaken
    assert isinstance(await link.wait_closed(), WrongPeerError)
    await until(lambda: server.quic.connection_count == client.quic.connection_count == 0)
    client.quic.close(0, "")
    server.quic.close(0, "")


@virtual_time
async def test_a_handshake_nobody_answers_ends_as_unreachable() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    server.path.cut = True
    link = client.dial(server, TransportSettings(idle_timeout=5, keep_alive=1))
    with pytest.raises(UnreachableError, match="no answer"):
        await link.handshaken
    assert isinstance(await link.wait_closed(), UnreachableError)
    assert client.quic.connection_count == 0
    client.quic.close(0, "")
    server.quic.close(0, "")


@BOTH_ENGINES
@virtual_time
async def test_a_ping_takes_as_long_as_the_way_there_and_back(fast: bool) -> None:
    settings = TransportSettings(fast_path=fast)
    async with connected(settings, dialling=settings) as pair:
        times = await asyncio.gather(pair.here.ping(), pair.here.ping(), pair.there.ping())
        assert all(0 <= time < 1 for time in times)
        (path,) = pair.here.paths
        assert (path.address, path.kind, path.active) == (pair.here.address, "direct", True)
        ping = asyncio.create_task(pair.here.ping())
        await asyncio.sleep(0)
        pair.here.close(0, "done")
        with pytest.raises(LinkClosedError):
            await ping


# Payload


@BOTH_ENGINES
@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no offload"])
@virtual_time
async def test_megabytes_arrive_unchanged_both_ways_at_once(fast: bool, offload: bool) -> None:
    settings = TransportSettings(fast_path=fast)
    async with connected(settings, dialling=settings, offload=offload) as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        up, down = os.urandom(3_000_000), os.urandom(2_000_000)
        ours.write(up)
        ours.write_eof()
        theirs.write(down)
        theirs.write_eof()
        await here.heard("lost")
        await there.heard("lost")
        assert hashlib.sha256(there.data).digest() == hashlib.sha256(b"!" + up).digest()
        assert hashlib.sha256(here.data).digest() == hashlib.sha256(down).digest()
        assert here.names[-2:] == there.names[-2:] == ["eof", "lost"]
        assert here.lost == there.lost == [None]


@virtual_time
async def test_a_hundred_streams_do_not_mix() -> None:
    async with connected() as pair:
        payloads = {}
        for number in range(100):
            stream = await pair.here.open_stream()
            payloads[stream.stream_id] = os.urandom(100 * number + 1)
            stream.write(payloads[stream.stream_id])
            stream.write_eof()
        for _ in range(100):
            theirs = await pair.there.accept_stream()
            tape = Tape(theirs)
            await tape.heard("eof")
            assert tape.data == payloads.pop(theirs.stream_id)
        assert payloads == {}


@virtual_time
async def test_each_direction_ends_by_itself() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        ours.write_eof()
        await there.heard("eof")
        assert (here.calls, there.names) == ([], ["eof"])
        for _ in range(3):
            theirs.write(b"answer ")
            await asyncio.sleep(1)
        theirs.write_eof()
        await here.heard("lost")
        assert here.data == b"answer " * 3
        assert here.names == ["eof", "lost"]
        assert there.calls == [("data", b"!"), ("eof", None), ("lost", None)]


@virtual_time
async def test_a_reset_carries_its_code_and_leaves_the_other_direction_open() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        ours.reset(0x1234_5678)
        await there.heard("reset")
        theirs.write(b"still here")
        assert await here.read(10) == b"still here"
        theirs.write_eof()
        await here.heard("lost")
        assert there.calls == [("data", b"!"), ("reset", 0x1234_5678), ("lost", None)]
        assert here.names == ["eof", "lost"]


@virtual_time
async def test_stop_carries_its_code_and_the_writer_s_further_bytes_are_dropped() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        theirs.stop(77)
        await here.heard("stop")
        ours.write(b"dropped")
        ours.reset(5)  # the peer's stop was first: nothing to do, and nothing to fail at
        assert here.calls == [("stop", 77)]
        theirs.write(b"other way")
        theirs.write_eof()
        await here.heard("lost")
        assert here.calls[1:] == [("data", b"other way"), ("eof", None), ("lost", None)]
        assert there.calls == [("data", b"!"), ("lost", None)]
        assert ours.unsent == 0


@virtual_time
async def test_a_reset_that_crosses_the_peer_s_stop_does_no_harm() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        theirs.stop(1)
        ours.reset(2)
        theirs.write_eof()
        await here.heard("lost")
        assert here.lost == [None]


@virtual_time
async def test_a_reset_inside_the_call_that_comes_with_a_stop_does_no_harm() -> None:
    """The engine has taken the stop already when the receiver is called with the data."""
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        here.on["data"] = lambda: ours.reset(3)
        theirs.write(b"x")
        theirs.stop(1)
        theirs.write_eof()
        await here.heard("lost")
        assert here.data == b"x"
        assert here.names[-2:] == ["eof", "lost"]
        assert here.lost == [None]


@virtual_time
async def test_bytes_ahead_of_a_reset_of_the_same_batch_are_delivered_first() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        ours.write(b"x")
        await there.read(2)
        ours.reset(3)
        await there.heard("reset")
        assert there.calls[-2:] == [("data", b"x"), ("reset", 3)]


@virtual_time
async def test_what_came_before_the_first_receiver_waits_for_it() -> None:
    async with connected() as pair:
        ours = await pair.here.open_stream()
        for part in (b"head ", b"and ", b"rest"):
            ours.write(part)
            await pair.here.drain()
        ours.write_eof()
        await pair.here.drain()
        theirs = await pair.there.accept_stream()
        head, rest = Tape(theirs, attach=False), Tape(theirs, attach=False)
        head.on["data"] = lambda: theirs.set_receiver(rest)
        theirs.set_receiver(head)
        assert head.calls == [("data", b"head ")]
        assert rest.data == b"and rest"
        assert rest.names == ["eof"]


# Pressure


@BOTH_ENGINES
@virtual_time
async def test_a_reader_that_does_not_consume_holds_the_peer_at_the_window(fast: bool) -> None:
    settings = TransportSettings(fast_path=fast, receive_window=500_000)
    async with connected(settings, dialling=settings) as pair:
        ours, here, theirs, there = await pair_of_tapes(pair, consume=False)
        payload = os.urandom(4_000_000)
        ours.write(payload)
        await asyncio.sleep(30)
        assert here.names == ["pause"]
        assert len(there.data) <= 500_000
        assert ours.unsent >= 3_500_000
        theirs.consumed(len(there.data))
        there.consume = True
        await there.read(4_000_001)
        assert there.data == b"!" + payload
        await here.heard("resume")
        assert here.names == ["pause", "resume"]


@virtual_time
async def test_a_stranger_is_held_at_64_kibibytes_until_the_window_is_opened() -> None:
    async with connected(open_window=False) as pair:
        for _ in range(5):
            stream = await pair.here.open_stream()
            stream.write(bytes(1_000_000))
        await asyncio.sleep(30)
        tapes = [Tape(await pair.there.accept_stream(), consume=False) for _ in range(1)]
        assert sum(len(tape.data) for tape in tapes) <= 65_536
        assert pair.there.engine._local_max_data.used <= 65_536
        pair.there.open_window()
        await asyncio.sleep(30)
        assert pair.there.engine._local_max_data.used > 1_000_000


@virtual_time
async def test_a_stalled_stream_does_not_stop_its_siblings() -> None:
    async with connected() as pair:
        stalled, *_ = await pair_of_tapes(pair, consume=False)
        stalled.write(bytes(8_000_000))
        await asyncio.sleep(5)
        ours, _, _, there = await pair_of_tapes(pair)
        ours.write(bytes(3_000_000))
        await there.read(3_000_001)


@virtual_time
async def test_writers_of_many_streams_are_held_at_the_send_window() -> None:
    settings = TransportSettings(send_window=1_000_000)
    async with connected(dialling=settings) as pair:
        tapes = []
        pair.client.path.cut = True
        for _ in range(40):
            stream = await pair.here.open_stream()
            tape = Tape(stream)
            tapes.append(tape)
            while "pause" not in tape.names:
                stream.write(bytes(16_384))
        assert pair.here.engine.total_unsent <= 1_000_000 + 40 * (65_536 + 16_384)
        pair.client.path.cut = False
        readers = [Tape(await pair.there.accept_stream()) for _ in range(40)]
        for tape in tapes:
            await tape.heard("resume")
        await pair.here.drain()
        assert sum(len(reader.data) for reader in readers) == sum(
            len(value)
            for reader in readers
            for _, value in reader.calls
            if value  # type: ignore[arg-type, misc]
        )
        assert pair.here.engine.total_unsent == 0


@virtual_time
async def test_a_writer_that_fills_up_again_as_soon_as_it_may_is_never_forgotten() -> None:
    """It is paused again inside `resume_writing`."""
    async with connected() as pair:
        left = {}

        def keep_full(stream: QuicStream, tape: Tape) -> None:
            while left[stream] and tape.names[-1:] != ["pause"]:
                left[stream] -= 1
                stream.write(bytes(100_000))

        readers = []
        for _ in range(3):
            stream = await pair.here.open_stream()
            tape = Tape(stream)
            left[stream] = 80
            tape.on["resume"] = lambda stream=stream, tape=tape: keep_full(stream, tape)  # type: ignore[misc]
            keep_full(stream, tape)
            readers.append(Tape(await pair.there.accept_stream()))
        for reader in readers:
            await reader.read(8_000_000)
        assert set(left.values()) == {0}


@virtual_time
async def test_windows_survive_ends_of_streams_that_were_not_read() -> None:
    """Bytes of streams that were stopped, reset or never accepted open the window again."""
    settings = TransportSettings(receive_window=300_000)
    async with connected(settings) as pair:
        for kind in range(30):
            ours, here, theirs, there = await pair_of_tapes(pair)
            ours.write(bytes(100_000))
            if kind % 3 == 0:
                theirs.stop(0)
                theirs.reset(0)
                ours.reset(0)
            elif kind % 3 == 1:
                await there.until(lambda there=there: len(there.data) > 1)  # type: ignore[misc]
                ours.reset(1)
                theirs.reset(0)
            else:
                theirs.stop(0)
                theirs.write_eof()
                ours.write_eof()
            await there.heard("lost")
            await here.heard("lost")
        ours, _, _, there = await pair_of_tapes(pair)
        ours.write(bytes(1_000_000))
        await there.read(1_000_001)


# Opening and accepting streams


@virtual_time
async def test_streams_are_accepted_in_the_order_of_opening_also_when_packets_are_not() -> None:
    async with connected() as pair:
        first, second = await pair.here.open_stream(), await pair.here.open_stream()
        second.write(b"second")
        theirs = await pair.there.accept_stream()
        assert theirs.stream_id == first.stream_id
        assert (await pair.there.accept_stream()).stream_id == second.stream_id
        first.write(b"first")
        assert await Tape(theirs).read(5) == b"first"


@virtual_time
async def test_opening_waits_for_the_peer_s_limit_in_order() -> None:
    async with connected(TransportSettings(max_streams=2)) as pair:
        streams = [await pair.here.open_stream() for _ in range(2)]
        waiting = [asyncio.create_task(pair.here.open_stream()) for _ in range(3)]
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        await asyncio.sleep(0)
        for stream in streams:
            stream.write_eof()
            theirs = await pair.there.accept_stream()
            Tape(theirs)
            theirs.write_eof()
        third, fourth = await next_event(asyncio.gather(*waiting[1:]))
        assert (third.stream_id, fourth.stream_id) == (8, 12)
        assert waiting[0].cancelled()


@virtual_time
async def test_a_stream_opened_for_a_caller_that_gives_up_in_that_moment_is_not_leaked() -> None:
    async with connected(TransportSettings(max_streams=1)) as pair:
        only = await pair.here.open_stream()
        task = asyncio.create_task(pair.here.open_stream())
        await asyncio.sleep(0)
        only.write_eof()
        theirs = await pair.there.accept_stream()
        Tape(theirs)
        theirs.write_eof()
        cancel_once_served(pair.here, pair.here._open_waiters[0], task)
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            opened = asyncio.create_task(pair.here.open_stream())
            unwanted = await pair.there.accept_stream()
            Tape(unwanted)
            unwanted.write_eof()
            assert (await opened).stream_id == 8


@virtual_time
async def test_a_stream_accepted_for_a_caller_that_gives_up_in_that_moment_is_not_lost() -> None:
    async with connected() as pair:
        task = asyncio.create_task(pair.there.accept_stream())
        await asyncio.sleep(0)
        cancel_once_served(pair.there, pair.there._accept_waiters[0], task)
        ours = await pair.here.open_stream()
        ours.write(b"x")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await next_event(pair.there.accept_stream())).stream_id == ours.stream_id


@virtual_time
async def test_callers_that_give_up_waiting_leave_nothing_behind() -> None:
    async with connected() as pair:
        for _ in range(50):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await pair.there.accept_stream()
        assert len(pair.there._accept_waiters) == 0


@virtual_time
async def test_what_still_comes_for_a_stream_that_is_over_makes_no_new_one() -> None:
    async with connected() as pair:
        for _ in range(200):
            ours, here, theirs, there = await pair_of_tapes(pair)
            theirs.stop(0)
            theirs.reset(0)
            ours.write(bytes(3000))
            ours.write_eof()
            await here.heard("lost")
            await there.heard("lost")
        await pair.here.drain()
        await asyncio.sleep(5)
        assert pair.there._streams == pair.here._streams == {}
        assert len(pair.there._incoming) == 0
        assert pair.there.engine._streams == pair.here.engine._streams == {}


@virtual_time
async def test_streams_ended_before_they_are_accepted_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quic_connection, "MAX_UNACCEPTED_STREAMS", 10)
    async with connected(TransportSettings(max_streams=4)) as pair:
        refused = 0
        for _ in range(40):
            stream = await next_event(pair.here.open_stream())
            tape = Tape(stream)
            stream.stop(0)
            stream.write_eof()
            await pair.here.drain()
            refused += "stop" in tape.names
        assert len(pair.there._incoming) == 10
        assert pair.there.engine._streams == {}
        assert (await pair.there.accept_stream()).stream_id == 0
        stream = await pair.here.open_stream()
        stream.write(b"x")
        await pair.here.drain()
        assert len(pair.there._incoming) == 10


# Ends of the link


@virtual_time
async def test_close_carries_code_and_reason_and_ends_streams_on_both_sides() -> None:
    async with connected() as pair:
        _, here, _, there = await pair_of_tapes(pair)
        pair.here.close(42, "enough: \x1b[31m")
        pair.here.close(43, "again")
        mine = await pair.here.wait_closed()
        theirs = await next_event(pair.there.wait_closed())
        assert isinstance(mine, LinkClosedError)
        assert isinstance(theirs, LinkClosedError)
        assert (mine.code, mine.by_peer, mine.by_application) == (42, False, True)
        assert (theirs.code, theirs.by_peer, theirs.by_application) == (42, True, True)
        assert theirs.reason == "enough: ?[31m"
        assert error_of(here) is mine
        assert error_of(there) is theirs
        for link in (pair.here, pair.there):
            for call in (link.open_stream, link.accept_stream):
                with pytest.raises(LinkClosedError):
                    await call()
        await until(lambda: pair.server.quic.connection_count == 0)
        await until(lambda: pair.client.quic.connection_count == 0)


@virtual_time
async def test_a_reason_without_end_is_cut() -> None:
    async with connected() as pair:
        pair.here.close(1, "x" * 1000)
        error = await next_event(pair.there.wait_closed())
        assert str(error) == "x" * 256


@virtual_time
async def test_waiters_of_every_kind_learn_of_the_end() -> None:
    async with connected(TransportSettings(max_streams=1)) as pair:
        ours, here, *_ = await pair_of_tapes(pair, consume=False)
        ours.write(bytes(12_000_000))
        waiting = [
            asyncio.create_task(wait)
            for wait in (
                pair.here.open_stream(),
                pair.here.accept_stream(),
                pair.here.drain(),
                pair.here.wait_closed(),
            )
        ]
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        pair.there.close(5, "bye")
        opened, accepted, drained, closed = await asyncio.gather(*waiting, return_exceptions=True)
        assert drained is None
        for error in (opened, accepted, closed):
            assert isinstance(error, LinkClosedError)
            assert (error.code, error.reason) == (5, "bye")
        assert here.names == ["pause", "lost"]


@virtual_time
async def test_drain_waits_for_the_acknowledgement_of_bytes_and_of_the_end() -> None:
    async with connected() as pair:
        ours, _, _, there = await pair_of_tapes(pair)
        await pair.here.drain()
        pair.client.path.cut = True
        ours.write_eof()
        draining = asyncio.create_task(pair.here.drain())
        await asyncio.sleep(0.1)
        assert not draining.done()
        pair.client.path.cut = False
        await next_event(draining)
        assert there.names == ["eof"]
        ours, _, _, there = await pair_of_tapes(pair)
        ours.write(bytes(500_000))
        ours.write_eof()
        await next_event(pair.here.drain())
        pair.here.close(0, "done")
        await there.heard("lost")
        assert len(there.data) == 500_001
        assert there.names == ["eof", "lost"]


@virtual_time
async def test_a_caller_that_gives_up_draining_leaves_nothing_behind() -> None:
    async with connected() as pair:
        ours, *_ = await pair_of_tapes(pair, consume=False)
        ours.write(bytes(12_000_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pair.here.drain()
        assert not pair.here._drain_waiters
        ours.reset(0)
        await next_event(pair.here.drain())


@virtual_time
async def test_bytes_of_the_batch_that_closes_are_delivered_before_the_end() -> None:
    async with connected() as pair:
        ours, _, _, there = await pair_of_tapes(pair)
        ours.write(b"last words")
        await pair.here.drain()
        pair.here.close(0, "done")
        await there.heard("lost")
        assert there.data == b"!last words"


@virtual_time
async def test_closing_inside_a_receiver_s_call_ends_everything_once() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        other, _, _, beside = await pair_of_tapes(pair)
        there.on["data"] = lambda: pair.there.close(9, "in the call")
        ours.write(b"x")
        other.write(b"y")
        await here.heard("lost")
        assert error_of(here).code == 9
        assert there.names == ["lost"]
        assert beside.names == ["lost"]


@virtual_time
async def test_closing_the_endpoint_inside_a_receiver_s_call_leaves_no_timer() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        there.on["data"] = lambda: pair.server.quic.close(9, "in the call")
        ours.write(b"x")
        await here.heard("lost")
        assert pair.there._timer is None
        assert pair.server.quic.connection_count == 0


@virtual_time
async def test_a_peer_that_vanishes_is_noticed_within_the_silence_timeout() -> None:
    async with connected(dialling=TransportSettings(silence_timeout=3, keep_alive=2)) as pair:
        ours, here, _, _ = await pair_of_tapes(pair)
        pair.server.path.cut = pair.client.path.cut = True
        since = loop_time()
        ours.write(b"anybody there?")
        error = await next_event(pair.here.wait_closed())
        assert loop_time() - since <= 3.01
        assert isinstance(error, LinkClosedError)
        assert error.reason == "no answer for 3 s"
        assert not error.by_peer
        assert error_of(here) is error
        assert pair.client.quic.connection_count == 0


@virtual_time
async def test_an_idle_link_notices_a_vanished_peer_by_its_own_probe() -> None:
    async with connected(dialling=TransportSettings(silence_timeout=3, keep_alive=2)) as pair:
        await asyncio.sleep(20)
        pair.server.path.cut = True
        since = loop_time()
        async with asyncio.timeout(30):
            await pair.here.wait_closed()
        assert loop_time() - since <= 5.1


@virtual_time
async def test_the_accepting_side_gives_up_after_the_idle_timeout() -> None:
    settings = TransportSettings(idle_timeout=20, keep_alive=2)
    async with connected(settings, dialling=settings) as pair:
        pair.client.path.cut = pair.server.path.cut = True
        since = loop_time()
        async with asyncio.timeout(100):
            await pair.there.wait_closed()
        assert 15 <= loop_time() - since <= 25
        await until(lambda: pair.server.quic.connection_count == 0)


@virtual_time
async def test_a_short_outage_is_survived_without_loss() -> None:
    async with connected(dialling=TransportSettings(silence_timeout=10)) as pair:
        ours, _, _, there = await pair_of_tapes(pair)
        pair.server.path.cut = pair.client.path.cut = True
        ours.write(bytes(200_000))
        await asyncio.sleep(8)
        pair.server.path.cut = pair.client.path.cut = False
        await there.read(200_001)


@virtual_time
async def test_a_restarted_server_ends_the_old_link_at_once() -> None:
    async with connected() as pair:
        ours, here, *_ = await pair_of_tapes(pair)
        pair.server.path.cut = True  # killed: no close is seen
        address = pair.server.socket.address
        pair.server.quic.close(0, "")
        again = open_end(1, accept=True, bind=str(address))
        since = loop_time()
        ours.write(bytes(200))
        await here.heard("lost")
        assert loop_time() - since < 0.1
        assert "forgotten" in error_of(here).reason
        assert error_of(here).by_peer
        assert pair.client.quic.connection_count == 0
        link = pair.client.dial(again)
        await next_event(link.handshaken)
        again.quic.close(0, "")


@virtual_time
async def test_an_idle_link_sleeps() -> None:
    async with connected() as pair:
        await pair_of_tapes(pair)
        await asyncio.sleep(60)
        before, sent = turns(), len(pair.client.path.sent) + len(pair.server.path.sent)
        await asyncio.sleep(600)
        assert len(pair.client.path.sent) + len(pair.server.path.sent) - sent <= 4 * 41
        assert turns() - before <= 10 * 41  # a probe each 15 s, its answer, and timers


@virtual_time
async def test_a_mistake_in_a_receiver_ends_its_link_and_no_other() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with connected() as pair:
        second = pair.client.dial(pair.server)
        beside = await pair.server.quic.accept()
        ours, here, theirs, there = await pair_of_tapes(pair)
        there.on["data"] = lambda: 1 / 0
        ours.write(b"x")
        error = await next_event(pair.there.wait_closed())
        assert (error.reason, there.names) == ("internal error", ["lost"])
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        stream = await second.open_stream()
        stream.write(b"fine")
        assert await Tape(await beside.accept_stream()).read(4) == b"fine"
        assert pair.server.quic.connection_count == 1


@virtual_time
async def test_a_mistake_in_the_engine_ends_its_link_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    for method in ("receive", "trains", "handle_timer"):
        async with connected() as pair:
            ours, here, *_ = await pair_of_tapes(pair)

            def fail(*_: object) -> None:
                raise AssertionError("a mistake")

            monkeypatch.setattr(pair.there.engine, method, fail)
            ours.write(b"x")
            error = await next_event(pair.there.wait_closed())
            assert (error.reason, error.code) == ("internal error", 1)
            assert pair.server.quic.connection_count == 0
            assert pair.there._timer is None
    assert len(told) == 3


@virtual_time
async def test_a_link_that_is_over_is_freed() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair)
        link = pair.client.dial(pair.server)
        await link.handshaken
        gone = [weakref.ref(link), weakref.ref(link.engine)]
        accepted = await pair.server.quic.accept()
        gone += [weakref.ref(accepted), weakref.ref(accepted.engine)]
        link.close(0, "done")
        await accepted.wait_closed()
        await until(lambda: pair.server.quic.connection_count == 1)
        await until(lambda: pair.client.quic.connection_count == 1)
        pair.client.dialled.clear()
        del link, accepted
        await asyncio.sleep(60)
        gc.collect()
        assert [ref() for ref in gone] == [None] * 4


@virtual_time
async def test_using_a_link_after_the_endpoint_was_closed_does_nothing() -> None:
    async with connected() as pair:
        ours, here, theirs, there = await pair_of_tapes(pair, consume=False)
        done, *_ = await pair_of_tapes(pair, consume=False)
        done.write_eof()
        done.stop(0)
        pair.client.quic.close(0, "done")
        ours.consumed(1)
        done.consumed(1)
        ours.write(b"x")
        pair.here.open_window()
        pair.here.close(0, "again")
        pair.here.discard()
        await asyncio.sleep(0)
        assert pair.here._timer is None
        assert not pair.client.quic._touched
