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
from typing import Protocol

from tunnel_rs.errors import LocalError
from tunnel_rs.values import SocketAddr

SockAddr = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module has it; IPv6 addresses are the 4-tuples."""

BUFFER_SIZE = 4 << 20
"""Socket buffer asked for; the kernel may grant less."""

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_LARGEST = 65_535
_DATAGRAMS_PER_WAKE = 64
_BYTES_PER_WAKE = 512 << 10
_SEGMENT_FORMAT = struct.Struct("=H")
_NO_OFFLOAD = (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE)


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
    """One bound, non-blocking UDP socket in the running event loop."""

    def __init__(self, sock: socket.socket, *, offload: bool = True) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sink: TrainSink | None = None
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)
        self._waiting_to_write = False
        self.family = sock.family
        self.segmentation = offload and sys.platform == "linux"
        self.coalescing = offload and self._enable_coalescing()
        self.last_error: OSError | None = None
        """Why the kernel last refused to send somewhere (no route, not permitted)."""

    @classmethod
    def bind(cls, address: SocketAddr, *, offload: bool = True) -> "UdpSocket":
        """Bind to `address`. Raises LocalError."""
        family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _forbid_fragments(sock, family)
            sock.bind(sock_addr(address))
        except OSError as exc:
            sock.close()
            raise LocalError(f"cannot bind UDP {address}: {_reason(exc)}") from exc
        return cls(sock, offload=offload)

    def _enable_coalescing(self) -> bool:
        if sys.platform != "linux":
            return False
        try:
            self._sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return False
        return True

    @property
    def address(self) -> SocketAddr:
        """What we are bound to."""
        return from_sock_addr(self._sock.getsockname())

    @property
    def receive_buffer(self) -> int:
        """Bytes the kernel granted for what waits to be read."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def send_buffer(self) -> int:
        """Bytes the kernel granted for what waits to leave."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def start(self, sink: TrainSink) -> None:
        """Deliver to `sink` from now on."""
        self._sink = sink
        self._loop.add_reader(self._sock, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()

    # Receiving

    def _readable(self) -> None:
        assert self._sink is not None
        read = self._read_coalesced if self.coalescing else self._read_one
        datagrams = octets = 0
        while datagrams < _DATAGRAMS_PER_WAKE and octets < _BYTES_PER_WAKE:
            try:
                size, segment_size, address = read()
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # A queued ICMP error of an earlier send (Windows, or a connected peer); the
                # datagrams behind it are still there.
                datagrams += 1
                continue
            octets += size
            datagrams += 1
            if size:
                self._sink.receive_train(self._view[:size], segment_size, address)
        self._sink.end_batch()

    def _read_one(self) -> tuple[int, int, SockAddr]:
        size, address = self._sock.recvfrom_into(self._buffer)
        return size, size, address

    def _read_coalesced(self) -> tuple[int, int, SockAddr]:
        size, ancillary, _, address = self._sock.recvmsg_into([self._buffer], 64)
        segment_size = size
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment_size = int.from_bytes(data[:4], sys.byteorder)
        return size, segment_size, address

    # Sending

    def send_train(self, train: bytes | memoryview, segment_size: int, address: SockAddr) -> bool:
        """Send datagrams of `segment_size` (the last may be shorter). False when the socket is
        full: keep the train and send it again after `writable`. What the network cannot take is
        dropped like any lost datagram."""
        try:
            if len(train) <= segment_size:
                self._sock.sendto(train, address)
            elif self.segmentation:
                self._send_segmented(train, segment_size, address)
            else:
                return self._send_apart(train, segment_size, address)
        except (BlockingIOError, InterruptedError):
            self._wait_writable()
            return False
        except OSError as exc:
            if len(train) > segment_size and exc.errno in _NO_OFFLOAD:
                if exc.errno != errno.EMSGSIZE:
                    self.segmentation = False
                return self._send_apart(train, segment_size, address)
            self.last_error = exc
        return True

    def _send_segmented(
        self, train: bytes | memoryview, segment_size: int, address: SockAddr
    ) -> None:
        control = [(_SOL_UDP, _UDP_SEGMENT, _SEGMENT_FORMAT.pack(segment_size))]
        self._sock.sendmsg([train], control, 0, address)

    def _send_apart(self, train: bytes | memoryview, segment_size: int, address: SockAddr) -> bool:
        view = memoryview(train)
        for start in range(0, len(view), segment_size):
            try:
                self._sock.sendto(view[start : start + segment_size], address)
            except (BlockingIOError, InterruptedError):
                # A full socket loses the rest, as a full queue on the path would; the next train
                # waits until there is room.
                self._wait_writable()
                return True
            except OSError as exc:
                self.last_error = exc
        return True

    def _wait_writable(self) -> None:
        if not self._waiting_to_write:
            self._waiting_to_write = True
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        self._waiting_to_write = False
        self._loop.remove_writer(self._sock)
        if self._sink is not None:
            self._sink.writable()


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


def _reason(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "the port is in use by another program; choose another or stop that one"
    if exc.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if exc.errno == errno.EACCES:
        return "no permission; ports below 1024 need privileges"
    return exc.strerror or str(exc)
