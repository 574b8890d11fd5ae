"""Tests of `tunnel_rs.net.udp`: real loopback sockets, and stand-ins for kernels that refuse."""

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net import udp
from tunnel_rs.net.udp import SockAddr, UdpSocket, from_sock_addr, sock_addr
from tunnel_rs.values import SocketAddr

LOOPBACK = SocketAddr("127.0.0.1", 0)
LOOPBACK_V6 = SocketAddr("::1", 0)
linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")


class Sink:
    """Takes datagrams apart again, and lets a test wait for them."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.trains: list[tuple[int, int]] = []
        self.sources: list[SockAddr] = []
        self.batches = 0
        self.rooms = 0
        self.changed = asyncio.Event()

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        data = bytes(train)
        self.trains.append((len(data), segment_size))
        self.sources.append(address)
        self.datagrams += [
            data[start : start + segment_size] for start in range(0, len(data), segment_size)
        ]

    def end_batch(self) -> None:
        self.batches += 1
        self.changed.set()

    def writable(self) -> None:
        self.rooms += 1
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Kernel:
    """A socket that answers system calls with what the test has laid out, then works again."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.answers: dict[str, list[int]] = {"sendto": [], "sendmsg": [], "recvmsg_into": []}
        self.calls: list[str] = []
        self.controls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def fileno(self) -> int:
        return self._sock.fileno()

    def _answer(self, call: str) -> None:
        self.calls.append(call)
        if self.answers[call]:
            code = self.answers[call].pop(0)
            if code:
                raise OSError(code, os.strerror(code))

    def sendto(self, data: Any, address: Any) -> int:
        self._answer("sendto")
        return self._sock.sendto(data, address)

    def sendmsg(self, buffers: Any, control: Any, flags: int, address: Any) -> int:
        self.controls.append(control)
        self._answer("sendmsg")
        return self._sock.sendmsg(buffers, control, flags, address)

    def recvmsg_into(self, buffers: Any, size: int) -> Any:
        self._answer("recvmsg_into")
        return self._sock.recvmsg_into(buffers, size)


Open = Callable[..., tuple[UdpSocket, Sink]]
OpenKernel = Callable[..., tuple[UdpSocket, Sink, Kernel]]


@pytest.fixture
async def open_socket() -> AsyncIterator[Open]:
    opened: list[UdpSocket] = []

    def open_one(address: SocketAddr = LOOPBACK, **options: bool) -> tuple[UdpSocket, Sink]:
        sock, sink = UdpSocket.bind(address, **options), Sink()
        sock.start(sink)
        opened.append(sock)
        return sock, sink

    yield open_one
    for sock in opened:
        sock.close()


@pytest.fixture
async def open_kernel() -> AsyncIterator[OpenKernel]:
    opened: list[UdpSocket] = []

    def open_one(*, offload: bool = True) -> tuple[UdpSocket, Sink, Kernel]:
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        raw.setblocking(False)
        raw.bind(("127.0.0.1", 0))
        kernel, sink = Kernel(raw), Sink()
        sock = UdpSocket(kernel, offload=offload)  # type: ignore[arg-type]
        sock.start(sink)
        opened.append(sock)
        return sock, sink, kernel

    yield open_one
    for sock in opened:
        sock.close()


def numbered(count: int, size: int = 100, last: int | None = None) -> bytes:
    """A train of `count` datagrams that differ; the last one may be shorter."""
    parts = [bytes([number]) * size for number in range(count)]
    parts[-1] = parts[-1][: last or size]
    return b"".join(parts)


def datagrams(count: int, size: int = 100, last: int | None = None) -> list[bytes]:
    train = numbered(count, size, last)
    return [train[start : start + size] for start in range(0, len(train), size)]


# Addresses and binding


@pytest.mark.parametrize("address", [SocketAddr("192.0.2.7", 1), SocketAddr("2001:db8::7", 65535)])
def test_addresses_convert_to_the_socket_module_s_form_and_back(address: SocketAddr) -> None:
    assert from_sock_addr(sock_addr(address)) == address
    assert hash(sock_addr(address)) == hash(sock_addr(address))


def test_a_scope_id_is_dropped_from_an_address() -> None:
    assert from_sock_addr(("fe80::1%lo", 7, 0, 1)) == SocketAddr("fe80::1", 7)


async def test_a_port_in_use_is_a_local_error_that_says_what_to_do(open_socket: Open) -> None:
    taken, _ = open_socket()
    with pytest.raises(LocalError, match=f"^cannot bind UDP {taken.address}: the port is in use"):
        UdpSocket.bind(taken.address)


async def test_an_address_of_another_machine_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="192.0.2.1:0: this machine does not have that address"):
        UdpSocket.bind(SocketAddr("192.0.2.1", 0))


async def test_a_port_that_needs_privileges_is_a_local_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(LocalError, match="no permission; ports below 1024 need privileges"):
        UdpSocket.bind(SocketAddr("127.0.0.1", 53))


async def test_a_machine_without_the_address_family_gives_a_local_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(LocalError, match="Address family not supported"):
        UdpSocket.bind(LOOPBACK_V6)


async def test_the_kernel_is_asked_for_a_large_buffer(open_socket: Open) -> None:
    sock, _ = open_socket()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert sock.receive_buffer >= default
    assert 0 < sock.receive_room <= sock.receive_buffer


# Trains


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("address", [LOOPBACK, LOOPBACK_V6], ids=["IPv4", "IPv6"])
async def test_a_train_arrives_whole_and_in_order(
    open_socket: Open, address: SocketAddr, offload: bool
) -> None:
    one, _ = open_socket(address, offload=offload)
    other, sink = open_socket(address, offload=offload)
    assert one.send_train(numbered(40, 1200, last=7), 1200, sock_addr(other.address))
    await sink.until(lambda: len(sink.datagrams) == 40)
    assert sink.datagrams == datagrams(40, 1200, last=7)
    assert {from_sock_addr(source) for source in sink.sources} == {one.address}


@linux
async def test_a_train_of_sixty_datagrams_is_one_train_at_the_other_end(open_socket: Open) -> None:
    one, _ = open_socket()
    other, sink = open_socket()
    one.send_train(numbered(50, 1200), 1200, sock_addr(other.address))
    await sink.until(lambda: len(sink.datagrams) == 50)
    assert sink.trains == [(60_000, 1200)]


async def test_many_datagrams_are_taken_in_few_wake_ups(open_socket: Open) -> None:
    one, _ = open_socket(offload=False)
    other, sink = open_socket(offload=False)
    for number in range(100):
        one.send_train(bytes([number]), 1, sock_addr(other.address))
    await sink.until(lambda: len(sink.datagrams) == 100)
    assert sink.datagrams == [bytes([number]) for number in range(100)]
    assert sink.batches == 2  # 64 datagrams a wake-up, so that nothing else starves


async def test_an_empty_datagram_does_not_reach_the_sink_but_the_one_behind_it_does(
    open_socket: Open,
) -> None:
    other, sink = open_socket()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", sock_addr(other.address))
        sender.sendto(b"x", sock_addr(other.address))
    await sink.until(lambda: bool(sink.datagrams))
    assert sink.datagrams == [b"x"]


async def test_the_largest_datagram_is_taken(open_socket: Open) -> None:
    one, _ = open_socket()
    other, sink = open_socket()
    one.send_train(bytes(65_507), 65_507, sock_addr(other.address))
    await sink.until(lambda: bool(sink.datagrams))
    assert [len(data) for data in sink.datagrams] == [65_507]


async def test_a_queued_error_does_not_hide_the_datagrams_behind_it(
    open_kernel: OpenKernel,
) -> None:
    sock, sink, kernel = open_kernel()
    if not sock.coalescing:
        pytest.skip("only on Linux")
    kernel.answers["recvmsg_into"] = [errno.ECONNREFUSED, errno.ECONNRESET]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"after", sock_addr(sock.address))
    await sink.until(lambda: bool(sink.datagrams))
    assert sink.datagrams == [b"after"]


async def test_errors_without_end_do_not_hold_up_the_loop(open_kernel: OpenKernel) -> None:
    sock, sink, kernel = open_kernel()
    if not sock.coalescing:
        pytest.skip("only on Linux")
    kernel.answers["recvmsg_into"] = [errno.ECONNREFUSED] * 1000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", sock_addr(sock.address))
    await sink.until(lambda: sink.batches == 1)
    assert len(kernel.calls) == 64
    await sink.until(lambda: bool(sink.datagrams))


async def test_a_datagram_from_port_zero_is_dropped(
    open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, sink = open_socket()
    answers: list[tuple[int, int, SockAddr]] = [
        (4, 4, ("127.0.0.1", 0)),
        (4, 4, ("127.0.0.1", 9)),
    ]

    def read(_: memoryview) -> tuple[int, int, SockAddr]:
        if not answers:
            raise BlockingIOError
        return answers.pop(0)

    monkeypatch.setattr(sock, "_read_message", read)
    monkeypatch.setattr(sock, "_read_one", read)
    sock._readable()
    assert sink.sources == [("127.0.0.1", 9)]


# Kernels that refuse


@linux
@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP])
async def test_segmentation_that_the_kernel_refuses_is_done_without_from_then_on(
    open_kernel: OpenKernel, code: int
) -> None:
    sock, _, kernel = open_kernel()
    _, sink, other = open_kernel()
    kernel.answers["sendmsg"] = [code]
    to = other.getsockname()
    assert sock.send_train(numbered(5), 100, to)
    assert not sock.segmentation
    assert sock.send_train(numbered(5), 100, to)
    await sink.until(lambda: len(sink.datagrams) == 10)
    assert sink.datagrams == datagrams(5) * 2
    assert kernel.calls.count("sendmsg") == 1
    assert sock.error(to) == ""


@linux
async def test_a_train_too_long_for_the_path_is_sent_apart_and_the_next_one_whole(
    open_kernel: OpenKernel,
) -> None:
    sock, _, kernel = open_kernel()
    _, sink, other = open_kernel()
    kernel.answers["sendmsg"] = [errno.EMSGSIZE]
    for _ in range(2):
        assert sock.send_train(numbered(5), 100, other.getsockname())
    await sink.until(lambda: len(sink.datagrams) == 10)
    assert sock.segmentation
    assert kernel.calls.count("sendmsg") == 2


@linux
async def test_an_address_the_kernel_refuses_does_not_cost_the_others_segmentation(
    open_kernel: OpenKernel,
) -> None:
    sock, _, kernel = open_kernel()
    kernel.answers["sendmsg"] = [errno.EINVAL]
    kernel.answers["sendto"] = [errno.EINVAL]
    assert sock.send_train(numbered(5), 100, ("127.0.0.1", 9))
    assert sock.segmentation
    assert sock.error(("127.0.0.1", 9)) == "invalid argument"
    assert kernel.calls.count("sendto") == 1  # the others would fail alike


async def test_a_send_error_is_remembered_for_its_address_until_sending_works(
    open_kernel: OpenKernel,
) -> None:
    sock, _, kernel = open_kernel()
    there, elsewhere = ("127.0.0.1", 9), ("127.0.0.1", 10)
    kernel.answers["sendto"] = [errno.ENETUNREACH, 0, errno.EHOSTUNREACH]
    assert sock.send_train(b"x", 1, there)
    assert sock.error(there) == "network is unreachable"
    assert sock.error(elsewhere) == ""
    assert sock.send_train(b"x", 1, elsewhere)
    assert sock.error(there) == "network is unreachable"
    assert sock.send_train(b"x", 1, there)
    assert sock.error(there) == "no route to host"
    assert sock.send_train(b"x", 1, there)
    assert sock.error(there) == ""


async def test_no_more_than_so_many_send_errors_are_remembered(
    open_kernel: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "_MAX_REMEMBERED", 3)
    sock, _, kernel = open_kernel()
    kernel.answers["sendto"] = [errno.ENETUNREACH] * 5
    for port in range(1, 6):
        sock.send_train(b"x", 1, ("127.0.0.1", port))
    known = [bool(sock.error(("127.0.0.1", port))) for port in range(1, 6)]
    assert known == [False, False, True, True, True]


@linux
async def test_what_a_real_kernel_refuses_is_told(open_socket: Open) -> None:
    sock, _ = open_socket(LOOPBACK_V6)
    assert sock.send_train(b"x", 1, ("::1", 0, 0, 0))
    assert sock.error(("::1", 0, 0, 0)) == "invalid argument"


# A full socket


async def test_a_full_socket_refuses_and_says_when_there_is_room(open_kernel: OpenKernel) -> None:
    sock, sink, kernel = open_kernel()
    kernel.answers["sendto"] = [errno.EAGAIN]
    assert not sock.send_train(b"x", 1, ("127.0.0.1", 9))
    await sink.until(lambda: sink.rooms == 1)
    assert sock.send_train(b"x", 1, ("127.0.0.1", 9))
    assert sock.error(("127.0.0.1", 9)) == ""


@linux
async def test_a_segmented_train_is_refused_whole_by_a_full_socket(open_kernel: OpenKernel) -> None:
    sock, sink, kernel = open_kernel()
    kernel.answers["sendmsg"] = [errno.EAGAIN]
    assert not sock.send_train(numbered(3), 100, ("127.0.0.1", 9))
    await sink.until(lambda: sink.rooms == 1)
    assert sock.segmentation


async def test_a_train_cut_by_a_full_socket_is_finished_before_the_next_one(
    open_kernel: OpenKernel,
) -> None:
    sock, room, kernel = open_kernel(offload=False)
    _, sink, other = open_kernel(offload=False)
    to = other.getsockname()
    train = bytearray(numbered(5))
    kernel.answers["sendto"] = [0, 0, errno.EAGAIN, errno.EAGAIN]
    assert sock.send_train(memoryview(train), 100, to)
    train[:] = bytes(len(train))  # the caller's buffer is its own again
    assert not sock.send_train(b"next", 4, to)
    await room.until(lambda: room.rooms == 1)
    assert sock.send_train(b"next", 4, to)
    await sink.until(lambda: len(sink.datagrams) == 6)
    assert sink.datagrams == [*datagrams(5), b"next"]
    assert room.rooms == 1


async def test_a_socket_closed_while_full_says_nothing_any_more(open_kernel: OpenKernel) -> None:
    sock, sink, kernel = open_kernel(offload=False)
    kernel.answers["sendto"] = [0, errno.EAGAIN]
    assert sock.send_train(numbered(3), 100, ("127.0.0.1", 9))
    sock.close()
    sock.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sink.rooms == 0
    assert sock.address.port


async def test_a_socket_closed_by_its_own_reader_stops_delivering(open_socket: Open) -> None:
    sock, sink = open_socket()
    closing = asyncio.Event()

    def close() -> None:
        sock.close()
        closing.set()

    sink.end_batch = close  # type: ignore[method-assign]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"x", sock_addr(sock.address))
        await closing.wait()
        assert len(sink.datagrams) == 64
        await asyncio.sleep(0)
    assert len(sink.datagrams) == 64


async def test_sending_on_a_closed_socket_is_like_a_lost_datagram(open_socket: Open) -> None:
    sock, _ = open_socket()
    sock.close()
    assert sock.send_train(b"x", 1, ("127.0.0.1", 9))
    assert sock.error(("127.0.0.1", 9)) == "bad file descriptor"


# Answering from the address that was written to


@linux
@pytest.mark.parametrize("offload", [True, False])
async def test_a_mirroring_socket_answers_from_the_address_it_was_written_to(
    open_socket: Open, offload: bool
) -> None:
    server, sink = open_socket(SocketAddr("0.0.0.0", 0), mirror=True, offload=offload)
    client, answers = open_socket(offload=offload)
    port = server.address.port
    for ip in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
        seen, heard = len(sink.datagrams), len(answers.datagrams)
        client.send_train(b"question", 8, (ip, port))
        await sink.until(lambda seen=seen: len(sink.datagrams) > seen)  # type: ignore[misc]
        server.send_train(numbered(5), 100, sink.sources[-1])
        server.send_train(b"one", 3, sink.sources[-1])
        await answers.until(
            lambda heard=heard: len(answers.datagrams) == heard + 6  # type: ignore[misc]
        )
        assert answers.datagrams[heard:] == [*datagrams(5), b"one"]
        assert set(answers.sources) == {(ip, port)}
        answers.sources.clear()


@linux
async def test_a_mirroring_ipv6_socket_sets_the_source_address(open_socket: Open) -> None:
    server, sink = open_socket(SocketAddr("::", 0), mirror=True)
    client, answers = open_socket(LOOPBACK_V6)
    client.send_train(b"question", 8, ("::1", server.address.port, 0, 0))
    await sink.until(lambda: bool(sink.datagrams))
    assert list(server._sources.values()) == [
        (socket.IPPROTO_IPV6, 50, socket.inet_pton(socket.AF_INET6, "::1") + bytes(4))
    ]
    server.send_train(numbered(5), 100, sink.sources[-1])
    await answers.until(lambda: len(answers.datagrams) == 5)
    assert answers.sources == [("::1", server.address.port, 0, 0)]


@linux
async def test_a_source_address_that_is_gone_is_left_to_the_kernel(open_socket: Open) -> None:
    server, _ = open_socket(SocketAddr("0.0.0.0", 0), mirror=True)
    client, answers = open_socket()
    to = sock_addr(client.address)
    gone = (socket.IPPROTO_IP, 8, struct.pack("=i4s4x", 0, socket.inet_aton("192.0.2.1")))
    server._sources[to] = gone
    assert server.send_train(numbered(3), 100, to)
    assert to not in server._sources
    server._sources[to] = gone
    assert server.send_train(b"one", 3, to)
    await answers.until(lambda: len(answers.datagrams) == 4)
    assert answers.datagrams == [*datagrams(3), b"one"]
    assert server.segmentation
    assert server.error(to) == ""


@linux
async def test_the_ways_remembered_are_bounded_and_the_newest_are_kept(
    open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "_MAX_REMEMBERED", 2)
    server, sink = open_socket(SocketAddr("0.0.0.0", 0), mirror=True)
    clients = [open_socket()[0] for _ in range(4)]
    for client in clients:
        client.send_train(b"x", 1, ("127.0.0.1", server.address.port))
    await sink.until(lambda: len(sink.datagrams) == 4)
    assert list(server._sources) == [sock_addr(client.address) for client in clients[2:]]


async def test_a_socket_bound_to_one_address_has_nothing_to_mirror(open_socket: Open) -> None:
    server, sink = open_socket(mirror=True)
    client, _ = open_socket()
    assert not server.mirroring
    client.send_train(b"x", 1, sock_addr(server.address))
    await sink.until(lambda: bool(sink.datagrams))
    assert not server._sources


async def test_without_offload_from_the_kernel_everything_still_works(
    open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    one, _ = open_socket(mirror=True)
    other, sink = open_socket(SocketAddr("0.0.0.0", 0), mirror=True)
    assert not (one.segmentation or one.coalescing or other.mirroring)
    one.send_train(numbered(5), 100, ("127.0.0.1", other.address.port))
    await sink.until(lambda: len(sink.datagrams) == 5)
    assert sink.datagrams == datagrams(5)


@linux
async def test_a_kernel_without_coalescing_is_noticed_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(udp, "_UDP_GRO", 9999)
    sock = UdpSocket.bind(LOOPBACK)
    assert not sock.coalescing
    sock.close()


@linux
async def test_datagrams_the_kernel_has_not_coalesced_are_joined_to_trains(
    open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, sink = open_socket()
    one, other = ("127.0.0.1", 9), ("127.0.0.1", 10)
    reads: list[tuple[bytes, int, SockAddr]] = [
        (b"a" * 4, 4, one),
        (b"b" * 8, 4, one),  # coalesced by the kernel
        (b"c" * 3, 3, one),  # a shorter one ends a train
        (b"d" * 4, 4, one),
        (b"e" * 4, 4, other),
    ]

    def read(into: memoryview) -> tuple[int, int, SockAddr]:
        if not reads:
            raise BlockingIOError
        data, segment_size, address = reads.pop(0)
        into[: len(data)] = data
        return len(data), segment_size, address

    trains: list[tuple[bytes, int, SockAddr]] = []
    monkeypatch.setattr(sock, "_read_message", read)
    monkeypatch.setattr(
        sink,
        "receive_train",
        lambda train, size, source: trains.append((bytes(train), size, source)),
    )
    assert sock._read_trains(64) == 6
    assert trains == [
        (b"aaaabbbbbbbbccc", 4, one),
        (b"dddd", 4, one),
        (b"eeee", 4, other),
    ]


async def test_no_other_datagram_is_looked_for_behind_a_lone_one_unless_they_come_fast(
    open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, sink = open_socket()
    clock = SimpleNamespace(time=lambda: now)
    waiting: list[bytes] = []
    looks = 0

    def read(into: memoryview) -> tuple[int, int, SockAddr]:
        nonlocal looks
        looks += 1
        if not waiting:
            raise BlockingIOError
        data = waiting.pop(0)
        into[: len(data)] = data
        return len(data), len(data), ("127.0.0.1", 9)

    def wake(*datagrams: bytes) -> int:
        nonlocal looks
        waiting.extend(datagrams)
        looks = 0
        sock._readable()
        return looks

    with monkeypatch.context() as patched:
        patched.setattr(sock, "_loop", clock)
        patched.setattr(sock, "_read_message", read)
        patched.setattr(sock, "_read_one", read)
        now = 10.0
        assert wake(b"question") == 2
        now = 10.001
        assert wake(b"question", b"burst") == 1
        assert sink.datagrams == [b"question"] * 2
        now = 10.0011
        assert wake(b"goes", b"on") == 4
        assert sink.datagrams[2:] == [b"burst", b"goes", b"on"]


async def test_an_event_loop_that_cannot_watch_sockets_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the default one of Windows: it inherits what all loops may implement."""
    loop = type(asyncio.get_running_loop())
    monkeypatch.setattr(loop, "add_reader", asyncio.AbstractEventLoop.add_reader)
    with pytest.raises(LocalError, match="cannot watch sockets; on Windows use"):
        UdpSocket.bind(SocketAddr("127.0.0.1", 0))
