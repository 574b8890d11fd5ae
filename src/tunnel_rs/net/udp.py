"""A UDP socket that moves trains of datagrams: few wake-ups, few system calls.

asyncio's datagram endpoint delivers one datagram per loop iteration. This one drains the socket per
wake-up, takes coalesced datagrams from the kernel (UDP_GRO) and hands it whole trains (UDP_SEGMENT)
where the kernel can, and falls back at run time where it cannot.
"""

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from typing import Protocol, TypeVar

from tunnel_rs.errors import LocalError
from tunnel_rs.net.marks import set_mark
from tunnel_rs.net.moderation import PAUSE, ReceiveModeration
from tunnel_rs.values import SocketAddr

ControlMessage = tuple[int, int, bytes]

SockAddr = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module has it; IPv6 addresses are the 4-tuples."""

T = TypeVar("T")

BUFFER_SIZE = 4 << 20
"""Socket buffer asked for; the kernel may grant less."""

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # linux/in.h, linux/in6.h
_ANCILLARY_SIZE = 128
_LARGEST = 65_535
_GATHERED = 2 * _LARGEST + (64 << 10)
_READS_PER_WAKE = 64
_CALM = 0.0005
"""Seconds between lone datagrams after which no other is looked for behind one."""
_BYTES_PER_WAKE = 512 << 10
_SEGMENT_FORMAT = struct.Struct("=H")
_MAX_REMEMBERED = 4096
"""Peers whose way to us is remembered, and addresses to which sending failed."""
_NO_OFFLOAD = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE)

_PACKET_INFO = ((socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, _IPV6_PKTINFO))


class TrainSink(Protocol):
    """Who takes what arrives."""

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        """One train; the buffer is reused after the call."""

    def end_batch(self) -> None:
        """No more trains for now: process, then send."""

    def writable(self) -> None:
        """After `send_train` returned False: room again."""


def sock_addr(address: SocketAddr) -> SockAddr:
    """The socket module's form of an address."""
    return (address.ip, address.port, 0, 0) if address.is_ipv6 else (address.ip, address.port)


def from_sock_addr(address: SockAddr) -> SocketAddr:
    """Back from the socket module's form; a scope id is dropped."""
    return SocketAddr(address[0].partition("%")[0], address[1])


class UdpSocket:
    """One bound, non-blocking UDP socket in the running event loop.

    With `mirror`, what is sent to an address leaves from the local address that its datagrams came
    to. A server with several addresses needs that: clients drop answers from any other address
    than the one they dialled (RFC 9000 section 9), and the kernel would choose by its routes. Only
    a wildcard-bound socket on Linux does it; others have one address, or leave it to the kernel.
    """

    def __init__(self, sock: socket.socket, *, offload: bool = True, mirror: bool = False) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sink: TrainSink | None = None
        self._moderation = ReceiveModeration()
        self._pause: asyncio.TimerHandle | None = None
        self._rest: tuple[memoryview, int, SockAddr] | None = None
        self._waiting_to_write = False
        self._closed = False
        self._was_lone = False
        """The last wake-up brought one datagram."""
        self._woken_at = 0.0
        self._errors: dict[SockAddr, OSError] = {}
        self._sources: dict[SockAddr, ControlMessage] = {}
        self._source_messages: dict[bytes, ControlMessage] = {}
        self.address = from_sock_addr(sock.getsockname())
        """What we are bound to."""
        linux = sys.platform == "linux"
        self.segmentation = offload and linux
        self.coalescing = offload and linux and self._enable(_SOL_UDP, _UDP_GRO)
        self.mirroring = mirror and linux and self._enable_mirroring()
        # Without the kernel's help, datagrams are gathered one behind the other.
        self._view = memoryview(bytearray(_GATHERED))

    @classmethod
    def bind(
        cls,
        address: SocketAddr,
        *,
        offload: bool = True,
        mirror: bool = False,
        mark: int | None = None,
    ) -> "UdpSocket":
        """Bind to `address`; what is sent carries `mark` (Linux). Raises LocalError."""
        if not _watches_sockets(asyncio.get_running_loop()):
            raise LocalError(
                "this event loop cannot watch sockets; on Windows use asyncio.SelectorEventLoop"
            )
        family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as exc:
            raise LocalError(f"cannot bind UDP {address}: {_reason(exc)}") from exc
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _forbid_fragments(sock, family)
            if mark is not None:
                set_mark(sock, mark)
            sock.bind(sock_addr(address))
        except OSError as exc:
            sock.close()
            raise LocalError(f"cannot bind UDP {address}: {_reason(exc)}") from exc
        return cls(sock, offload=offload, mirror=mirror)

    def _enable(self, level: int, option: int) -> bool:
        try:
            self._sock.setsockopt(level, option, 1)
        except OSError:
            return False
        return True

    def _enable_mirroring(self) -> bool:
        if self.address.ip == "0.0.0.0":
            return self._enable(socket.IPPROTO_IP, _IP_PKTINFO)
        return self.address.ip == "::" and self._enable(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO)

    @property
    def receive_buffer(self) -> int:
        """Bytes the kernel granted for what waits to be read."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def receive_room(self) -> int:
        """Bytes of datagrams that may wait to be read. Linux counts its own overhead, which it
        takes to be as much again (socket(7), SO_RCVBUF)."""
        return self.receive_buffer // (2 if sys.platform == "linux" else 1)

    @property
    def send_buffer(self) -> int:
        """Bytes the kernel granted for what waits to leave."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def error(self, address: SockAddr) -> str:
        """Why the kernel refused to send there when we last tried (`network is unreachable`);
        empty when it did not."""
        error = self._errors.get(address)
        return "" if error is None else (error.strerror or str(error)).lower()

    def start(self, sink: TrainSink) -> None:
        """Deliver to `sink` from now on."""
        self._sink = sink
        self._loop.add_reader(self._sock, self._readable)

    def close(self) -> None:
        """Stop delivering and sending. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._rest = None
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()

    # Receiving

    def _readable(self) -> None:
        assert self._sink is not None
        read = self._read_trains if self.coalescing else self._gather
        lone = 0
        if self._was_lone:
            # A question or its answer: hand it on before asking whether there is more.
            lone = read(1)
            self._sink.end_batch()
            if self._closed:
                return
            last, self._woken_at = self._woken_at, self._loop.time()
            if lone == 1 and self._woken_at - last >= _CALM:
                return  # nothing else is likely; if it is there, the loop says so
        datagrams = lone + read(_READS_PER_WAKE)
        if datagrams > lone or not self._was_lone:
            self._sink.end_batch()
        self._was_lone = datagrams == 1
        if self._moderation.pause_after(datagrams, self._loop.time()) and not self._closed:
            self._loop.remove_reader(self._sock)
            self._pause = self._loop.call_later(PAUSE, self._look_again)

    def _look_again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._readable)
        self._readable()

    def _read_trains(self, most: int) -> int:
        """Deliver what the kernel has gathered, in at most `most` reads; returns how many datagrams
        there were.

        What it has not (packets that came one by one) is gathered here: each train delivered has
        a price of its own.
        """
        assert self._sink is not None
        view, deliver, read = self._view, self._sink.receive_train, self._read_message
        reads = datagrams = octets = start = end = segment_size = last = 0
        source: SockAddr = ("", 0)
        while reads < most and octets < _BYTES_PER_WAKE:
            reads += 1
            if end + _LARGEST > len(view):
                deliver(view[start:end], segment_size, source)
                start = end = last = 0
            try:
                size, each, address = read(view[end:])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # A queued ICMP error of an earlier send (Windows, or a connected peer); the
                # datagrams behind it are still there.
                continue
            # Nothing can be sent to port 0: such a source is forged.
            if not size or not address[1]:
                continue
            octets += size
            count = -(-size // each)
            datagrams += count
            fits = each == segment_size or (count == 1 and size < segment_size)
            if address != source or not fits or last != segment_size:
                if end > start:
                    deliver(view[start:end], segment_size, source)
                start, segment_size, source = end, each, address
            end += size
            last = size - (count - 1) * each
        if end > start:
            deliver(view[start:end], segment_size, source)
        return datagrams

    def _gather(self, most: int) -> int:
        """Read datagram by datagram, at most `most`, and deliver runs of one size from one address
        as trains."""
        assert self._sink is not None
        view, deliver = self._view, self._sink.receive_train
        read = self._read_message if self.mirroring else self._read_one
        reads = datagrams = start = end = segment_size = last = 0
        source: SockAddr = ("", 0)
        while reads < most and end + _LARGEST <= len(view):
            reads += 1
            try:
                size, _, address = read(view[end:])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue
            if not size or not address[1]:
                continue
            datagrams += 1
            if address != source or size > segment_size or last < segment_size:
                if end > start:
                    deliver(view[start:end], segment_size, source)
                start, segment_size, source = end, size, address
            end += size
            last = size
        if end > start:
            deliver(view[start:end], segment_size, source)
        return datagrams

    def _read_one(self, into: memoryview) -> tuple[int, int, SockAddr]:
        size, address = self._sock.recvfrom_into(into)
        return size, size, address

    def _read_message(self, into: memoryview) -> tuple[int, int, SockAddr]:
        size, ancillary, _, address = self._sock.recvmsg_into([into], _ANCILLARY_SIZE)
        segment_size = size
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment_size = int.from_bytes(data[:4], sys.byteorder)
            elif (level, kind) in _PACKET_INFO:
                self._remember_source(address, level, kind, data)
        return size, segment_size, address

    def _remember_source(self, address: SockAddr, level: int, kind: int, data: bytes) -> None:
        message = self._source_messages.get(data)
        if message is None:
            if len(self._source_messages) >= _MAX_REMEMBERED:
                self._source_messages.clear()
            # The interface stays open: the route decides, with our address given.
            if level == socket.IPPROTO_IP:
                reply = struct.pack("=i4s4x", 0, data[4:8])
            else:
                reply = struct.pack("=16si", data[:16], 0)
            message = self._source_messages[data] = (level, kind, reply)
        if self._sources.get(address) is not message:
            _remember(self._sources, address, message)

    # Sending

    def send_train(self, train: bytes | memoryview, segment_size: int, address: SockAddr) -> bool:
        """Send datagrams of `segment_size` (the last may be shorter). False when the socket is
        full: keep the train and send it again after `writable`. What the network cannot take is
        dropped like any lost datagram, and `error` tells why."""
        if self._rest is not None:
            return False
        several = len(train) > segment_size
        try:
            if several and not self.segmentation:
                self._send_apart(train, segment_size, address)
                return True
            self._send(train, segment_size if several else 0, address)
        except (BlockingIOError, InterruptedError):
            self._wait_writable()
            return False
        except OSError as exc:
            if several and exc.errno in _NO_OFFLOAD:
                if self._send_apart(train, segment_size, address) and exc.errno != errno.EMSGSIZE:
                    self.segmentation = False
            else:
                _remember(self._errors, address, exc)
            return True
        if self._errors:
            self._errors.pop(address, None)
        return True

    def _send(self, data: bytes | memoryview, segment_size: int, address: SockAddr) -> None:
        """One system call, segmented when `segment_size` is not 0. Raises OSError."""
        source = self._sources.get(address) if self.mirroring else None
        if not segment_size and source is None:
            self._sock.sendto(data, address)
            return
        control = [] if source is None else [source]
        if segment_size:
            control.append((_SOL_UDP, _UDP_SEGMENT, _SEGMENT_FORMAT.pack(segment_size)))
        try:
            self._sock.sendmsg([data], control, 0, address)
        except OSError as exc:
            if source is None or isinstance(exc, BlockingIOError | InterruptedError):
                raise
            # Our address may have gone with its interface; the kernel may know another.
            del self._sources[address]
            self._send(data, segment_size, address)

    def _send_apart(self, train: bytes | memoryview, segment_size: int, address: SockAddr) -> bool:
        """Send one by one. What a full socket does not take waits here, and everything behind it
        outside. False when the kernel refuses the address."""
        view = memoryview(train)
        for start in range(0, len(view), segment_size):
            try:
                self._send(view[start : start + segment_size], 0, address)
            except (BlockingIOError, InterruptedError):
                self._rest = (memoryview(bytes(view[start:])), segment_size, address)
                self._wait_writable()
                return True
            except OSError as exc:
                _remember(self._errors, address, exc)
                return False
        if self._errors:
            self._errors.pop(address, None)
        return True

    def _wait_writable(self) -> None:
        if not self._waiting_to_write:
            self._waiting_to_write = True
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        self._waiting_to_write = False
        self._loop.remove_writer(self._sock)
        rest, self._rest = self._rest, None
        if rest is not None:
            self._send_apart(*rest)
        if self._rest is None and self._sink is not None:
            self._sink.writable()


def _watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether it has `add_reader`, which the default loop of Windows has not."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def _forbid_fragments(sock: socket.socket, family: int) -> None:
    """QUIC probes what a path carries; its datagrams must not be fragmented (RFC 9000 section
    14). Where the option is not known, probing only finds less than it could."""
    ipv6 = family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
    # Linux: MTU_DISCOVER = PMTUDISC_PROBE; macOS and Windows: DONTFRAG.
    known = {"linux": (23 if ipv6 else 10, 3), "darwin": (62 if ipv6 else 28, 1), "win32": (14, 1)}
    if sys.platform in known:
        option, value = known[sys.platform]
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)


def _remember(memory: dict[SockAddr, T], address: SockAddr, value: T) -> None:
    """Keep `value` as the newest; the oldest gives way."""
    memory.pop(address, None)
    if len(memory) >= _MAX_REMEMBERED:
        del memory[next(iter(memory))]
    memory[address] = value


def _reason(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "the port is in use by another program; choose another or stop that one"
    if exc.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if exc.errno == errno.EACCES:
        return "no permission; ports below 1024 need privileges"
    return exc.strerror or str(exc)
