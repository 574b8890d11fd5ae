"""Tests of `tunnel_rs.forward.uplink`, against a real `ForwardServer` on memory links."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from tests.support.forwarding import OTHER_TOKEN, TOKEN, ServerBench, server_bench
from tests.support.memory_link import SERVER_ID, MemoryLink, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import TcpTarget, until
from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import (
    AuthRefusedError,
    ExitStatus,
    LinkClosedError,
    PeerNotFoundError,
    ProtocolError,
    TargetError,
    TunnelError,
    UnreachableError,
    WrongPeerError,
)
from tunnel_rs.forward import uplink as uplink_module
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.forward.settings import ClientSettings
from tunnel_rs.forward.uplink import Uplink
from tunnel_rs.proto.messages import AuthResponse, SourceResponse, encode
from tunnel_rs.proto.retries import EAGER_LIMIT
from tunnel_rs.reports import Report, TunnelLost, TunnelUp
from tunnel_rs.values import SourceUrl

SOURCE = SourceUrl.parse("tcp://127.0.0.1:9")


class Bench:
    """An uplink that dials `server`; `failures` come first, one for each attempt."""

    def __init__(self, server: ServerBench, sizes: Sizes | None = None, **changes: Any) -> None:
        settings = ClientSettings(**{"auth_token": TOKEN, **changes})
        self.server, self.sizes = server, sizes
        self.failures: list[Exception] = []
        self.links: list[MemoryLink] = []
        self.attempts = 0
        self.reports: list[Report] = []
        self.uplink = Uplink(settings, self.connect, self.reports.append, random=lambda: 0.0)

    async def connect(self) -> MemoryLink:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.links.append(self.server.connect(sizes=self.sizes).link)
        return self.links[-1]

    @property
    def lost(self) -> list[TunnelLost]:
        return [report for report in self.reports if isinstance(report, TunnelLost)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(self.uplink.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with server_bench() as server:
        yield Bench(server)


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """All delays pass at once; they are noted."""
    delays: list[float] = []
    real = asyncio.sleep

    async def noted(delay: float) -> None:
        if delay:
            delays.append(delay)
        await real(0)

    monkeypatch.setattr(uplink_module.asyncio, "sleep", noted)  # type: ignore[attr-defined]
    monkeypatch.setattr(Uplink, "_pause", lambda _, delay: noted(delay))
    return delays


async def played(answer: Callable[[MemoryLink], Any], **changes: Any) -> TunnelError:
    """What ends an uplink without reconnection whose server is played by `answer`."""
    client, server = link_pair()

    async def connect() -> MemoryLink:
        return client

    settings = ClientSettings(auth_token=TOKEN, reconnect=False, **changes)
    playing = asyncio.create_task(answer(server))
    try:
        await Uplink(settings, connect, lambda _: None).run()
    except TunnelError as error:
        assert client.error is not None  # nothing is left open
        await playing
        return error
    raise AssertionError("run returned")


async def test_the_link_comes_up_authenticated_and_is_reported(bench: Bench) -> None:
    async with bench.running():
        await until(lambda: bool(bench.reports))
        (up,) = bench.reports
        assert isinstance(up, TunnelUp)
        assert (up.peer, up.way) == (SERVER_ID, "192.0.2.1:4433")
        assert 0 <= up.elapsed < 5
    assert bench.links[0].error is not None
    assert bench.links[0].error.args == ("done",)


async def test_a_link_that_does_not_get_ready_is_not_used(bench: Bench) -> None:
    async def settle() -> None:
        raise UnreachableError("no direct path")

    reports: list[Report] = []
    settings = ClientSettings(auth_token=TOKEN, reconnect=False)
    uplink = Uplink(settings, bench.connect, reports.append, settle=settle)
    with pytest.raises(UnreachableError, match="no direct path"):
        await uplink.run()
    assert not any(isinstance(report, TunnelUp) for report in reports)
    assert uplink.link is None


async def test_a_refused_token_is_final_with_its_exit_status_and_without_the_token(
    fast_retries: list[float],
) -> None:
    async with server_bench() as server:
        bench = Bench(server, auth_token=OTHER_TOKEN)
        with pytest.raises(AuthRefusedError) as caught:
            await bench.uplink.run()
        assert caught.value.exit_status is ExitStatus.AUTH_REFUSED
        assert "the token is not accepted" in str(caught.value)
        assert OTHER_TOKEN.reveal() not in str(caught.value)
        assert bench.attempts == 1
        assert bench.lost[0].retry_in is None


async def test_a_close_with_code_1_is_a_refused_token_even_without_an_answer() -> None:
    async def answer(server: MemoryLink) -> None:
        await server.accept_stream()
        server.close(1, "auth_failed")

    assert isinstance(await played(answer), AuthRefusedError)


async def test_a_server_that_does_not_answer_the_token_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplink_module, "AUTH_TIMEOUT", 0.02)

    async def answer(server: MemoryLink) -> None:
        Recorder(await server.accept_stream())

    error = await played(answer)
    assert isinstance(error, UnreachableError)
    assert str(error) == "the server did not answer the token in 0.02 s"


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b"HTTP/1.1 400"])
async def test_a_server_that_answers_garbage_is_a_protocol_error(sent: bytes) -> None:
    async def answer(server: MemoryLink) -> None:
        (await server.accept_stream()).write(sent)

    assert isinstance(await played(answer), ProtocolError)


async def test_a_server_that_sends_more_than_its_answer_is_stopped() -> None:
    client, server = link_pair()
    reports: list[Report] = []

    async def connect() -> MemoryLink:
        return client

    uplink = Uplink(ClientSettings(auth_token=TOKEN), connect, reports.append)
    task = asyncio.create_task(uplink.run())
    stream = await server.accept_stream()
    recorder = Recorder(stream)
    stream.write(encode(AuthResponse(True)))
    await until(lambda: bool(reports))
    stream.write(bytes(1000))
    await until(lambda: "stop 0" in recorder.events)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_lost_link_is_replaced_and_the_backoff_begins_anew(
    bench: Bench, fast_retries: list[float]
) -> None:
    async with bench.running():
        for n in (1, 2):
            await until(lambda n=n: len(bench.links) == n and bench.uplink.link is not None)  # type: ignore[misc]
            bench.links[-1].lose("no answer for 300 s")
        await until(lambda: len(bench.links) == 3 and bench.uplink.link is not None)
        assert [(report.reason, report.retry_in) for report in bench.lost] == [
            ("no answer for 300 s", 1.0),
            ("no answer for 300 s", 1.0),
        ]


SENT_AWAY = LinkClosedError(7, "too many", by_peer=True)


async def test_whom_the_server_sends_away_waits_longer_and_longer_up_to_a_minute(
    bench: Bench, fast_retries: list[float]
) -> None:
    bench.failures = [SENT_AWAY] * 10
    async with bench.running():
        await until(lambda: bench.uplink.link is not None)
    assert fast_retries[:5] == [1, 2, 4, 8, 16]
    assert fast_retries == sorted(fast_retries)
    assert fast_retries[-1] <= 60


async def test_attempts_that_bother_others_wait_longer_and_longer_too(
    fast_retries: list[float],
) -> None:
    async with server_bench() as server:
        bench = Bench(server, eager=False)
        bench.failures = [PeerNotFoundError("not found")] * 5
        async with bench.running():
            await until(lambda: bench.uplink.link is not None)
    assert fast_retries == [1, 2, 4, 8, 16]


async def test_a_server_that_does_not_answer_is_tried_every_two_seconds_and_that_is_told_once(
    bench: Bench, fast_retries: list[float]
) -> None:
    bench.failures = [PeerNotFoundError("not found")] * 5 + [OSError(101, "unreachable")] * 5
    async with bench.running():
        await until(lambda: bench.uplink.link is not None)
    assert len(fast_retries) == 10 and max(fast_retries) <= EAGER_LIMIT
    assert [each.reason for each in bench.lost] == ["not found", "cannot connect: unreachable"]


class Absence:
    """A server that answers nobody before a time. Attempts ask it anew every two seconds, as a
    handshake does, `asks` times."""

    def __init__(self, server: ServerBench, seconds: float, *, asks: int = 5) -> None:
        self._loop = asyncio.get_running_loop()
        self._asks = asks
        self.over = self._loop.time() + seconds
        self.server = server
        self.attempts = 0
        self.asked = asyncio.Event()

    async def connect(self) -> MemoryLink:
        self.attempts += 1
        self.asked.set()
        for _ in range(self._asks):
            if self._loop.time() >= self.over:
                return self.server.connect().link
            await asyncio.sleep(2.0)
        if self._loop.time() >= self.over:
            return self.server.connect().link
        raise UnreachableError("no answer")


@pytest.mark.parametrize("seconds", [3.3, 31.0, 128.7, 600.0, 893.0])
def test_a_server_that_was_away_is_found_within_three_seconds(seconds: float) -> None:
    @virtual_time
    async def run() -> None:
        async with server_bench() as server:
            away = Absence(server, seconds)
            settings = ClientSettings(auth_token=TOKEN)
            uplink = Uplink(settings, away.connect, lambda _: None)
            task = asyncio.create_task(uplink.run())
            await asyncio.sleep(seconds + 3.0)
            assert uplink.link is not None
            assert away.attempts <= 2 + seconds / 11.0
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run()


@virtual_time
async def test_who_wants_the_tunnel_makes_a_client_try_at_once_that_waits_for_long() -> None:
    async with server_bench() as server:
        away = Absence(server, 9000.0, asks=0)
        uplink = Uplink(ClientSettings(auth_token=TOKEN), away.connect, lambda _: None)
        task = asyncio.create_task(uplink.run())
        await asyncio.sleep(1000.0)
        away.asked.clear()
        await away.asked.wait()
        away.over = 0.0
        before = away.attempts
        await asyncio.sleep(5.0)
        assert away.attempts == before and uplink.link is None
        began = asyncio.get_running_loop().time()
        with pytest.raises(TargetError, match="refused the connection"):
            await uplink.request(SOURCE)
        assert asyncio.get_running_loop().time() - began < 1.0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_when_something_has_changed_the_next_attempt_is_not_waited_for() -> None:
    async with server_bench() as server:
        bench = Bench(server)
        bench.failures = [SENT_AWAY] * 8
        async with bench.running():
            await asyncio.sleep(40)
            attempts = bench.attempts
            assert attempts == 6  # after 0, 1, 3, 7, 15 and 31 seconds
            bench.uplink.retry_now()
            await asyncio.sleep(1)
            assert bench.attempts == attempts + 1


@virtual_time
async def test_what_changes_all_the_time_does_not_make_us_dial_all_the_time() -> None:
    async with server_bench() as server:
        bench = Bench(server)
        bench.failures = [PeerNotFoundError("not found")] * 1000
        async with bench.running():
            for _ in range(100):
                bench.uplink.retry_now()
                await asyncio.sleep(0.1)
            assert bench.attempts <= 10 / uplink_module.RETRY_AT_LEAST + 1


@pytest.mark.parametrize("error", [WrongPeerError("somebody else"), AuthRefusedError("no")])
async def test_a_final_error_is_not_retried(bench: Bench, error: TunnelError) -> None:
    bench.failures = [error]
    with pytest.raises(type(error)):
        await bench.uplink.run()
    assert bench.attempts == 1


async def test_without_reconnecting_the_first_loss_ends_it_with_that_error() -> None:
    async with server_bench() as server:
        bench = Bench(server, reconnect=False)
        async with bench.running() as task:
            await until(lambda: bench.uplink.link is not None)
            bench.links[0].lose("gone")
            with pytest.raises(LinkClosedError, match="gone"):
                await task
        assert bench.lost == [TunnelLost("gone", None)]


async def test_an_attempt_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_module, "CONNECT_GRACE", 0.0)

    async def connect() -> MemoryLink:
        await asyncio.Event().wait()
        raise AssertionError

    settings = ClientSettings(auth_token=TOKEN, reconnect=False, connect_timeout=0.02)
    with pytest.raises(UnreachableError, match=r"the server did not answer in 0\.02 s"):
        await Uplink(settings, connect, lambda _: None).run()


async def test_a_request_gives_an_accepted_stream(bench: Bench) -> None:
    with closing(TcpTarget()) as target:
        async with bench.running():
            await bench.uplink.request(SourceUrl.parse(target.url))
            await target.accept()


@pytest.mark.parametrize(
    ("protocol", "carried", "agreed"),
    [("udp", 1000, True), ("udp", 0, False), ("tcp", 1000, False)],
)
async def test_datagrams_are_agreed_on_for_udp_where_the_link_carries_them(
    protocol: str, carried: int, agreed: bool
) -> None:
    async with server_bench() as server:
        bench = Bench(server, Sizes(max_datagram=carried))
        with closing(TcpTarget()) as target:
            async with bench.running():
                url = SourceUrl.parse(target.url.replace("tcp", protocol))
                dialogue = await bench.uplink.request(url)
                assert dialogue.datagrams is agreed
                dialogue.abandon()


async def test_an_answer_that_agrees_to_what_was_not_offered_changes_nothing() -> None:
    client, server = link_pair()

    async def connect() -> MemoryLink:
        return client

    async def play() -> None:
        async def answer(response: AuthResponse | SourceResponse) -> None:
            dialogue = Dialogue(await server.accept_stream())
            await dialogue.receive()
            dialogue.send(response)

        await answer(AuthResponse(True))
        await answer(SourceResponse(True, datagrams=True))

    uplink = Uplink(ClientSettings(auth_token=TOKEN), connect, lambda _: None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(play())
        running = tasks.create_task(uplink.run())
        dialogue = await uplink.request(SourceUrl.parse("udp://127.0.0.1:9"))
        assert not dialogue.datagrams
        running.cancel()


async def test_a_declined_request_carries_the_server_s_reason(bench: Bench) -> None:
    async with bench.running():
        with pytest.raises(TargetError, match=r"cannot connect: 127\.0\.0\.1:9 refused"):
            await bench.uplink.request(SOURCE)


async def test_a_request_waits_for_the_link_to_come_up(bench: Bench) -> None:
    with closing(TcpTarget()) as target:
        waiting = asyncio.create_task(bench.uplink.request(SourceUrl.parse(target.url)))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with bench.running():
            await waiting


async def test_a_request_waits_no_longer_than_the_pending_timeout() -> None:
    async with server_bench() as server:
        bench = Bench(server, pending_timeout=0.02)
        with pytest.raises(UnreachableError, match=r"tunnel did not come up in 0\.02 s"):
            await bench.uplink.request(SOURCE)


async def test_a_bounded_number_of_requests_wait() -> None:
    async with server_bench() as server:
        bench = Bench(server, max_flows=2)
        waiting = [asyncio.create_task(bench.uplink.request(SOURCE)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UnreachableError, match="too many connections wait"):
            await bench.uplink.request(SOURCE)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        third = asyncio.create_task(bench.uplink.request(SOURCE))
        await asyncio.sleep(0)
        assert not third.done()
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)


async def test_opening_a_stream_is_retried_three_times_with_doubling_delays(
    fast_retries: list[float],
) -> None:
    class Broken(MemoryLink):
        opened = 0

        async def open_stream(self) -> Any:
            self.opened += 1
            raise LinkClosedError(0, "no stream for you")

    link = Broken(SERVER_ID, "", Sizes(), 0)
    uplink = Uplink(ClientSettings(auth_token=TOKEN), lambda: None, lambda _: None)  # type: ignore[arg-type, return-value]
    uplink._link = link
    with pytest.raises(UnreachableError, match="cannot open a stream: no stream for you"):
        await uplink.request(SOURCE)
    assert link.opened == 4
    assert fast_retries == [0.1, 0.2, 0.4]


async def test_a_request_cut_off_by_a_loss_is_made_again_on_the_next_link(
    bench: Bench, fast_retries: list[float]
) -> None:
    with closing(TcpTarget()) as target:
        async with bench.running():
            await until(lambda: bench.uplink.link is not None)
            bench.links[0].lose("gone")
            await bench.uplink.request(SourceUrl.parse(target.url))
            assert len(bench.links) == 2


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (lambda stream: stream.write(b"\xff\xff\xff\xff"), "makes no sense"),
        (lambda stream: stream.reset(1), "broke off the request"),
        (lambda stream: stream.write_eof(), "makes no sense"),
        (lambda stream: stream.write(encode(SourceResponse(False))), "no reason"),
        (lambda stream: None, "did not answer in 0.02 s"),
    ],
)
async def test_a_server_that_misbehaves_on_a_request_fails_that_request_only(
    monkeypatch: pytest.MonkeyPatch, play: Callable[[Any], None], words: str
) -> None:
    silent = words.startswith("did not answer")
    monkeypatch.setattr(uplink_module, "ANSWER_TIMEOUT", 0.02 if silent else 10)
    client, server = link_pair()
    uplink = Uplink(ClientSettings(auth_token=TOKEN), lambda: None, lambda _: None)  # type: ignore[arg-type, return-value]
    uplink._link = client
    asking = asyncio.create_task(uplink.request(SOURCE))
    stream = await server.accept_stream()
    far = Recorder(stream)
    play(stream)
    with pytest.raises(TargetError, match=words):
        await asking
    await until(lambda: any(event.startswith(("reset", "eof")) for event in far.events))
    assert client.error is None


async def test_a_server_without_room_for_streams_is_told_as_such() -> None:
    client, _ = link_pair(Sizes(stream_limit=0))
    settings = ClientSettings(auth_token=TOKEN, pending_timeout=0.02)
    uplink = Uplink(settings, lambda: None, lambda _: None)  # type: ignore[arg-type, return-value]
    uplink._link = client
    with pytest.raises(UnreachableError, match="takes no more streams"):
        await uplink.request(SOURCE)
