"""The sockets of LAN discovery: multicast DNS groups on every interface (RFC 6762 section 5).

One socket per interface and family, bound to the group where the system allows it, so that unicast
traffic of other responders on port 5353 is never taken away from them.
"""

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunnel_rs.net.interfaces import Interface, local_interfaces
from tunnel_rs.proto.lan_discovery import Packet, Where

MDNS_PORT = 5353
GROUP_V4 = "224.0.0.251"
GROUP_V6 = "ff02::fb"

RESCAN_INTERVAL = 5.0
"""Seconds between looks at the interfaces; a new look-up also looks."""

MAX_SOCKETS = 32
"""Interfaces x families; a host with hundreds of container networks gets the first of them."""

READS_PER_WAKE = 32
"""Datagrams read from one socket before other work gets its turn."""

PACKETS_PER_SECOND = 400
"""Datagrams read per socket; what a flood brings beyond that is left to the kernel to drop."""

_TTL = 16
_FRESH = 1.0
_BUDGET_WINDOW = 1.0
_BUFFER_SIZE = 2048  # more than any packet we accept, so that cut-off ones are recognised
_LINUX = sys.platform.startswith("linux")
_IP_MULTICAST_ALL = 49  # linux/in.h; without it groups joined by others on any interface come too


@dataclass(frozen=True, slots=True)
class _Place:
    """One interface in one family."""

    family: socket.AddressFamily
    index: int
    ip: str
    """IPv4 only: which address to send from. IPv6 is told apart by the index alone."""
    loopback: bool


def _places(interfaces: Sequence[Interface]) -> list[_Place]:
    places = []
    for each in interfaces:
        if each.ipv4:
            ip = str(each.ipv4[0])
            places.append(_Place(socket.AF_INET, each.index, ip, each.is_loopback))
        if each.ipv6 and not each.is_loopback:  # Linux has no IPv6 multicast there
            places.append(_Place(socket.AF_INET6, each.index, "", each.is_loopback))
    return places[:MAX_SOCKETS]


def _open_socket(place: _Place, port: int) -> socket.socket:
    """A non-blocking socket that is a member of the group at `place`. Raises OSError."""
    sock = socket.socket(place.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        (_join_v4 if place.family == socket.AF_INET else _join_v6)(sock, place, port)
    except OSError:
        sock.close()
        raise
    return sock


def _join_v4(sock: socket.socket, place: _Place, port: int) -> None:
    sock.bind((GROUP_V4 if _LINUX else "", port))
    group, interface = socket.inet_aton(GROUP_V4), socket.inet_aton(place.ip)
    if _LINUX:  # by index: unnumbered interfaces share addresses
        membership = struct.pack("@4s4si", group, interface, place.index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    else:
        membership = group + interface
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)


def _join_v6(sock: socket.socket, place: _Place, port: int) -> None:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((GROUP_V6, port, 0, place.index) if _LINUX else ("::", port))
    membership = socket.inet_pton(socket.AF_INET6, GROUP_V6) + struct.pack("@I", place.index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, place.index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)


class _Member:
    """One open socket, read within a budget."""

    def __init__(self, place: _Place, port: int, received: Callable[[bytes, str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = _open_socket(place, port)
        self._received = received
        self._group: tuple[str | int, ...] = (
            (GROUP_V4, port) if place.family == socket.AF_INET else (GROUP_V6, port, 0, place.index)
        )
        self._budget = PACKETS_PER_SECOND
        self._budget_until = 0.0
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._socket, self._readable)

    def send(self, data: bytes) -> None:
        """To the group, or nowhere: what fails now is said again soon."""
        try:
            self._socket.sendto(data, self._group)
        except OSError:
            return

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _readable(self) -> None:
        now = self._loop.time()
        if now >= self._budget_until:
            self._budget, self._budget_until = PACKETS_PER_SECOND, now + _BUDGET_WINDOW
        for _ in range(READS_PER_WAKE):
            if self._budget == 0:
                self._pause()
                return
            self._budget -= 1
            if not self._read_one():
                return

    def _read_one(self) -> bool:
        try:
            data, source = self._socket.recvfrom(_BUFFER_SIZE)
        except OSError:  # nothing left, or an error of an earlier send
            return False
        self._received(data, source[0].partition("%")[0])
        return self._socket.fileno() >= 0  # the receiver may have closed us

    def _pause(self) -> None:
        self._loop.remove_reader(self._socket)
        self._resume = self._loop.call_at(
            self._budget_until, self._loop.add_reader, self._socket, self._readable
        )


def _ignore() -> None:
    """Nobody wants to know."""


class MulticastGroups:
    """Membership in both groups on all interfaces, following them as they come and go.

    `received(packet, source_ip)` gets what arrives, our own packets included. `changed()` is called
    when an interface has been added later on; `unavailable(error)` once, when there is no
    interface that can be used (it is tried again with each look at the interfaces).
    """

    def __init__(
        self,
        received: Callable[[bytes, str], None],
        *,
        changed: Callable[[], None] = _ignore,
        unavailable: Callable[[OSError], None] = lambda error: None,
        scan: Callable[[], Sequence[Interface]] = local_interfaces,
        port: int = MDNS_PORT,
    ) -> None:
        self._received = received
        self._changed = changed
        self._unavailable: Callable[[OSError], None] | None = unavailable
        self._scan = scan
        self._port = port
        self._members: dict[_Place, _Member] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._scanned_at = 0.0
        self._is_open = False
        self.interfaces: tuple[Interface, ...] = ()
        """As of the last look."""

    def open(self) -> None:
        """Join. Needs a running event loop; never fails, see `unavailable`."""
        self._is_open = True
        self._rescan()

    def close(self) -> None:
        """Leave. Nothing is called afterwards. Idempotent."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        for member in self._members.values():
            member.close()
        self._members.clear()

    def send(self, packet: Packet) -> None:
        """Send to the groups on the interfaces that the packet is for."""
        for place, member in self._members.items():
            if packet.where is Where.EVERYWHERE or place.loopback == (
                packet.where is Where.LOOPBACK
            ):
                member.send(packet.data)

    def refresh(self) -> None:
        """Look at the interfaces now, unless that was a moment ago."""
        if asyncio.get_running_loop().time() - self._scanned_at > _FRESH:
            self._rescan()

    def _rescan(self) -> None:
        if not self._is_open:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(RESCAN_INTERVAL, self._rescan)
        self._scanned_at = loop.time()
        first = not self.interfaces
        added, error = self._follow_interfaces()
        if not self._members and self._unavailable is not None:
            unavailable, self._unavailable = self._unavailable, None
            unavailable(error or OSError(errno.ENETDOWN, "there is no network interface"))
        elif added and not first:
            self._changed()

    def _follow_interfaces(self) -> tuple[bool, OSError | None]:
        """Open and close sockets to match the interfaces: was one added, and the last error."""
        added, error = False, None
        try:
            self.interfaces = tuple(self._scan())
        except OSError as caught:
            return False, caught
        places = _places(self.interfaces)
        for place in self._members.keys() - places:
            self._members.pop(place).close()
        for place in places:
            if place in self._members:
                continue
            try:
                self._members[place] = _Member(place, self._port, self._received)
                added = True
            except OSError as caught:
                error = caught
        return added, error
