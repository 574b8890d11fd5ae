"""Tests of `tunnel_rs.forward.gate`, through the server that uses it."""

import asyncio
import logging

import pytest
from tests.support.forwarding import OTHER_TOKEN, TOKEN, Peer, server_bench
from tests.support.memory_link import CLIENT_ID
from tests.support.sockets import until

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.net import admission as gate
from tunnel_rs.proto.access import AccessList, Entry, of_tokens
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.proto.grants import Grant
from tunnel_rs.proto.messages import AuthRequest, AuthResponse, SourceRequest, encode
from tunnel_rs.reports import ClientAuthenticated, ClientGone, ClientRefused
from tunnel_rs.values import Secret


async def closed(peer: Peer) -> LinkClosedError:
    error = await peer.link.wait_closed()
    assert isinstance(error, LinkClosedError)
    await peer.serving
    return error


async def test_an_accepted_token_lets_the_client_in() -> None:
    async with server_bench() as bench:
        peer = bench.connect()
        assert await peer.ask_to_come_in() == AuthResponse(True)
        await until(lambda: bool(bench.reported(ClientAuthenticated)))
        assert peer.link.other.receive_window == peer.link.other.sizes.window


async def test_every_configured_token_is_accepted() -> None:
    async with server_bench(access=of_tokens(OTHER_TOKEN, TOKEN)) as bench:
        for token in (TOKEN, OTHER_TOKEN):
            assert await bench.connect().ask_to_come_in(token) == AuthResponse(True)


async def test_a_wrong_token_is_answered_and_then_the_link_closed_with_code_1() -> None:
    async with server_bench() as bench:
        peer = bench.connect()
        answer = await peer.ask_to_come_in(OTHER_TOKEN)
        assert answer == AuthResponse(False, "the token is not accepted")
        error = await closed(peer)
        assert (error.code, error.reason, error.by_application) == (1, "auth_failed", True)
        (refused,) = bench.reported(ClientRefused)
        assert refused.reason == "the token is not accepted"
        assert peer.link.other.receive_window == peer.link.other.sizes.initial_window


async def test_an_expired_token_is_answered_like_a_wrong_one_and_told_to_us_alone() -> None:
    access = AccessList((Entry(TOKEN, Grant(name="alice", expires=50.0)),))
    async with server_bench(access=access, wall=lambda: 50.0) as bench:
        peer = bench.connect()
        assert await peer.ask_to_come_in() == AuthResponse(False, "the token is not accepted")
        assert (await closed(peer)).reason == "auth_failed"
        assert bench.reported(ClientRefused)[0].reason == "the token of alice has expired"


async def test_a_client_key_lets_in_without_a_token() -> None:
    access = AccessList(clients=(Entry(CLIENT_ID, Grant(name="build")),))
    async with server_bench(access=access) as bench:
        assert await bench.connect().ask_to_come_in(Secret("")) == AuthResponse(True)
        await until(lambda: bool(bench.reported(ClientAuthenticated)))
        (report,) = bench.reported(ClientAuthenticated)
        assert (report.name, report.by) == ("build", "key")


async def test_no_token_at_all_is_configured_and_nobody_comes_in() -> None:
    async with server_bench(access=of_tokens()) as bench:
        assert not (await bench.connect().ask_to_come_in(Secret(""))).accepted


@pytest.mark.parametrize("sent", [b"", b"\0\0", encode(AuthRequest(TOKEN))[:-1]])
async def test_silence_or_half_a_message_is_closed_with_code_2_in_time(sent: bytes) -> None:
    async with server_bench(auth_timeout=0.02) as bench:
        peer = bench.connect()
        (await peer.link.open_stream()).write(sent)
        error = await closed(peer)
        assert (error.code, error.reason) == (2, "auth_timeout")
        assert bench.reported(ClientRefused)[0].reason == "did not authenticate in 0.02 s"


async def test_a_client_that_opens_no_stream_is_closed_with_code_2_in_time() -> None:
    async with server_bench(auth_timeout=0.02) as bench:
        assert (await closed(bench.connect())).code == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x05hello",
        b"GET / HTTP/1.1\r\n\r\n",
        b'\0\0\0\x2e{"version":2,"auth_token":"iAAAAAAAAAAAAAAAAA"}',
        encode(SourceRequest("tcp://127.0.0.1:22")),
    ],
)
async def test_garbage_is_refused_with_code_1(sent: bytes) -> None:
    async with server_bench() as bench:
        peer = bench.connect()
        (await peer.link.open_stream()).write(sent)
        assert (await closed(peer)).code == 1


async def test_a_client_that_leaves_early_is_no_failure() -> None:
    penalties = FailurePenalties(per_failure=60, threshold=1)
    async with server_bench(penalties=penalties) as bench:
        peer = bench.connect()
        await asyncio.sleep(0)
        peer.link.close(0, "done")
        await peer.serving
        assert (
            bench.reported(ClientRefused)[0].reason
            == "left before authenticating (the other side has ended it)"
        )
        assert bench.reported(ClientGone) == []
        assert penalties.penalty("192.0.2.9", asyncio.get_running_loop().time()) == 0


async def test_streams_that_come_before_the_token_are_not_served() -> None:
    async with server_bench() as bench:
        peer = bench.connect()
        auth = await peer.link.open_stream()
        auth.write(encode(AuthRequest(TOKEN))[:5])
        early = Dialogue(await peer.link.open_stream())
        early.send(SourceRequest("tcp://127.0.0.1:1"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not early._message.done()
        auth.write(encode(AuthRequest(TOKEN))[5:])
        assert b'"accepted":false' in await early.receive()  # served now: nobody listens there


async def test_penalised_sources_wait_for_right_and_wrong_answers_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[float] = []
    real = asyncio.sleep

    async def noted(delay: float) -> None:
        if delay:
            delays.append(round(delay))
        await real(0)

    async with server_bench(penalties=FailurePenalties(per_failure=2, threshold=1)) as bench:
        monkeypatch.setattr(gate.asyncio, "sleep", noted)  # type: ignore[attr-defined]
        assert not (await bench.connect().ask_to_come_in(OTHER_TOKEN)).accepted
        assert delays == []
        assert not (await bench.connect().ask_to_come_in(OTHER_TOKEN)).accepted
        assert (await bench.connect().ask_to_come_in(TOKEN)).accepted
        assert not (await bench.connect().ask_to_come_in(OTHER_TOKEN)).accepted
        assert not (await bench.connect().ask_to_come_in(OTHER_TOKEN)).accepted
        assert delays == [2, 4, 4, 5]  # never more than a client would wait
        delays.clear()
        assert (await bench.connect(address="192.0.2.10:1").ask_to_come_in()).accepted
        assert delays == []


async def test_failures_from_everywhere_slow_down_strangers_but_not_known_sources() -> None:
    penalties = FailurePenalties(global_rate=0.001, global_burst=2)
    async with server_bench(penalties=penalties, auth_timeout=0.1) as bench:
        assert (await bench.connect(address="192.0.2.1:1").ask_to_come_in()).accepted
        for i in range(4):
            await bench.connect(address=f"198.51.100.{i}:1").ask_to_come_in(OTHER_TOKEN)
        now = asyncio.get_running_loop().time()
        assert penalties.penalty("203.0.113.1", now) > 0
        assert penalties.penalty("192.0.2.1", now) == 0
        assert [each.source for each in bench.server.penalties.longest] == ["*"]
        assert (await bench.connect(address="203.0.113.1:1").ask_to_come_in()).accepted


async def test_a_penalised_source_has_few_places() -> None:
    penalties = FailurePenalties(per_failure=60, threshold=1)
    async with server_bench(penalties=penalties) as bench:
        await bench.connect().ask_to_come_in(OTHER_TOKEN)
        peers = [bench.connect() for _ in range(gate.MAX_WAITING_PENALISED + 1)]
        error = await closed(peers[-1])
        assert (error.code, error.reason) == (2, "too many connections wait for authentication")
        assert all(peer.link.error is None for peer in peers[:-1])


async def test_the_places_are_bounded_per_source_and_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "MAX_WAITING", gate.MAX_WAITING_PER_SOURCE + 2)
    async with server_bench() as bench:
        crowd = [
            bench.connect(address=f"[2001:db8::{i:x}]:1")
            for i in range(gate.MAX_WAITING_PER_SOURCE)
        ]
        assert (await closed(bench.connect(address="[2001:db8::ffff]:1"))).code == 2
        others = [bench.connect(address=f"[2001:db8:{i}::1]:1") for i in (1, 2)]
        assert (await closed(bench.connect(address="192.0.2.1:1"))).code == 2
        assert (await others[0].ask_to_come_in()).accepted
        crowd[0].link.close(0, "done")
        await crowd[0].serving
        assert (await bench.connect(address="192.0.2.1:1").ask_to_come_in()).accepted


async def test_no_report_and_no_log_line_holds_a_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with server_bench() as bench:
        await bench.connect().ask_to_come_in(OTHER_TOKEN)
        await bench.connect().ask_to_come_in(TOKEN)
        shown = repr(bench.reports) + caplog.text
        assert OTHER_TOKEN.reveal() not in shown
        assert TOKEN.reveal() not in shown
