"""TUN devices of Linux: batched reads, and offloads (Linux `Documentation/networking/tuntap.rst`).

The device is not persistent: it goes, with its addresses and routes, when its descriptor is
closed, also by SIGKILL. It is always opened with IFF_VNET_HDR, so offloads can be switched.
"""

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable
from struct import Struct

from tunnel_rs.errors import LocalError
from tunnel_rs.net.tun import MAX_BATCH, MAX_BATCH_BYTES, OnPackets
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import HEADER_SIZE, NEEDS_CHECKSUM, NO_OFFLOAD

PATH = "/dev/net/tun"

_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETLE = 0x400454CA, 0x400454D0, 0x400454DC
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_USO4, _TUN_F_USO6 = 1, 2, 4, 0x20, 0x40
_TCP_OFFLOADS = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
_ALL_OFFLOADS = _TCP_OFFLOADS | _TUN_F_USO4 | _TUN_F_USO6
_IFREQ = Struct("16sH22x")
_READ_SIZE = HEADER_SIZE + 65_535

REMEDIES = (
    "run it as root or give it CAP_NET_ADMIN; for one command inside a VPN "
    "`tunnel-rs-vpn exec -- COMMAND` needs neither"
)


def create(name: str | None = None, *, remedies: str = REMEDIES) -> tuple[int, str]:
    """A descriptor of a new device, and the device's name. Raises LocalError, with `remedies` when
    it is not permitted."""
    if name is not None and not 0 < len(name.encode()) < 16:
        raise LocalError(f"{name!r} is no name for a network interface: 1 to 15 characters")
    try:
        fd = os.open(PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LocalError(_cannot_open(error, remedies)) from None
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        request = _IFREQ.pack((name or "tunnel%d").encode(), flags)
        made = _IFREQ.unpack(fcntl.ioctl(fd, _TUNSETIFF, request))[0]
        fcntl.ioctl(fd, _TUNSETVNETLE, (1).to_bytes(4, "little"))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
    except OSError as error:
        os.close(fd)
        raise LocalError(_cannot_create(error, name, remedies)) from None
    return fd, made.rstrip(b"\0").decode()


def open_device(name: str | None = None) -> "LinuxTun":
    """Make a device. Raises LocalError."""
    return LinuxTun(*create(name))


def _cannot_open(error: OSError, remedies: str) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"{PATH} is not there: load the kernel module with `modprobe tun`; in a container, "
            f"pass the device in (--device {PATH})"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to open {PATH}: {remedies}"
    return f"cannot open {PATH}: {error.strerror}"


def _cannot_create(error: OSError, name: str | None, remedies: str) -> str:
    what = f"the TUN device {name}" if name else "a TUN device"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to create {what}: {remedies}"
    if error.errno == errno.EBUSY:
        return f"{what} is in use by another program; choose another name"
    return f"cannot create {what}: {error.strerror}"


class LinuxTun:
    """See `net.tun.TunDevice`. Owns its descriptor. Make it in a running loop."""

    can_offload = True

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._on_packets: OnPackets | None = None
        self._on_lost: Callable[[OSError], None] | None = None
        self._reading = False
        self._paused = False
        self._offload = False

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
        try:
            os.writev(self._fd, (header, packet))
        except OSError:
            # Full, down, or not a packet the kernel wants: IP loses packets.
            return False
        return True

    def read_now(self) -> None:
        if self._reading:
            self._readable()

    def set_offload(self, wanted: bool) -> None:
        if wanted == self._offload or self._fd < 0:
            return
        self._offload = wanted
        for flags in (_ALL_OFFLOADS, _TCP_OFFLOADS) if wanted else (0,):
            try:
                fcntl.ioctl(self._fd, _TUNSETOFFLOAD, flags)
            except OSError:
                continue  # an older kernel: without UDP, or without any
            return

    def close(self) -> None:
        if self._fd >= 0:
            self._unwatch()
            os.close(self._fd)
            self._fd = -1

    def _watch(self) -> None:
        if self._on_packets is not None and not self._reading and not self._paused:
            if self._fd >= 0:
                self._loop.add_reader(self._fd, self._readable)
                self._reading = True

    def _unwatch(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _readable(self) -> None:
        fd, read = self._fd, os.read
        batch: list[Offloaded] = []
        size = 0
        error: OSError | None = None
        try:
            while len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
                data = read(fd, _READ_SIZE)
                size += len(data)
                if data[1] or data[0] & NEEDS_CHECKSUM:
                    batch.append((_clear_hints(data), data[HEADER_SIZE:]))
                else:
                    batch.append((NO_OFFLOAD, data[HEADER_SIZE:]))
        except BlockingIOError:
            pass
        except OSError as problem:
            error = problem
        assert self._on_packets is not None and self._on_lost is not None
        if batch:
            self._on_packets(batch)
        # EIO: the interface is down for now; it may come up again.
        if error is not None and error.errno != errno.EIO:
            self._unwatch()
            self._on_lost(error)


def _clear_hints(data: bytes) -> bytes:
    """The header without flags that are of interest on this machine only."""
    return bytes((data[0] & NEEDS_CHECKSUM,)) + data[1:HEADER_SIZE]
