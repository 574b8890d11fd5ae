"""Tests of `tunnel_rs.iroh.dial`: real loopback sockets on a clock that jumps, and ways that find
what the test says, when it says."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from tests.support.endpoints import DEFAULTS, End, open_end, until
from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import (
    LinkClosedError,
    PeerNotFoundError,
    UnreachableError,
    WrongPeerError,
)
from tunnel_rs.iroh.dial import GRACE, MAX_CANDIDATES, STALL, Dialler, dialling
from tunnel_rs.iroh.ways import Cancel, GivenAddresses, OnFound
from tunnel_rs.net.quic import QuicEndpoint, UdpFace
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto import admission
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import Report, Trying
from tunnel_rs.values import EndpointId, SocketAddr


class Script:
    """A way that finds (delay in seconds, address) pairs."""

    name = "script"
    problem = ""
    keeps_looking = True
    problem = ""

    def __init__(self, *finds: tuple[float, Address]) -> None:
        self._finds = finds
        self.cancelled = 0

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        loop = asyncio.get_running_loop()
        handles = [
            loop.call_later(delay, on_found, address, f"{address[1]} (script)")  # type: ignore[index]
            for delay, address in self._finds
        ]

        def cancel() -> None:
            self.cancelled += 1
            for handle in handles:
                handle.cancel()

        return cancel


class Silent:
    """A socket that takes what comes and says nothing."""

    def __init__(self) -> None:
        self.end = open_end(99)

    @property
    def address(self) -> Any:
        return self.end.address


@contextmanager
def ends(*opened: End) -> Iterator[None]:
    try:
        yield
    finally:
        for end in opened:
            end.quic.close(0, "done")


def given(*opened: End) -> GivenAddresses:
    return GivenAddresses([end.socket.address for end in opened])


def dialler(
    client: End,
    peer: EndpointId,
    *ways: Any,
    settings: TransportSettings = DEFAULTS,
    report: Callable[[Report], None] = lambda _: None,
) -> Dialler:
    return Dialler(client.quic, peer, ways, settings, report)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


# Success


@virtual_time
async def test_the_first_valid_answer_wins_and_what_is_tried_is_told() -> None:
    server, silent, client = open_end(1, accept=True), open_end(9), open_end(2)
    reports: list[Report] = []
    with ends(server, silent, client):
        script = Script((0.1, server.address))
        link = await dialler(client, server.id, given(silent), script, report=reports.append).run(
            10
        )
        assert link.peer == server.id
        assert link.address == str(server.socket.address)
        assert reports == [
            Trying(str(silent.socket.address)),
            Trying(f"{server.address[1]} (script)"),
        ]
        assert script.cancelled == 1
        assert client.quic.connection_count == 1
        assert loop_time() < 1000.2


@virtual_time
async def test_all_addresses_are_tried_at_once() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    silent = [open_end(20 + number) for number in range(10)]
    with ends(server, client, *silent):
        link = await dialler(client, server.id, given(*silent, server)).run(10)
        assert link.peer == server.id
        assert loop_time() < 1000.1
        assert (await server.quic.accept()).peer == client.id


@virtual_time
async def test_a_server_that_starts_late_is_reached_when_it_is_there() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    with ends(server, client):
        server.path.cut = True
        dial = asyncio.create_task(dialler(client, server.id, given(server)).run(10))
        await asyncio.sleep(5)
        server.path.cut = False
        assert (await dial).peer == server.id
        assert loop_time() < 1008


@virtual_time
async def test_a_handshake_that_times_out_by_itself_is_begun_again() -> None:
    """The idle timeout of the transport may be shorter than that of the dial."""
    server, client = open_end(1, accept=True), open_end(2)
    settings = TransportSettings(idle_timeout=2, keep_alive=1)
    with ends(server, client):
        server.path.cut = True
        dial = asyncio.create_task(
            dialler(client, server.id, given(server), settings=settings).run(10)
        )
        await asyncio.sleep(5)
        server.path.cut = False
        assert (await dial).peer == server.id


# Strangers


@virtual_time
async def test_a_wrong_key_at_one_address_does_not_keep_from_the_right_one_at_another() -> None:
    stranger, server, client = open_end(5, accept=True), open_end(1, accept=True), open_end(2)
    with ends(stranger, server, client):
        for order in ((stranger, server), (server, stranger)):
            link = await dialler(client, server.id, given(*order)).run(10)
            assert link.peer == server.id
        script = Script((0.5, server.address))
        link = await dialler(client, server.id, given(stranger), script).run(10)
        assert link.peer == server.id


@virtual_time
async def test_only_wrong_keys_are_told_with_address_and_key() -> None:
    one, other, client = open_end(5, accept=True), open_end(6, accept=True), open_end(2)
    wanted = open_end(1)
    with ends(one, other, client, wanted):
        with pytest.raises(WrongPeerError) as caught:
            await dialler(client, wanted.id, given(one, other)).run(10)
        for end in (one, other):
            assert f"{end.socket.address}: {end.id}" in str(caught.value)
        assert loop_time() < 1000.2  # nothing else can be found: no need to wait
        assert not caught.value.transient
        await until(lambda: client.quic.connection_count == 0)


@virtual_time
async def test_a_wrong_key_is_told_only_after_the_other_ways_had_their_time() -> None:
    stranger, client, wanted = open_end(5, accept=True), open_end(2), open_end(1)
    with ends(stranger, client, wanted):
        script = Script()
        with pytest.raises(WrongPeerError):
            await dialler(client, wanted.id, given(stranger), script).run(10)
        assert GRACE <= loop_time() - 1000 < GRACE + 0.2
        assert script.cancelled == 1


@virtual_time
async def test_somebody_who_begins_to_answer_and_stops_does_not_hold_up_the_dial() -> None:
    staller, server, client = open_end(1, accept=True), open_end(1, accept=True), open_end(2)
    with ends(staller, server, client):
        send = staller.path.send_train
        answered: list[int] = []

        def initial_packet_only(train: Any, size: int, address: Any) -> bool:
            answered.append(len(train))
            if len(answered) > 1:
                return True
            header = pull_quic_header(Buffer(data=bytes(train[:size])), 8)
            assert header.packet_type is QuicPacketType.INITIAL
            return send(train[: header.packet_length], size, address)

        staller.path.send_train = initial_packet_only  # type: ignore[method-assign]
        server.path.cut = True
        dial = asyncio.create_task(dialler(client, server.id, given(staller, server)).run(10))
        await asyncio.sleep(0.5)
        server.path.cut = False
        link = await dial
        assert answered
        assert link.address == str(server.socket.address)
        assert loop_time() - 1000 <= 2 * STALL + 0.5


# Failure


@virtual_time
async def test_nothing_found_tells_who_was_asked_and_what_to_do() -> None:
    client, wanted = open_end(2), open_end(1)
    with ends(client, wanted):
        script = Script()
        with pytest.raises(PeerNotFoundError) as caught:
            await dialler(client, wanted.id, GivenAddresses([]), script).run(3)
        assert loop_time() == pytest.approx(1003)
        text = str(caught.value)
        assert wanted.id.short in text
        assert "in 3 s" in text
        assert "(asked: given addresses, script)" in text
        assert "--peer-addr" in text
        with pytest.raises(PeerNotFoundError, match="asked: none"):
            await dialler(client, wanted.id).run(1)


@virtual_time
async def test_no_answer_names_each_address_and_why() -> None:
    silent, client, wanted = open_end(9), open_end(2), open_end(1)
    stranger = open_end(5, accept=True)
    with ends(silent, client, wanted, stranger):
        where = [silent.socket.address, stranger.socket.address, SocketAddr("::1", 9)]
        with pytest.raises(UnreachableError) as caught:
            await dialler(client, wanted.id, GivenAddresses(where)).run(4)
        text = str(caught.value)
        assert text.startswith("the server did not answer within 4 s (")
        assert f"{where[0]}: no answer" in text
        assert f"{where[1]}: another key answered" in text
        assert f"{where[2]}: we have no socket of that address family" in text
        assert client.quic.connection_count == 0


@virtual_time
async def test_a_reason_of_the_kernel_is_shown_for_its_address() -> None:
    client, wanted = open_end(2), open_end(1)
    with ends(client, wanted):
        real = client.socket._sock

        class Refusing:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def fileno(self) -> int:
                return real.fileno()

            def sendto(self, data: Any, address: Any) -> int:
                if address[1] == 7:
                    raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
                return real.sendto(data, address)

        client.socket._sock = Refusing()  # type: ignore[assignment]
        where = [SocketAddr("127.0.0.1", 7), SocketAddr("127.0.0.1", 9)]
        with pytest.raises(UnreachableError) as caught:
            await dialler(client, wanted.id, GivenAddresses(where)).run(2)
        assert "127.0.0.1:7: network is unreachable" in str(caught.value)
        assert "127.0.0.1:9: no answer" in str(caught.value)


@virtual_time
async def test_addresses_of_a_family_we_do_not_have_are_told_at_once() -> None:
    client, wanted = open_end(2), open_end(1)
    reports: list[Report] = []
    with ends(client, wanted):
        where = GivenAddresses([SocketAddr("::1", 9)])
        with pytest.raises(UnreachableError, match=r"\[::1\]:9: we have no socket of that"):
            await dialler(client, wanted.id, where, report=reports.append).run(10)
        assert loop_time() < 1000.1
        assert reports == []


@virtual_time
async def test_a_server_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 0)
    server, client = open_end(1, accept=True), open_end(2)
    with ends(server, client):
        with pytest.raises(UnreachableError) as caught:
            await dialler(client, server.id, given(server)).run(10)
        assert f"{server.socket.address}: refused: server is busy" in str(caught.value)
        assert caught.value.transient
        assert loop_time() < 1000.2


@virtual_time
async def test_a_peer_that_speaks_another_protocol_is_told() -> None:
    client, template = open_end(2), open_end(1)
    socket = UdpSocket.bind(SocketAddr("127.0.0.1", 0))
    other = QuicEndpoint(template.quic.identity, DEFAULTS, accept=True, alpn="other/1")
    other.add_face(UdpFace(socket))
    socket.start(other)
    with ends(client, template):
        with pytest.raises(UnreachableError, match="refused: .*ALPN"):
            await dialler(client, template.id, GivenAddresses([socket.address])).run(10)
    other.close(0, "")


# Bounds


@virtual_time
async def test_duplicates_are_tried_once_and_too_many_addresses_are_ignored() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    reports: list[Report] = []
    with ends(server, client):
        many = [("127.0.0.1", port) for port in range(1, MAX_CANDIDATES + 50)]
        script = Script(*((0.01, address) for address in many * 2), (0.02, server.address))
        with pytest.raises(UnreachableError) as caught:
            await dialler(client, server.id, script, report=reports.append).run(2)
        assert len(reports) == MAX_CANDIDATES
        assert len({to for _, _, to in client.path.sent}) == MAX_CANDIDATES
        assert f"and {MAX_CANDIDATES - 8} more)" in str(caught.value)
        assert len(str(caught.value)) < 500


# Giving up


@pytest.mark.parametrize("after", [0.0, 0.001, 0.5])
@virtual_time
async def test_a_cancelled_dial_leaves_nothing(after: float) -> None:
    silent, client, wanted = open_end(9), open_end(2), open_end(1)
    with ends(silent, client, wanted):
        script = Script((60, silent.address))
        dial = asyncio.create_task(dialler(client, wanted.id, given(silent), script).run(100))
        await asyncio.sleep(after)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        assert client.quic.connection_count == 0
        assert script.cancelled <= 1
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


@virtual_time
async def test_a_dial_cancelled_in_the_moment_of_success_leaves_no_link() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    with ends(server, client):
        dial = asyncio.create_task(dialler(client, server.id, given(server)).run(10))
        await asyncio.sleep(0)
        [link] = client.quic._dialled
        after_batch = link._after_batch

        def then_cancel() -> None:
            after_batch()
            if link.handshaken.done():
                dial.cancel()

        link._after_batch = then_cancel  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await dial
        assert link.handshaken.done()
        assert client.quic.connection_count == 0
        accepted: QuicConnection = await server.quic.accept()
        error = await accepted.wait_closed()
        assert error.reason == "gave up"


@virtual_time
async def test_an_endpoint_closed_while_it_dials_ends_the_dial() -> None:
    silent, client, wanted = open_end(9), open_end(2), open_end(1)
    with ends(silent, client, wanted):
        dial = asyncio.create_task(dialler(client, wanted.id, given(silent)).run(10))
        await asyncio.sleep(0.1)
        client.quic.close(0, "done")
        with pytest.raises(LinkClosedError, match="done"):
            await dial
        assert loop_time() < 1000.5


@virtual_time
async def test_a_way_that_fails_undoes_the_others() -> None:
    client, wanted = open_end(2), open_end(1)

    class Broken(Script):
        def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
            raise RuntimeError("broken")

    with ends(client, wanted):
        script = Script((60, ("127.0.0.1", 9)))
        with pytest.raises(RuntimeError, match="broken"):
            await dialler(client, wanted.id, script, Broken()).run(10)
        assert script.cancelled == 1
        assert client.quic.connection_count == 0


def test_the_dialling_side_notices_silence() -> None:
    settings = TransportSettings(receive_window=4096)
    assert dialling(settings, 7).silence_timeout == 7
    assert dialling(settings, 7).receive_window == 4096
    assert settings.silence_timeout is None
