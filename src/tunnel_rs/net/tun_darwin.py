"""TUN devices of macOS: utun, by a kernel control socket (XNU `bsd/net/if_utun.h`).

Every packet has its address family in front, 4 bytes, big-endian. Not yet run on a real machine.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Protocol

from tunnel_rs.errors import LocalError
from tunnel_rs.net.tun import MAX_BATCH, MAX_BATCH_BYTES, OnPackets
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD

CONTROL = "com.apple.net.utun_control"
_PF_SYSTEM, _SYSPROTO_CONTROL, _UTUN_OPT_IFNAME = 32, 2, 2
_FAMILY_SIZE = 4
_FAMILY_4, _FAMILY_6 = (2).to_bytes(4, "big"), (30).to_bytes(4, "big")


class ControlSocket(Protocol):
    """What is used of a socket."""

    def fileno(self) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes, /) -> int: ...

    def close(self) -> None: ...


def open_device(name: str | None = None) -> "DarwinTun":
    """Make a device; the system names it. Raises LocalError."""
    if name is not None:
        raise LocalError(f"macOS names its devices itself; leave the name {name} out")
    sock = socket.socket(_PF_SYSTEM, socket.SOCK_DGRAM, _SYSPROTO_CONTROL)
    try:
        sock.connect(CONTROL)
        sock.setblocking(False)
        made = sock.getsockopt(_SYSPROTO_CONTROL, _UTUN_OPT_IFNAME, 128)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EPERM, errno.EACCES):
            raise LocalError("no permission to create a TUN device: run it as root") from None
        raise LocalError(f"cannot create a TUN device: {error.strerror}") from None
    return DarwinTun(sock, made.rstrip(b"\0").decode())


class DarwinTun:
    """See `net.tun.TunDevice`. Owns its socket. Make it in a running loop."""

    can_offload = False

    def __init__(self, sock: ControlSocket, name: str) -> None:
        self.name = name
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_packets: OnPackets | None = None
        self._on_lost: Callable[[OSError], None] | None = None
        self._reading = self._paused = self._closed = False

    def start(self, on_packets: OnPackets, on_lost: Callable[[OSError], None]) -> None:
        self._on_packets, self._on_lost = on_packets, on_lost
        self._watch()

    def pause_reading(self) -> None:
        self._paused = True
        self._unwatch()

    def resume_reading(self) -> None:
        self._paused = False
        self._watch()

    def write(self, header: bytes, packet: bytes) -> bool:
        family = _FAMILY_6 if packet[:1] >= b"\x60" else _FAMILY_4
        try:
            self._sock.send(family + packet)
        except OSError:
            return False
        return True

    def read_now(self) -> None:
        if self._reading:
            self._readable()

    def set_offload(self, wanted: bool) -> None:
        """There is none."""

    def close(self) -> None:
        if not self._closed:
            self._unwatch()
            self._closed = True
            self._sock.close()

    def _watch(self) -> None:
        if self._on_packets is None or self._reading or self._paused or self._closed:
            return
        self._loop.add_reader(self._sock.fileno(), self._readable)
        self._reading = True

    def _unwatch(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._sock.fileno())
            self._reading = False

    def _readable(self) -> None:
        batch: list[Offloaded] = []
        size = 0
        error: OSError | None = None
        try:
            while len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
                data = self._sock.recv(65_536)
                size += len(data)
                batch.append((NO_OFFLOAD, data[_FAMILY_SIZE:]))
        except BlockingIOError:
            pass
        except OSError as problem:
            error = problem
        assert self._on_packets is not None and self._on_lost is not None
        if batch:
            self._on_packets(batch)
        if error is not None:
            self._unwatch()
            self._on_lost(error)
