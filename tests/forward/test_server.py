"""Tests of `tunnel_rs.forward.server`: memory links, real TCP and UDP targets on loopback."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from tests.support.forwarding import (
    OTHER_TOKEN,
    TOKEN,
    Peer,
    Resolver,
    ServerBench,
    server_bench,
    server_settings,
)
from tests.support.memory_link import CLIENT_ID, Sizes
from tests.support.recorder import Recorder
from tests.support.sockets import (
    TcpTarget,
    UdpTarget,
    abort,
    echo_server,
    read_exactly,
    read_to_eof,
    send,
    until,
)

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.forward import server as server_module
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.proto.access import AccessList, Entry, of_tokens
from tunnel_rs.proto.grants import Grant, Rule
from tunnel_rs.proto.messages import AuthRequest, AuthResponse, SourceRequest, SourceResponse
from tunnel_rs.proto.policy import parse_network
from tunnel_rs.proto.udp_frames import DatagramDecoder, encode_datagram
from tunnel_rs.reports import ClientGone, SessionClosed, SessionOpened, SessionRefused
from tunnel_rs.values import SourceUrl

NOT_ALLOWED = "is not among the sources this server allows"


def outcome(closed: SessionClosed) -> tuple[int, SourceUrl, int, int, str]:
    return closed.session, closed.source, closed.sent, closed.received, closed.reason


@pytest.fixture
async def target() -> AsyncIterator[TcpTarget]:
    with closing(TcpTarget()) as made:
        yield made


@pytest.fixture
async def bench() -> AsyncIterator[ServerBench]:
    async with server_bench() as made:
        yield made


async def refused(peer: Peer, source: str) -> str:
    response, _ = await peer.ask(source)
    assert not response.accepted
    assert response.reason is not None
    return response.reason


async def works(peer: Peer) -> None:
    """A session beside the one under test carries its bytes."""
    async with echo_server() as echo:
        stream = await peer.open(echo.url)
        data = os.urandom(50_000)
        stream.stream.write(data)
        stream.stream.write_eof()
        await until(lambda: stream.events == ["eof"])
        assert stream.data == data


async def test_a_request_is_connected_and_carries_bytes_both_ways(
    bench: ServerBench, target: TcpTarget
) -> None:
    peer = await bench.client()
    stream = await peer.open(target.url)
    sock = await target.accept()
    stream.stream.write(b"question")
    stream.stream.write_eof()
    assert await read_to_eof(sock) == b"question"
    await send(sock, b"answer")
    sock.close()
    await until(lambda: stream.events == ["eof"])
    assert stream.data == b"answer"
    await until(lambda: len(bench.server.sessions) == 0)
    source = SourceUrl.parse(target.url)
    assert [(r.session, r.source) for r in bench.reported(SessionOpened)] == [(1, source)]
    assert list(map(outcome, bench.reported(SessionClosed))) == [(1, source, 6, 8, "")]


async def test_payload_sent_behind_the_request_is_not_lost(
    bench: ServerBench, target: TcpTarget
) -> None:
    peer = await bench.client()
    dialogue = Dialogue(await peer.link.open_stream())
    dialogue.send(SourceRequest(target.url))
    dialogue.stream.write(b"at once")
    dialogue.stream.write_eof()
    assert await read_to_eof(await target.accept()) == b"at once"


# "Where the original is wrong", 1: an empty list denies its protocol.


async def test_with_only_tcp_allowed_every_udp_request_is_refused(target: TcpTarget) -> None:
    async with server_bench(allowed_udp=()) as bench:
        peer = await bench.client()
        reason = await refused(peer, "udp://127.0.0.1:53")
        assert reason == "this server forwards no UDP"
        await peer.open(target.url)


async def test_with_only_udp_allowed_every_tcp_request_is_refused(target: TcpTarget) -> None:
    async with server_bench(allowed_tcp=()) as bench:
        reason = await refused(await bench.client(), target.url)
        assert reason == "this server forwards no TCP"
        assert not target.was_dialled


# 2: resolved once, each address judged, only allowed ones dialled.


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "[::1]", "localhost"],
)
async def test_an_address_outside_the_list_is_refused_in_every_spelling(
    target: TcpTarget, host: str
) -> None:
    async with server_bench(allowed_tcp=(parse_network("10.0.0.0/8"),)) as bench:
        reason = await refused(await bench.client(), f"tcp://{host}:{target.port}")
        assert NOT_ALLOWED in reason
        assert not target.was_dialled


async def test_a_mapped_literal_counts_as_ipv4(bench: ServerBench, target: TcpTarget) -> None:
    peer = await bench.client()
    await peer.open(f"tcp://[::ffff:127.0.0.1]:{target.port}")
    await target.accept()


async def test_the_unspecified_address_is_refused_even_when_all_is_allowed(
    target: TcpTarget,
) -> None:
    everything = (parse_network("0.0.0.0/0"), parse_network("::/0"))
    async with server_bench(allowed_tcp=everything) as bench:
        peer = await bench.client()
        for host in ("0.0.0.0", "[::]"):
            assert NOT_ALLOWED in await refused(peer, f"tcp://{host}:{target.port}")
        assert not target.was_dialled


async def test_a_scope_id_is_refused(bench: ServerBench) -> None:
    reason = await refused(await bench.client(), "tcp://[fe80::1%lo]:80")
    assert "scope id" in reason


async def test_of_a_name_s_addresses_only_the_allowed_are_dialled() -> None:
    with closing(TcpTarget("127.0.0.1")) as forbidden, closing(TcpTarget("127.0.0.2")) as allowed:
        resolve = Resolver(mixed_example=[["127.0.0.1", "127.0.0.2", "::1"]])
        only = (parse_network("127.0.0.2/32"),)
        async with server_bench(allowed_tcp=only, resolve=resolve) as bench:
            peer = await bench.client()
            reason = await refused(peer, f"tcp://mixed.example:{forbidden.port}")
            # 127.0.0.2 does not listen on that port: it alone was tried.
            assert reason == (f"cannot connect: 127.0.0.2:{forbidden.port} refused the connection")
            assert not forbidden.was_dialled
            resolve.answers["mixed.example"] = [["127.0.0.1", "127.0.0.2"]]
            await peer.open(f"tcp://mixed.example:{allowed.port}")
            await allowed.accept()


async def test_a_name_that_changes_between_lookups_gains_nothing() -> None:
    with closing(TcpTarget("127.0.0.1")) as secret, closing(TcpTarget("127.0.0.2")) as allowed:
        resolve = Resolver(rebind_example=[["127.0.0.2"], ["127.0.0.1"]])
        only = (parse_network("127.0.0.2/32"),)
        async with server_bench(allowed_tcp=only, resolve=resolve) as bench:
            peer = await bench.client()
            await peer.open(f"tcp://rebind.example:{allowed.port}")
            await allowed.accept()
            assert resolve.asked == ["rebind.example"]  # once for checking and dialling
            assert NOT_ALLOWED in await refused(peer, f"tcp://rebind.example:{secret.port}")
            assert not secret.was_dialled


async def test_a_protocol_that_is_denied_does_not_even_cause_a_lookup() -> None:
    resolve = Resolver()
    async with server_bench(allowed_udp=(), resolve=resolve) as bench:
        await refused(await bench.client(), "udp://spy.example:53")
        assert resolve.asked == []


# 3: half-close and reset are carried through.


async def test_a_target_that_closes_first_still_gets_all_that_follows(
    bench: ServerBench, target: TcpTarget
) -> None:
    stream = await (await bench.client()).open(target.url)
    sock = await target.accept()
    sock.shutdown(socket.SHUT_WR)
    await until(lambda: stream.events == ["eof"])
    data = os.urandom(2_000_000)
    stream.stream.write(data)
    stream.stream.write_eof()
    assert await read_to_eof(sock) == data


async def test_a_target_that_resets_shows_as_a_reset_and_hurts_no_sibling(
    bench: ServerBench, target: TcpTarget
) -> None:
    peer = await bench.client()
    stream = await peer.open(target.url)
    abort(await target.accept())
    await until(lambda: sorted(stream.events) == ["reset 1", "stop 1"])
    await until(lambda: bool(bench.reported(SessionClosed)))
    assert bench.reported(SessionClosed)[0].reason == "the local connection was reset"
    await works(peer)


async def test_a_reset_stream_resets_the_target(bench: ServerBench, target: TcpTarget) -> None:
    stream = await (await bench.client()).open(target.url)
    sock = await target.accept()
    stream.stream.reset(1)
    stream.stream.stop(1)
    with pytest.raises(ConnectionResetError):
        await read_to_eof(sock)


async def test_a_target_that_never_reads_holds_its_stream_and_no_other(
    bench: ServerBench, target: TcpTarget
) -> None:
    peer = await bench.client()
    stream = await peer.open(target.url)
    await target.accept()
    stream.stream.write(bytes(32 * 1024 * 1024))
    await works(peer)
    await until(lambda: "pause" in stream.events)
    assert stream.stream.unsent > 16 * 1024 * 1024
    stream.stream.reset(0)


# 7: a target that cannot be used is told with the reason.


async def test_a_refused_target_is_told_with_its_address(bench: ServerBench) -> None:
    with closing(TcpTarget()) as gone:
        port = gone.port
    peer = await bench.client()
    reason = await refused(peer, f"tcp://127.0.0.1:{port}")
    assert reason == f"cannot connect: 127.0.0.1:{port} refused the connection"
    (report,) = bench.reported(SessionRefused)
    assert (report.source, report.reason) == (f"tcp://127.0.0.1:{port}", reason)
    assert len(bench.server.sessions) == 0
    await works(peer)


async def test_an_unresolvable_target_is_told() -> None:
    async with server_bench() as bench:
        reason = await refused(await bench.client(), "tcp://no-such-host.invalid:80")
        assert reason.startswith("no-such-host.invalid: ")


async def test_an_unreachable_target_is_told_after_the_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(sock: socket.socket, address: tuple[str, int]) -> None:
        await asyncio.Event().wait()

    everything = (parse_network("0.0.0.0/0"),)
    async with server_bench(allowed_tcp=everything, connect_timeout=0.02) as bench:
        peer = await bench.client()
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
        reason = await refused(peer, "tcp://192.0.2.1:80")
        assert reason == "cannot connect: 192.0.2.1:80 no answer in 0.02 s"


@pytest.mark.parametrize(
    "source",
    ["", "http://127.0.0.1:80", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://:80", "tcp://a b:1",
     "tcp://127.0.0.1:80/path", "tcp://\x1b[31m:80", "tcp://" + "a" * 10_000 + ":80"],
)  # fmt: skip
async def test_what_is_no_source_is_refused_in_one_short_clean_line(
    bench: ServerBench, source: str
) -> None:
    peer = await bench.client()
    reason = await refused(peer, source)
    assert reason.startswith("not a source: ")
    (report,) = bench.reported(SessionRefused)
    assert report.source.isprintable()
    assert len(report.source) <= 300
    await works(peer)


# Limits.


async def test_above_the_session_limit_requests_of_all_links_are_refused(
    target: TcpTarget,
) -> None:
    async with server_bench(max_sessions=2) as bench:
        peers = [await bench.client() for _ in range(3)]
        first = await peers[0].open(target.url)
        await peers[1].open(target.url)
        assert await refused(peers[2], target.url) == "Session limit reached"
        first.stream.reset(0)
        await until(lambda: len(bench.server.sessions) == 1)
        await peers[2].open(target.url)


async def test_a_stream_that_says_nothing_or_half_is_timed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT", 0.02)
    async with server_bench() as bench:
        peer = await bench.client()
        for sent in (b"\0", b'\0\0\0\x40{"version":3,'):
            dialogue = Dialogue(await peer.link.open_stream())
            dialogue.stream.write(sent)
            assert b"no source request in 0.02 s" in await dialogue.receive()
        await works(peer)


@pytest.mark.parametrize(
    "sent",
    [b"\xff\xff\xff\xff", b"\0\0\0\x03abc", b"\0\0\0\x02{}", b"\0\0\0\x10", os.urandom(1000)],
)
async def test_garbage_on_a_stream_ends_that_stream_only(bench: ServerBench, sent: bytes) -> None:
    peer = await bench.client()
    stream = await peer.link.open_stream()
    recorder = Recorder(stream)
    stream.write(sent)
    stream.write_eof()
    await until(lambda: recorder.lost == [None])
    assert b'"accepted":false' in recorder.data
    await works(peer)


async def test_a_thousand_silent_streams_leave_sessions_beside_them_alone(
    bench: ServerBench, target: TcpTarget
) -> None:
    attacker, neighbour = await bench.client(), await bench.client()
    stream = await neighbour.open(target.url)
    sock = await target.accept()
    for _ in range(1000):
        (await attacker.link.open_stream()).write(b"\0")
    await works(attacker)
    await works(neighbour)
    stream.stream.write(b"still here")
    stream.stream.write_eof()
    assert await read_to_eof(sock) == b"still here"
    assert len(bench.server.sessions) == 1  # silent streams hold no session


async def test_more_unanswered_requests_than_allowed_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "MAX_REQUESTS", 3)
    async with server_bench() as bench:
        peer = await bench.client()
        silent = [await peer.link.open_stream() for _ in range(3)]
        for stream in silent:
            stream.write(b"\0")
        assert await refused(peer, "tcp://127.0.0.1:1") == "too many unanswered requests"
        silent[0].reset(0)
        silent[0].stop(0)
        reason = "too many unanswered requests"
        while reason == "too many unanswered requests":  # ends by the test's time limit, or soon
            reason = await refused(peer, "tcp://127.0.0.1:1")
        assert "cannot connect" in reason


async def test_a_fault_of_ours_is_reported_and_costs_one_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(host: str) -> list[str]:
        raise ZeroDivisionError("a bug")

    async with server_bench(resolve=broken) as bench:
        peer = await bench.client()
        dialogue = Dialogue(await peer.link.open_stream())
        dialogue.send(SourceRequest("tcp://127.0.0.1:1"))
        await until(lambda: dialogue._reset is not None)
        await until(lambda: any("a bug" in repr(report) for report in bench.reports))
        assert len(bench.server.sessions) == 0
        assert peer.link.error is None


# UDP.


class Frames:
    """Datagrams that came back on a stream."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._decoder = DatagramDecoder()
        self.datagrams: list[bytes] = []

    def __len__(self) -> int:
        data, self._recorder.data = bytes(self._recorder.data), bytearray()
        self.datagrams += self._decoder.feed(data)
        return len(self.datagrams)


async def test_datagrams_pass_both_ways_with_their_boundaries(bench: ServerBench) -> None:
    with closing(UdpTarget()) as target:
        stream = await (await bench.client()).open(target.url)
        sent = [b"one", b"", b"three" * 200, bytes(9000)]
        stream.stream.write(b"".join(map(encode_datagram, sent)))
        frames = Frames(stream)
        await until(lambda: len(frames) == 4)
        assert frames.datagrams == sent == target.received
        stream.stream.write_eof()
        await until(lambda: stream.events == ["eof"])
        await until(lambda: bool(bench.reported(SessionClosed)))
        size = sum(map(len, sent))
        (ended,) = map(outcome, bench.reported(SessionClosed))
        assert ended == (1, SourceUrl.parse(target.url), size, size, "")


async def test_with_a_client_that_offers_it_udp_goes_beside_the_stream(bench: ServerBench) -> None:
    with closing(UdpTarget()) as target:
        peer = bench.connect(sizes=Sizes(max_datagram=1000))
        await peer.ask_to_come_in()
        stream = await peer.open(target.url, datagrams=True)
        stream.stream.send_datagrams([b"one", b"", b"three"])
        await until(lambda: len(stream.datagrams) == 3)
        assert stream.datagrams == target.received == [b"one", b"", b"three"]
        stream.stream.write(encode_datagram(bytes(1001)))
        frames = Frames(stream)
        await until(lambda: len(frames) == 1)
        assert frames.datagrams == [bytes(1001)]
        assert len(stream.datagrams) == 3


@pytest.mark.parametrize(("offered", "carried"), [(False, 1000), (True, 0)])
async def test_without_an_offer_or_a_link_that_can_udp_stays_on_the_stream(
    bench: ServerBench, offered: bool, carried: int
) -> None:
    with closing(UdpTarget()) as target:
        peer = bench.connect(sizes=Sizes(max_datagram=carried))
        await peer.ask_to_come_in()
        response, dialogue = await peer.ask(target.url, datagrams=offered)
        assert response == SourceResponse(True)
        recorder = Recorder(dialogue.stream, attach=False)
        dialogue.hand_over(recorder)
        recorder.stream.write(encode_datagram(b"hello"))
        frames = Frames(recorder)
        await until(lambda: len(frames) == 1)
        assert recorder.datagrams == []


async def test_tcp_has_nothing_beside_its_stream(bench: ServerBench, target: TcpTarget) -> None:
    peer = bench.connect(sizes=Sizes(max_datagram=1000))
    await peer.ask_to_come_in()
    response, _ = await peer.ask(target.url, datagrams=True)
    assert response == SourceResponse(True)


async def test_a_datagram_too_long_for_udp_is_dropped_and_the_flow_goes_on(
    bench: ServerBench,
) -> None:
    with closing(UdpTarget()) as target:
        stream = await (await bench.client()).open(target.url)
        stream.stream.write(encode_datagram(bytes(65_535)) + encode_datagram(b"next"))
        frames = Frames(stream)
        await until(lambda: len(frames) == 1)
        assert frames.datagrams == [b"next"]


async def test_a_udp_flow_without_traffic_is_closed() -> None:
    async with server_bench(udp_idle_timeout=0.02) as bench:
        with closing(UdpTarget()) as target:
            stream = await (await bench.client()).open(target.url)
            await until(lambda: "eof" in stream.events and "stop 0" in stream.events)
            assert len(bench.server.sessions) == 0


async def test_a_udp_target_that_nobody_listens_on_does_not_end_the_flow(
    bench: ServerBench,
) -> None:
    with closing(UdpTarget()) as gone:
        url = gone.url
    peer = await bench.client()
    stream = await peer.open(url)
    for _ in range(3):
        stream.stream.write(encode_datagram(b"anybody?"))
        await asyncio.sleep(0)
    await works(peer)
    assert len(bench.server.sessions) >= 1
    assert stream.events == []


# Endings.


async def test_when_the_link_is_lost_its_sessions_end_and_others_stay(
    bench: ServerBench, target: TcpTarget
) -> None:
    lost, other = await bench.client(), await bench.client()
    await lost.open(target.url)
    sock = await target.accept()
    await other.open(target.url)
    lost.link.lose("no answer for 300 s")
    with pytest.raises(ConnectionResetError):
        await read_to_eof(sock)
    await lost.serving
    assert bench.reported(ClientGone)[0].reason == "no answer for 300 s"
    await until(lambda: len(bench.server.sessions) == 1)
    await works(other)


async def test_a_link_lost_while_dialling_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, bench: ServerBench
) -> None:
    async def never(sock: socket.socket, address: tuple[str, int]) -> None:
        await asyncio.Event().wait()

    peer = await bench.client()
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
    dialogue = Dialogue(await peer.link.open_stream())
    dialogue.send(SourceRequest("tcp://127.0.0.1:1"))
    await until(lambda: len(bench.server.sessions) == 1)
    peer.link.lose()
    await peer.serving
    assert len(bench.server.sessions) == 0


async def test_closing_lets_sessions_finish_and_then_says_done(target: TcpTarget) -> None:
    async with server_bench() as bench:
        peer = await bench.client()
        stream = await peer.open(target.url)
        sock = await target.accept()
        closing_task = asyncio.create_task(bench.server.close(timeout=5))
        await asyncio.sleep(0)
        assert await refused(peer, target.url) == "the server is shutting down"
        await send(sock, b"the last words")
        sock.close()
        stream.stream.write_eof()
        await closing_task
        assert stream.data == b"the last words"
        error = await peer.link.wait_closed()
        assert isinstance(error, LinkClosedError)
        assert (error.code, error.reason) == (0, "done")
        await peer.serving


async def test_closing_waits_no_longer_than_told(target: TcpTarget) -> None:
    async with server_bench() as bench:
        peer = await bench.client()
        await peer.open(target.url)
        sock = await target.accept()
        await bench.server.close(timeout=0.02)
        with pytest.raises(ConnectionResetError):
            await read_to_eof(sock)
        assert (await peer.link.wait_closed()).reason == "done"


async def test_a_closing_server_takes_no_new_link() -> None:
    async with server_bench() as bench:
        await bench.server.close()
        peer = bench.connect()
        await peer.serving
        assert (await peer.link.wait_closed()).reason == "done"


async def test_cancelling_serve_closes_the_link(bench: ServerBench) -> None:
    peer = await bench.client()
    peer.serving.cancel()
    assert (await peer.link.wait_closed()).reason == "done"
    with pytest.raises(asyncio.CancelledError):
        await peer.serving
    bench._tasks.clear()


async def test_new_settings_apply_to_open_links_without_dropping_sessions(
    target: TcpTarget,
) -> None:
    async with server_bench() as bench:
        peer = await bench.client()
        stream = await peer.open(target.url)
        sock = await target.accept()
        bench.server.apply(server_settings(allowed_udp=(), access=of_tokens(OTHER_TOKEN, TOKEN)))
        assert await refused(peer, "udp://127.0.0.1:9") == "this server forwards no UDP"
        assert await bench.connect().ask_to_come_in(OTHER_TOKEN) == AuthResponse(True)
        stream.stream.write(b"still")
        stream.stream.write_eof()
        assert await read_to_eof(sock) == b"still"


async def test_sessions_whose_target_is_no_longer_allowed_are_ended_and_no_others(
    target: TcpTarget,
) -> None:
    async with server_bench() as bench, echo_server() as other:
        peer = await bench.client()
        ended, kept = await peer.open(target.url), await peer.open(other.url)
        sock = await target.accept()
        only_other = Grant(tcp=(Rule(None, other.port, other.port),))
        bench.server.apply(server_settings(access=AccessList((Entry(TOKEN, only_other),))))
        with pytest.raises(ConnectionResetError):
            await read_to_eof(sock)
        await until(lambda: bool(bench.reported(SessionClosed)))
        assert bench.reported(SessionClosed)[0].reason == "its target is no longer allowed"
        assert "reset 1" in ended.events
        kept.stream.write(b"still")
        await until(lambda: bytes(kept.data) == b"still")
        assert await refused(peer, target.url) == (
            f"{target.url} is not among the sources this server allows"
        )


async def test_who_loses_the_token_is_sent_away_with_all_sessions(target: TcpTarget) -> None:
    access = AccessList((Entry(TOKEN, Grant(name="alice")), Entry(OTHER_TOKEN)))
    async with server_bench(access=access) as bench:
        peer, other = await bench.client(), bench.connect()
        assert await other.ask_to_come_in(OTHER_TOKEN) == AuthResponse(True)
        await peer.open(target.url)
        sock = await target.accept()
        bench.server.apply(server_settings(access=of_tokens(OTHER_TOKEN)))
        error = await peer.link.wait_closed()
        assert isinstance(error, LinkClosedError)
        assert (error.code, error.reason) == (1, "auth_failed")
        with pytest.raises(ConnectionResetError):
            await read_to_eof(sock)
        await peer.serving
        (gone,) = bench.reported(ClientGone)
        assert (gone.name, gone.reason) == ("alice", "its token has expired or was taken away")
        await until(lambda: bool(bench.reported(SessionClosed)))
        assert bench.reported(SessionClosed)[0].reason == gone.reason
        assert other.link.error is None


async def test_what_a_client_moved_counts_its_sessions_that_were_cut_off(
    target: TcpTarget,
) -> None:
    async with server_bench() as bench:
        peer = await bench.client()
        opened = await peer.open(target.url)
        sock = await target.accept()
        opened.stream.write(b"question")
        assert await read_exactly(sock, 8) == b"question"
        assert bench.server.disconnect("", "enough") == 1  # whoever it is
        await peer.serving
        (gone,) = bench.reported(ClientGone)
        assert (gone.reason, gone.sent, gone.received) == ("enough", 0, 8)


async def test_a_client_whose_token_expires_is_sent_away_at_that_time() -> None:
    wall = 100.0
    access = AccessList((Entry(TOKEN, Grant(expires=100.05)),))
    async with server_bench(access=access, wall=lambda: wall) as bench:
        peer = await bench.client()
        wall = 100.05
        assert (await peer.link.wait_closed()).reason == "auth_failed"  # type: ignore[attr-defined]
        await peer.serving
        assert bench.reported(ClientGone)[0].reason == "its token has expired or was taken away"


async def test_a_token_taken_away_during_the_dialogue_lets_nobody_in() -> None:
    async with server_bench() as bench:
        peer = bench.connect()
        dialogue = Dialogue(await peer.link.open_stream())
        dialogue.send(AuthRequest(TOKEN))
        bench.server.apply(server_settings(access=of_tokens(OTHER_TOKEN)))
        assert b'"accepted":false' in await dialogue.receive()


async def test_the_session_limit_of_a_token_holds_over_all_its_links(target: TcpTarget) -> None:
    access = AccessList((Entry(TOKEN, Grant(max_sessions=2)), Entry(OTHER_TOKEN)))
    async with server_bench(access=access) as bench:
        one, two, other = await bench.client(), await bench.client(), bench.connect()
        await other.ask_to_come_in(OTHER_TOKEN)
        first = await one.open(target.url)
        sock = await target.accept()
        await two.open(target.url)
        assert await refused(one, target.url) == "Session limit reached"
        await other.open(target.url)
        first.stream.write_eof()
        sock.close()
        await until(lambda: len(bench.server.sessions) == 2)
        await one.open(target.url)


async def test_a_token_s_networks_and_ports_bind_its_holder_alone(target: TcpTarget) -> None:
    access = AccessList((Entry(TOKEN, Grant(tcp=(Rule(None, 1, 1),), udp=())), Entry(OTHER_TOKEN)))
    async with server_bench(access=access) as bench:
        peer, other = await bench.client(), bench.connect()
        await other.ask_to_come_in(OTHER_TOKEN)
        assert "not among the sources" in await refused(peer, target.url)
        assert await refused(peer, "udp://127.0.0.1:1") == "this server forwards no UDP"
        await other.open(target.url)
        (first, _) = bench.reported(SessionRefused)
        assert (first.peer, first.source) == (peer.link.other.peer, target.url)


async def test_a_bandwidth_limit_slows_both_ways_and_loses_nothing(target: TcpTarget) -> None:
    access = AccessList((Entry(TOKEN, Grant(bandwidth=400_000)),))
    async with server_bench(access=access) as bench:
        peer = await bench.client()
        stream = await peer.open(target.url)
        sock = await target.accept()
        payload = bytes(range(256)) * 900  # 230 kB: 100 kB at once, the rest in 0.3 s
        loop = asyncio.get_running_loop()
        began = loop.time()
        stream.stream.write(payload)
        stream.stream.write_eof()
        assert await read_to_eof(sock) == payload
        assert loop.time() - began > 0.25
        began = loop.time()
        await send(sock, payload)
        sock.close()
        await until(lambda: "eof" in stream.events)
        assert bytes(stream.data) == payload
        assert loop.time() - began > 0.25


async def test_who_asked_what_was_reached_and_how_much_is_reported(target: TcpTarget) -> None:
    access = AccessList((Entry(TOKEN, Grant(name="alice")),))
    async with server_bench(access=access) as bench:
        peer = await bench.client()
        stream = await peer.open(target.url.replace("127.0.0.1", "localhost"))
        sock = await target.accept()
        await send(sock, b"four")
        sock.close()
        stream.stream.write_eof()
        await until(lambda: bool(bench.reported(SessionClosed)))
        (opened,), (closed,) = bench.reported(SessionOpened), bench.reported(SessionClosed)
        who = (peer.link.other.peer, "alice", target.url.removeprefix("tcp://"))
        assert (opened.peer, opened.name, opened.target) == who
        assert (closed.peer, closed.name, closed.target) == who
        assert (closed.sent, closed.received) == (4, 0)
        peer.link.close(0, "done")
        await peer.serving
        (gone,) = bench.reported(ClientGone)
        assert (gone.name, gone.sent, gone.received) == ("alice", 4, 0)


async def test_the_answer_comes_before_the_target_s_first_bytes(
    bench: ServerBench, target: TcpTarget
) -> None:
    peer = await bench.client()
    dialogue = Dialogue(await peer.link.open_stream())
    dialogue.send(SourceRequest(target.url))
    sock = await target.accept()
    await send(sock, b"220 banner")
    assert b'"accepted":true' in await dialogue.receive()
    stream = dialogue.stream
    recorder = Recorder(stream, attach=False)  # type: ignore[arg-type]
    dialogue.hand_over(recorder)
    await until(lambda: recorder.data == b"220 banner")


async def test_the_status_shows_each_client_with_its_sessions(target: TcpTarget) -> None:
    access = AccessList((Entry(TOKEN, Grant(name="alice")), Entry(OTHER_TOKEN)))
    async with server_bench(access=access) as bench:
        peer = await bench.client()
        stream = await peer.open(target.url)
        stream.stream.write(b"hello")
        sock = await target.accept()
        assert await asyncio.get_running_loop().sock_recv(sock, 9) == b"hello"
        (status,) = bench.server.peers
        assert (status.peer, status.name, status.by) == (CLIENT_ID, "alice", "token")
        assert (status.sent, status.received) == (0, 5)
        assert [path.address for path in status.paths] == ["192.0.2.9:4242"]
        assert bench.server.moved == {status.link: (0, 5)}
        (session,) = status.sessions
        assert (str(session.source), session.received) == (target.url, 5)
        assert session.target == target.url.removeprefix("tcp://")
        assert await bench.server.ping() == {str(CLIENT_ID): 0.001}


async def test_a_disconnected_client_is_told_why_and_may_come_again() -> None:
    async with server_bench() as bench:
        peer = await bench.client()
        await until(lambda: bool(bench.server.peers))
        assert bench.server.disconnect("00" * 5, "no") == 0
        assert bench.server.disconnect(str(CLIENT_ID)[:10], "closed by the operator") == 1
        error = await peer.link.wait_closed()
        assert isinstance(error, LinkClosedError)
        assert (error.code, error.reason) == (0, "closed by the operator")
        await peer.serving
        assert bench.reported(ClientGone)[0].reason == "closed by the operator"
        await bench.client()
