"""Tests of `tunnel_rs.net.quic`: real loopback sockets on a clock that jumps."""

import asyncio
import gc
import os
import resource
import socket
import weakref
from typing import Any

import pytest
from tests.support.endpoints import DEFAULTS, End, Path, connected, open_end, until
from tests.support.recorder import Recorder
from tests.support.tape import Tape
from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net import quic
from tunnel_rs.net.quic import QuicEndpoint, UdpFace
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.udp import SockAddr, UdpSocket
from tunnel_rs.proto import admission
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import Secret, SocketAddr


async def soon(awaited: Any) -> Any:
    async with asyncio.timeout(30):
        return await awaited


def close_all(*ends: End) -> None:
    for end in ends:
        end.quic.close(0, "done")


def first_flight(client: End, server: End) -> bytes:
    """The first datagram of a new handshake, which is not sent."""
    client.path.cut = True
    link = client.dial(server)
    link.flush()
    train, size, _ = client.path.sent[-1]
    return train[:size]


class Stranger:
    """A plain socket that writes what it likes and keeps what it gets."""

    def __init__(self, server: End) -> None:
        self.server = server.address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))

    def send(self, datagram: bytes) -> None:
        self.socket.sendto(datagram, self.server)

    def answers(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(65535))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.socket.close()


# Several connections


@virtual_time
async def test_many_connections_share_one_socket_on_both_sides() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    links = [client.dial(server) for _ in range(10)]
    accepted = [await soon(server.quic.accept()) for _ in links]
    assert {link.peer for link in accepted} == {client.id}
    for number, link in enumerate(links):
        stream = await soon(link.open_stream())
        stream.write(bytes([number]) * 1000)
    heard = {await Tape(await link.accept_stream()).read(1000) for link in accepted}
    assert heard == {bytes([number]) * 1000 for number in range(10)}
    assert server.quic.connection_count == client.quic.connection_count == 10
    links[3].close(0, "one of them")
    await until(lambda: server.quic.connection_count == 9)
    close_all(server, client)


@virtual_time
async def test_two_connections_of_one_peer_live_and_end_apart() -> None:
    async with connected() as pair:
        second = pair.client.dial(pair.server)
        accepted = await soon(pair.server.quic.accept())
        assert accepted.peer == pair.there.peer
        pair.here.close(7, "first")
        assert (await soon(pair.there.wait_closed())).code == 7
        stream = await soon(second.open_stream())
        stream.write(b"alive")
        assert await Tape(await accepted.accept_stream()).read(5) == b"alive"


@virtual_time
async def test_an_endpoint_dials_and_accepts_on_the_same_socket() -> None:
    one, other = open_end(1, accept=True), open_end(2, accept=True)
    there, back = one.dial(other), other.dial(one)
    await soon(asyncio.gather(there.handshaken, back.handshaken))
    assert (await soon(one.quic.accept())).peer == other.id
    assert (await soon(other.quic.accept())).peer == one.id
    close_all(one, other)


@virtual_time
async def test_a_lone_write_leaves_at_once_and_what_follows_in_that_turn_in_one_flush() -> None:
    async with connected() as pair:
        streams = [await pair.here.open_stream() for _ in range(20)]
        await asyncio.sleep(1)
        pair.client.path.sent.clear()
        flushes: list[QuicConnection] = []
        flush = pair.here.flush
        pair.here.flush = lambda: (flushes.append(pair.here), flush())  # type: ignore[assignment, method-assign, func-returns-value]
        streams[0].write(b"x" * 10)
        assert len(pair.client.path.sent) == 1
        for stream in streams:
            for _ in range(5):
                stream.write(b"x" * 10)
        assert len(pair.client.path.sent) == 1
        assert not flushes
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(flushes) == 1
        assert sum(-(-len(train) // size) for train, size, _ in pair.client.path.sent) <= 21


@virtual_time
async def test_the_next_question_leaves_at_once_when_the_peer_has_said_something() -> None:
    async with connected() as pair:
        stream = await pair.here.open_stream()
        await asyncio.sleep(1)
        sent = pair.client.path.sent
        for _ in range(3):  # none is acknowledged
            sent.clear()
            stream.write(b"question")
            assert len(sent) == 1
            stream.write(b"and more in the same turn")
            assert len(sent) == 1
            pair.here.process_events()
        stream.write(bytes(2000))
        pair.here.process_events()
        sent.clear()
        stream.write(b"a lot is in flight")
        assert not sent


@virtual_time
async def test_a_lone_message_that_nobody_answers_is_acknowledged_in_time() -> None:
    async with connected() as pair:
        stream = await pair.here.open_stream()
        stream.write(b"first")
        accepted = await soon(pair.there.accept_stream())
        tape = Tape(accepted)
        await asyncio.sleep(1)
        stream.write(b"second")
        assert await tape.read(11) == b"firstsecond"
        await asyncio.sleep(0.015)
        assert pair.here.engine.total_unsent == 0


@virtual_time
async def test_writes_that_the_peer_gives_no_room_for_cost_one_flush_a_turn() -> None:
    async with connected() as pair:
        stream = await pair.here.open_stream()
        await asyncio.sleep(1)
        pair.here.engine._remote_max_data = pair.here.engine._remote_max_data_used
        flushes: list[QuicConnection] = []
        flush = pair.here.flush
        pair.here.flush = lambda: (flushes.append(pair.here), flush())  # type: ignore[assignment, method-assign, func-returns-value]
        for _ in range(50):
            stream.write(b"x" * 10)
        assert not flushes
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(flushes) == 1


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
@virtual_time
async def test_datagrams_find_the_stream_they_accompany(fast: bool) -> None:
    settings = TransportSettings(fast_path=fast)
    async with connected(settings, dialling=settings) as pair:
        near = [Recorder(await pair.here.open_stream()) for _ in range(3)]
        far = []
        for recorder in near:
            recorder.stream.write(b"open")
            far.append(Recorder(await soon(pair.there.accept_stream())))
        for number, (here, there) in enumerate(zip(near, far, strict=True)):
            here.stream.send_datagrams([b"%d up" % number] * 50)
            there.stream.send_datagrams([b"%d down" % number] * 50)
        await until(lambda: all(len(each.datagrams) == 50 for each in near + far))
        for number, (here, there) in enumerate(zip(near, far, strict=True)):
            assert set(there.datagrams) == {b"%d up" % number}
            assert set(here.datagrams) == {b"%d down" % number}
        largest = near[0].stream.max_datagram
        near[0].stream.send_datagrams([bytes(largest)])
        await until(lambda: far[0].datagrams[-1] == bytes(largest))
        near[1].stream.reset(0)
        near[1].stream.stop(0)
        assert near[1].stream.max_datagram == 0
        assert near[1].stream.send_datagrams([b"late"]) == 1
        far[1].stream.send_datagrams([b"to nobody"])


@virtual_time
async def test_a_client_without_accepting_does_not_answer_newcomers() -> None:
    one, other = open_end(1), open_end(2)
    link = other.dial(one, TransportSettings(idle_timeout=3, keep_alive=1))
    assert "no answer" in str(await soon(link.wait_closed()))
    assert one.quic.connection_count == 0
    close_all(one, other)


# Accepting


@virtual_time
async def test_connections_are_accepted_in_order_also_by_many_waiters() -> None:
    server = open_end(1, accept=True)
    clients = [open_end(10 + number) for number in range(3)]
    waiting = [asyncio.create_task(server.quic.accept()) for _ in clients]
    for client in clients:
        await soon(client.dial(server).handshaken)
    assert [link.peer for link in await soon(asyncio.gather(*waiting))] == [
        client.id for client in clients
    ]
    close_all(server, *clients)


@virtual_time
async def test_a_caller_that_gives_up_accepting_loses_no_connection() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await server.quic.accept()
    assert len(server.quic._accept_waiters) == 0
    task = asyncio.create_task(server.quic.accept())
    await asyncio.sleep(0)
    waiter = server.quic._accept_waiters[0]
    end_batch = server.quic.end_batch

    def then_cancel() -> None:
        end_batch()
        if waiter.done():
            task.cancel()

    server.quic.end_batch = then_cancel  # type: ignore[method-assign]
    await soon(client.dial(server).handshaken)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await soon(server.quic.accept())).peer == client.id
    close_all(server, client)


@virtual_time
async def test_a_connection_that_ended_before_it_was_accepted_is_not_handed_out() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    gone = client.dial(server)
    await soon(gone.handshaken)
    gone.close(0, "changed my mind")
    await until(lambda: server.quic.connection_count == 0)
    stays = client.dial(server)
    await soon(stays.handshaken)
    link = await soon(server.quic.accept())
    stream = await link_stream(stays)
    assert (await soon(link.accept_stream())).stream_id == stream.stream_id
    close_all(server, client)


async def link_stream(link: QuicConnection) -> Any:
    stream = await soon(link.open_stream())
    stream.write(b"!")
    return stream


@virtual_time
async def test_connections_that_nobody_accepts_are_bounded_and_told_so() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    links = []
    for _ in range(quic.MAX_UNACCEPTED):
        links.append(client.dial(server))
        await soon(links[-1].handshaken)
    late = client.dial(server)
    error = await soon(late.wait_closed())
    assert (error.reason, error.by_peer) == ("server is busy", True)
    assert not any(link._end.done() for link in links)
    close_all(server, client)


@virtual_time
async def test_accepting_ends_with_the_endpoint() -> None:
    server = open_end(1, accept=True)
    waiting = asyncio.create_task(server.quic.accept())
    await asyncio.sleep(0)
    server.quic.close(0, "done")
    server.quic.close(0, "again")
    with pytest.raises(LinkClosedError, match="the endpoint was closed"):
        await waiting
    with pytest.raises(LinkClosedError, match="the endpoint was closed"):
        await server.quic.accept()
    with pytest.raises(LinkClosedError, match="the endpoint was closed"):
        server.quic.dial(server.id, [server.address], DEFAULTS)


# Handshakes under load


def flood(server: End, count: int) -> list[End]:
    """Begin so many handshakes that never go on."""
    stranger = open_end(9)
    for _ in range(count):
        datagram = first_flight(stranger, server)
        server.quic.receive_train(memoryview(datagram), len(datagram), ("127.0.0.1", 9))
    server.quic.end_batch()
    return [stranger]


@virtual_time
async def test_above_64_handshakes_newcomers_prove_their_address_and_honest_ones_get_in() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    strangers = flood(server, admission.RETRY_ABOVE)
    assert len(server.quic._handshakes) == admission.RETRY_ABOVE
    strangers += flood(server, 50)
    assert len(server.quic._handshakes) == admission.RETRY_ABOVE
    link = client.dial(server)
    await soon(link.handshaken)
    assert link.engine._retry_count == 1
    assert (await soon(server.quic.accept())).peer == client.id
    stream = await link_stream(link)
    assert stream.stream_id == 0
    close_all(server, client, *strangers)


@virtual_time
async def test_above_256_handshakes_newcomers_read_that_the_server_is_busy() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    busy = flood(server, 1)
    [(first, timer)] = server.quic._handshakes.items()
    for number in range(admission.MAX_HANDSHAKES - 1):
        server.quic._handshakes[number] = timer  # type: ignore[index]
    link = client.dial(server)
    error = await soon(link.wait_closed())
    assert str(error) == "server is busy"
    assert error.code == 2
    assert error.by_peer
    assert not error.by_application
    server.quic._handshakes.clear()
    server.quic._handshakes[first] = timer
    close_all(server, client, *busy)


@virtual_time
async def test_the_number_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 3)
    server, client = open_end(1, accept=True), open_end(2)
    for _ in range(3):
        await soon(client.dial(server).handshaken)
    error = await soon(client.dial(server).wait_closed())
    assert str(error) == "server is busy"
    close_all(server, client)


@virtual_time
async def test_a_handshake_that_does_not_go_on_is_given_up_in_time() -> None:
    server = open_end(1, accept=True, settings=TransportSettings(handshake_timeout=4))
    strangers = flood(server, 30)
    assert server.quic.connection_count == 30
    await asyncio.sleep(3.9)
    assert server.quic.connection_count == 30
    await asyncio.sleep(0.2)
    assert server.quic.connection_count == 0
    assert len(server.quic._by_id) == 0
    close_all(server, *strangers)


@virtual_time
async def test_a_completed_handshake_is_not_given_up() -> None:
    async with connected(TransportSettings(handshake_timeout=1)) as pair:
        await asyncio.sleep(5)
        assert pair.server.quic.connection_count == 1
        assert not pair.server.quic._handshakes


# Junk


@virtual_time
async def test_junk_of_every_kind_leaves_no_state_and_draws_few_answers() -> None:
    async with connected() as pair:
        stranger = Stranger(pair.server)
        for number in range(3000):
            size = (1, 20, 60, 1200)[number % 4]
            stranger.send(bytes([(0x40, 0xC0, 0x00, 0xFF)[number // 4 % 4]]) + os.urandom(size - 1))
            if number % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        answers = stranger.answers()
        assert len(answers) <= admission.STRAY_ANSWERS_PER_SECOND + 2
        assert all(len(answer) < 1200 for answer in answers)
        assert pair.server.quic.connection_count == 1
        stream = await link_stream(pair.here)
        assert stream.stream_id == 0
        assert await Tape(await soon(pair.there.accept_stream())).read(1) == b"!"
        stranger.close()


@virtual_time
async def test_junk_under_a_known_connection_id_does_not_disturb() -> None:
    async with connected() as pair:
        ours = await link_stream(pair.here)
        tape = Tape(await soon(pair.there.accept_stream()))
        ids = list(pair.server.quic._by_id)
        stranger = Stranger(pair.server)
        for known in ids:
            for first in (0x40, 0x43, 0x5F, 0xC0, 0xE0, 0x00):
                stranger.send(bytes([first]) + known + os.urandom(100))
                stranger.send(bytes([first, 0, 0, 0, 1, len(known)]) + known + os.urandom(1194))
            stranger.send(bytes([0x40]) + known)
        await asyncio.sleep(0.1)
        ours.write(b"still here")
        assert await tape.read(11) == b"!still here"
        stranger.close()


@virtual_time
async def test_junk_at_a_dialling_client_does_not_disturb_the_handshake() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    server.path.cut = True
    link = client.dial(server)
    await asyncio.sleep(0.01)
    ours = link.engine.host_cid
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(100):
        sender.sendto(bytes([0xC0, 0, 0, 0, 1, 8]) + ours + os.urandom(1190), client.address)
        sender.sendto(os.urandom(100), client.address)
    await asyncio.sleep(0.01)
    server.path.cut = False
    await soon(link.handshaken)
    sender.close()
    close_all(server, client)


@virtual_time
async def test_a_forged_stateless_reset_does_not_end_a_link() -> None:
    async with connected() as pair:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(200):
            sender.sendto(bytes([0x40]) + os.urandom(41), pair.client.address)
        await asyncio.sleep(0.1)
        assert not pair.here._end.done()
        sender.close()


# Memory


def resident() -> int:
    """Bytes of memory in use."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only on Linux")
@virtual_time
async def test_a_peer_that_sends_while_nobody_reads_is_held_at_the_window() -> None:
    settings = TransportSettings(receive_window=1_000_000)
    async with connected(settings, dialling=TransportSettings(send_window=64 << 20)) as pair:
        stream = await link_stream(pair.here)
        piece = bytes(1_000_000)
        for _ in range(30):
            stream.write(piece)
        await asyncio.sleep(1)
        gc.collect()
        before = resident()
        theirs = await soon(pair.there.accept_stream())
        await asyncio.sleep(60)
        assert pair.there.engine._local_max_data.used <= 2_000_000
        assert resident() - before < 8_000_000
        assert sum(len(each) for each in theirs._backlog if isinstance(each, bytes)) <= 1_000_000


# A full socket


@virtual_time
async def test_trains_wait_for_a_full_face_in_order_and_bounded() -> None:
    async with connected() as pair:
        pair.client.path.full = True
        for number in range(quic.MAX_HELD_TRAINS + 50):
            pair.client.quic.send_trains([(bytes([number % 256]), 1, pair.server.address)])
        [held] = pair.client.quic._held.values()
        assert len(held) == quic.MAX_HELD_TRAINS
        pair.client.path.full = False
        pair.client.path.cut = True
        pair.client.path.sent.clear()
        pair.client.quic.writable()
        assert [train[0] for train, _, _ in pair.client.path.sent] == [
            number % 256 for number in range(quic.MAX_HELD_TRAINS)
        ]
        assert not pair.client.quic._held


@virtual_time
async def test_a_face_that_stays_full_does_not_hold_up_another() -> None:
    endpoint = QuicEndpoint(Identity(Secret(bytes(32))), DEFAULTS, accept=False)
    faces = []
    for ip in ("127.0.0.1", "::1"):
        face = Path(UdpSocket.bind(SocketAddr(ip, 0)))
        face.full = face.cut = True
        endpoint.add_face(face)
        faces.append(face)
    to: list[SockAddr] = [("127.0.0.1", 9), ("::1", 9, 0, 0)]
    for address in to:
        endpoint.send_trains([(b"x", 1, address)])
    faces[1].full = False
    endpoint.writable()
    assert [len(face.sent) for face in faces] == [0, 1]
    endpoint.send_trains([(b"y", 1, to[1])])
    assert [len(face.sent) for face in faces] == [0, 2]
    faces[0].full = False
    endpoint.writable()
    assert [len(face.sent) for face in faces] == [1, 2]
    endpoint.close(0, "done")


@virtual_time
async def test_a_transfer_survives_a_socket_that_is_full_now_and_then() -> None:
    async with connected() as pair:
        stream = await link_stream(pair.here)
        tape = Tape(await soon(pair.there.accept_stream()))
        payload = os.urandom(1_000_000)
        stream.write(payload)
        for _ in range(20):
            pair.client.path.full = True
            await asyncio.sleep(0.01)
            pair.client.path.full = False
            pair.client.quic.writable()
            await asyncio.sleep(0.01)
        assert await tape.read(1_000_001) == b"!" + payload


# Faces


async def test_a_udp_face_reaches_its_own_family_only() -> None:
    four, six = (UdpFace(UdpSocket.bind(SocketAddr(ip, 0))) for ip in ("127.0.0.1", "::1"))
    v4, v6 = ("192.0.2.1", 1), ("2001:db8::1", 1, 0, 0)
    assert [four.reaches(v4), four.reaches(v6), four.reaches("relay")] == [True, False, False]
    assert [six.reaches(v4), six.reaches(v6)] == [False, True]
    assert (four.text(v4), six.text(v6)) == ("192.0.2.1:1", "[2001:db8::1]:1")
    assert four.validates(v4)
    assert four.largest_datagram(("127.0.0.2", 1)) == quic.LARGEST_ON_LOOPBACK
    assert four.largest_datagram(v4) == quic.LARGEST_ON_IPV4
    assert six.largest_datagram(v6) == quic.LARGEST_ON_IPV6
    assert six.largest_datagram(("fe80::1%lo", 1, 0, 1)) == quic.LARGEST_ON_IPV6
    four.close()
    six.close()


@virtual_time
async def test_addresses_that_no_face_reaches_are_known_as_such() -> None:
    end = open_end(1)
    assert end.quic.reaches(("127.0.0.1", 1))
    assert not end.quic.reaches("https://relay.example")
    assert end.quic.address_text("https://relay.example") == "https://relay.example"
    assert end.quic.send_error("https://relay.example") == ""
    end.quic.send_trains([(b"x", 1, "https://relay.example")])
    end.quic.send_trains([(b"x", 1, ("127.0.0.1", 0))])
    assert end.quic.send_error(("127.0.0.1", 0)) == "invalid argument"
    close_all(end)


# The end


@virtual_time
async def test_closing_an_endpoint_tells_all_peers_and_leaves_nothing() -> None:
    server = open_end(1, accept=True)
    clients = [open_end(10 + number) for number in range(3)]
    links = [client.dial(server) for client in clients]
    accepted = [await soon(server.quic.accept()) for _ in links]
    tapes = [Tape(await link_stream(link)) for link in links]
    half_open = flood(server, 5)
    server.quic.close(3, "going down")
    for link, tape in zip(links, tapes, strict=True):
        error = await soon(link.wait_closed())
        assert (error.code, error.reason, error.by_peer) == (3, "going down", True)
        await tape.heard("lost")
    assert [link._end.done() for link in accepted] == [True] * 3
    close_all(*clients, *half_open)
    loop: Any = asyncio.get_running_loop()
    await asyncio.sleep(0)
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
    assert len(loop._selector.get_map()) == 1  # the loop's own pipe
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gone = [weakref.ref(each) for each in (server.quic, *links, *accepted)]
    del server, clients, links, accepted, tapes, half_open, link, tape, error
    await asyncio.sleep(1)  # cancelled timers stay in the loop's heap until they would be due
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


@virtual_time
async def test_an_endpoint_closed_while_it_dials_ends_the_dial() -> None:
    server, client = open_end(1, accept=True), open_end(2)
    server.path.cut = True
    link = client.dial(server)
    await asyncio.sleep(0.1)
    client.quic.close(0, "done")
    with pytest.raises(LinkClosedError):
        await link.handshaken
    assert link._timer is None
    close_all(server)


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "aioquic"])
@virtual_time
async def test_a_question_that_gets_no_answer_is_told_when_the_first_timer_runs_out(
    fast: bool,
) -> None:
    settings = TransportSettings(fast_path=fast)
    async with connected(settings, dialling=settings) as pair:
        told = asyncio.Event()
        pair.here.on_unanswered = told.set
        await asyncio.sleep(10)
        assert not told.is_set(), "the keep-alive was answered"
        pair.server.quic.receive_train = lambda *_: None  # type: ignore[method-assign]
        pair.here.engine.send_ping(99)
        pair.here.schedule_flush()
        await asyncio.wait_for(told.wait(), 1)
