"""UDP sockets of forwarded flows: all datagrams that wait are read in one go, none is queued."""

import asyncio
import socket
from collections.abc import Callable, Sequence

from tunnel_rs.errors import TargetError
from tunnel_rs.proto.happy_eyeballs import order
from tunnel_rs.values import SocketAddr

Address = tuple[str, int] | tuple[str, int, int, int]
"""As the socket module gives it: (ip, port) for IPv4, (ip, port, flow, scope) for IPv6."""

Batch = list[tuple[bytes, Address]]

MAX_BATCH = 64
"""Datagrams read per wake-up; more would keep other sockets waiting."""

RECEIVE_BUFFER = 1 << 20
"""Bytes asked of the kernel (it may give less) for bursts that come while the loop is busy."""

_MAX_DATAGRAM = 65_535


class DatagramSocket:
    """A non-blocking UDP socket, bound or connected, which this then owns."""

    def __init__(self, sock: socket.socket, on_batch: Callable[[Batch], None]) -> None:
        self._socket = sock
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._loop.add_reader(sock, self._readable)

    def send(self, payload: bytes, address: Address | None = None) -> bool:
        """Send one datagram, to `address` unless the socket is connected. False when it was
        dropped: the kernel's buffer is full, it is too long, or the target refused earlier ones.
        That is what UDP does; nothing is kept."""
        try:
            if address is None:
                self._socket.send(payload)
            else:
                self._socket.sendto(payload, address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Idempotent."""
        if self._socket.fileno() != -1:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        batch: Batch = []
        for _ in range(MAX_BATCH):
            try:
                batch.append(self._socket.recvfrom(_MAX_DATAGRAM))
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error for something sent earlier: reading it cleared it
        if batch:
            self._on_batch(batch)


def connect_udp(ips: Sequence[str], port: int, source: str | None = None) -> socket.socket:
    """A non-blocking UDP socket connected to the first of `ips` (all allowed by policy) that this
    machine has a route to, from our address `source`, if that matters. Raises TargetError naming
    each address and why it does not work."""
    failures: list[str] = []
    for ip in order(ips):
        sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            if source is not None:
                sock.bind((source, 0))
            sock.connect(_where(ip, port))
        except OSError as error:
            sock.close()
            failures.append(f"{SocketAddr(ip, port)}: {(error.strerror or str(error)).lower()}")
        else:
            return sock
    raise TargetError(f"cannot send: {'; '.join(failures) or 'no address to try'}")


def _where(ip: str, port: int) -> Address:
    """With the interface's number where `ip` names one; `connect` does not look for it."""
    if "%" not in ip:
        return ip, port
    ip, _, interface = ip.partition("%")
    return ip, port, 0, socket.if_nametoindex(interface)
