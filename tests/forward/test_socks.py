"""Tests of `tunnel_rs.forward.socks`: a SOCKS5 client by hand, a real server behind it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from tests.support.forwarding import ClientBench, Resolver, client_bench
from tests.support.sockets import (
    TcpTarget,
    UdpTarget,
    abort,
    connect,
    read_exactly,
    read_to_eof,
    send,
    until,
)

from tunnel_rs.errors import LocalError
from tunnel_rs.forward import socks as socks_module
from tunnel_rs.reports import Notice, SessionOpened, SessionRefused
from tunnel_rs.values import HostPort, SourceUrl

GREETING = b"\x05\x01\x00"
CONNECT, UDP_ASSOCIATE = 1, 3
LISTEN = HostPort("127.0.0.1", 0)


def encoded(host: str, port: int) -> bytes:
    """ATYP, address, port."""
    tail = port.to_bytes(2, "big")
    for family, kind in ((socket.AF_INET, b"\x01"), (socket.AF_INET6, b"\x04")):
        try:
            return kind + socket.inet_pton(family, host) + tail
        except OSError:
            continue
    return b"\x03" + bytes([len(host)]) + host.encode() + tail


def request(command: int, host: str, port: int) -> bytes:
    return bytes([5, command, 0]) + encoded(host, port)


@pytest.fixture
async def bench() -> AsyncIterator[ClientBench]:
    resolve = Resolver(web_example=[["127.0.0.1"]] * 9, secret_example=[["10.0.0.1"]] * 9)
    async with client_bench(server={"resolve": resolve}, socks5=LISTEN) as made:
        yield made


async def greeted(bench: ClientBench) -> socket.socket:
    sock = await connect(await bench.address())
    await send(sock, GREETING)
    assert await read_exactly(sock, 2) == b"\x05\x00"
    return sock


async def reply_to(sock: socket.socket, asked: bytes) -> tuple[int, bytes]:
    """The reply code and the rest of a reply with an IPv4 address."""
    await send(sock, asked)
    reply = await read_exactly(sock, 10)
    assert reply[0] == 5
    return reply[1], reply[3:]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "web.example"])
async def test_connect_reaches_the_target_by_address_or_by_name(
    bench: ClientBench, host: str
) -> None:
    with closing(TcpTarget("::1" if host == "::1" else "127.0.0.1")) as target:
        with closing(await greeted(bench)) as sock:
            assert await reply_to(sock, request(CONNECT, host, target.port)) == (
                0,
                b"\x01\0\0\0\0\0\0",
            )
            remote = await target.accept()
            await send(sock, b"question")
            sock.shutdown(socket.SHUT_WR)
            assert await read_to_eof(remote) == b"question"
            await send(remote, b"answer")
            remote.close()
            assert await read_to_eof(sock) == b"answer"
    source = SourceUrl.parse(f"tcp://{HostPort(host, target.port)}")
    assert bench.reported(SessionOpened)[0].source == source  # a name goes on unresolved


async def test_bytes_sent_ahead_of_the_answer_are_not_lost(bench: ClientBench) -> None:
    with closing(TcpTarget()) as target, closing(await connect(await bench.address())) as sock:
        await send(sock, GREETING + request(CONNECT, "127.0.0.1", target.port) + b"ahead ")
        assert (await read_exactly(sock, 12))[:4] == b"\x05\x00\x05\x00"
        await send(sock, b"and after")
        sock.shutdown(socket.SHUT_WR)
        assert await read_to_eof(await target.accept()) == b"ahead and after"


async def test_a_dialogue_in_single_bytes_works(bench: ClientBench) -> None:
    with closing(TcpTarget()) as target, closing(await connect(await bench.address())) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GREETING + request(CONNECT, "127.0.0.1", target.port):
            await send(sock, bytes([byte]))
        assert (await read_exactly(sock, 12))[3] == 0


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 9, "refused the connection"),
        ("secret.example", 80, "not among the sources"),
        ("10.0.0.1", 80, "not among the sources"),
        ("0.0.0.0", 80, "not among the sources"),
        ("::ffff:10.0.0.1", 80, "not among the sources"),
    ],
)
async def test_a_declined_source_is_answered_reported_and_closed_in_order(
    bench: ClientBench, host: str, port: int, words: str
) -> None:
    with closing(await greeted(bench)) as sock:
        code, _ = await reply_to(sock, request(CONNECT, host, port))
        assert code == 1
        assert await read_to_eof(sock) == b""  # not a reset: the answer can be read
    assert words in bench.reported(SessionRefused)[0].reason


async def test_without_a_tunnel_the_network_is_unreachable() -> None:
    async with client_bench(socks5=LISTEN, pending_timeout=0.02) as bench:
        bench.reachable.clear()
        with closing(await greeted(bench)) as sock:
            assert (await reply_to(sock, request(CONNECT, "127.0.0.1", 9)))[0] == 3


@pytest.mark.parametrize(
    ("sent", "answer", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"", "speaks HTTP"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"", "SOCKS4"),
        (b"\x05\x01\x02", b"\x05\xff", "insists on authentication"),
        (GREETING + request(2, "127.0.0.1", 80), b"\x05\x00\x05\x07", "command 2"),
        (GREETING + b"\x05\x01\x00\x09", b"\x05\x00\x05\x08", "address type 9"),
        (GREETING + b"\x05\x01\x00\x03\x03a b\x00\x50", b"\x05\x00\x05\x01", "refused"),
    ],
)
async def test_what_is_not_for_us_is_answered_told_and_closed(
    bench: ClientBench, sent: bytes, answer: bytes, words: str
) -> None:
    with closing(await connect(await bench.address())) as sock:
        await send(sock, sent)
        sock.shutdown(socket.SHUT_WR)
        got = await read_to_eof(sock)
    assert got[: len(answer)] == answer
    assert words in bench.reported(Notice)[0].text


async def test_a_client_that_says_nothing_is_closed_in_time(
    monkeypatch: pytest.MonkeyPatch, bench: ClientBench
) -> None:
    monkeypatch.setattr(socks_module, "NEGOTIATION_TIMEOUT", 0.02)
    with closing(await connect(await bench.address())) as sock:
        assert await read_to_eof(sock) == b""


async def test_a_client_that_leaves_or_resets_in_the_middle_harms_nobody(
    bench: ClientBench,
) -> None:
    (await greeted(bench)).close()
    abort(await greeted(bench))
    with closing(TcpTarget()) as target, closing(await greeted(bench)) as sock:
        assert (await reply_to(sock, request(CONNECT, "127.0.0.1", target.port)))[0] == 0
    assert bench.reported(Notice) == []


class Association:
    """A SOCKS5 UDP association as a client sees it."""

    def __init__(self, control: socket.socket, relay: tuple[str, int]) -> None:
        self.control = control
        self.relay = relay
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))

    def send(self, host: str, port: int, payload: bytes) -> None:
        self.socket.sendto(b"\0\0\0" + encoded(host, port) + payload, self.relay)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, 65_535)

    def close(self) -> None:
        self.control.close()
        self.socket.close()


async def associated(bench: ClientBench) -> Association:
    control = await greeted(bench)
    code, address = await reply_to(control, request(UDP_ASSOCIATE, "0.0.0.0", 0))
    assert code == 0
    host, port = socket.inet_ntoa(address[1:5]), int.from_bytes(address[5:7], "big")
    assert host == "127.0.0.1"
    return Association(control, (host, port))


async def test_datagrams_of_an_association_reach_every_target_and_come_back(
    bench: ClientBench,
) -> None:
    with (
        closing(UdpTarget(lambda data: b"1:" + data)) as one,
        closing(UdpTarget(lambda data: b"2:" + data)) as two,
        closing(await associated(bench)) as association,
    ):
        association.send("127.0.0.1", one.port, b"a")
        assert await association.receive() == b"\0\0\0" + encoded("127.0.0.1", one.port) + b"1:a"
        association.send("web.example", two.port, b"b")
        assert await association.receive() == b"\0\0\0" + encoded("web.example", two.port) + b"2:b"
        association.send("127.0.0.1", one.port, b"")
        assert (await association.receive())[10:] == b"1:"
        assert len(bench.reported(SessionOpened)) == 2


async def test_bad_datagrams_and_strangers_are_ignored(bench: ClientBench) -> None:
    with closing(UdpTarget()) as target, closing(await associated(bench)) as association:
        good = encoded("127.0.0.1", target.port)
        for bad in (b"", b"\0\0", b"\0\0\x01" + good + b"fragment", b"\0\0\0\x09", b"\0\0\0\x03"):
            association.socket.sendto(bad, association.relay)
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.2", 0))
            stranger.sendto(b"\0\0\0" + good + b"stranger", association.relay)
        association.send("127.0.0.1", target.port, b"good")
        assert await association.receive() == b"\0\0\0" + good + b"good"
        assert target.received == [b"good"]


async def test_an_association_ends_with_its_connection(bench: ClientBench) -> None:
    with closing(UdpTarget()) as target, closing(await associated(bench)) as association:
        association.send("127.0.0.1", target.port, b"x")
        await association.receive()
        association.control.close()
        await until(lambda: len(bench.client.sessions) == 0)
        with socket.socket(type=socket.SOCK_DGRAM) as again:
            again.bind(association.relay)  # the relay's port is free


async def test_an_association_needs_a_port_of_its_own(
    bench: ClientBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise LocalError("no port left")

    monkeypatch.setattr(socks_module, "bind", fail)
    with closing(await greeted(bench)) as sock:
        assert (await reply_to(sock, request(UDP_ASSOCIATE, "0.0.0.0", 0)))[0] == 1
