"""TUN devices of Windows: Wintun, whose library is shipped with the package pytun-pmd3.

No event loop can watch its ring, so a thread drains it and hands over batches, one at a time: it
reads on when the last one has been taken. Not yet run on a real machine.
"""

import asyncio
import ctypes
import importlib.util
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tunnel_rs.errors import LocalError
from tunnel_rs.net.tun import MAX_BATCH, OnPackets
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD

DEFAULT_NAME = "tunnel-rs-vpn"
_RING_SIZE = 0x800000
_NO_MORE_ITEMS = 259
_WAIT_MILLISECONDS = 250
_ARCHITECTURES = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "x86": "x86"}


class Ring(Protocol):
    """The packets of one adapter."""

    def receive(self) -> bytes | None:
        """The next packet; None when there is none now. Raises OSError when it has gone."""

    def wait(self) -> None:
        """Wait a short while for a packet."""

    def send(self, packet: bytes) -> bool:
        """False when the ring is full."""

    def close(self) -> None: ...


def open_device(name: str | None = None) -> "WindowsTun":
    """Make a device. Raises LocalError."""
    made = name or DEFAULT_NAME
    return WindowsTun(WintunRing(library(), made), made)


def library() -> Path:
    """Where wintun.dll is. Raises LocalError."""
    package = importlib.util.find_spec("pytun_pmd3")
    machine = _ARCHITECTURES.get(platform.machine().lower())
    if package is None or package.origin is None:
        raise LocalError(
            "the VPN needs the package pytun-pmd3; install it with `pip install tunnel-rs[vpn]`"
        )
    path = Path(package.origin).parent / "wintun" / "bin" / (machine or "") / "wintun.dll"
    if machine is None or not path.exists():
        raise LocalError(f"there is no Wintun for this machine ({platform.machine()})")
    return path


class WintunRing:
    """The ring by way of wintun.dll (Wintun's `api/wintun.h`)."""

    _dll: Any
    _kernel: Any
    _adapter: Any
    _session: Any
    _event: Any

    def __init__(self, path: Path, name: str) -> None:
        """Raises LocalError."""
        load: Any = getattr(ctypes, "WinDLL", None)
        if load is None:
            raise LocalError("Wintun is for Windows only")
        self._dll = load(str(path), use_last_error=True)
        self._declare()
        self._adapter = self._dll.WintunCreateAdapter(name, "tunnel-rs", None)
        if not self._adapter:
            raise LocalError(
                f"cannot create the TUN device {name} "
                f"(error {_last_error()}): run it as administrator"
            )
        self._session = self._dll.WintunStartSession(self._adapter, _RING_SIZE)
        if not self._session:
            self._dll.WintunCloseAdapter(self._adapter)
            raise LocalError(f"cannot open the TUN device {name}")
        self._event = self._dll.WintunGetReadWaitEvent(self._session)
        self._kernel = load("kernel32.dll")

    def _declare(self) -> None:
        pointer, number, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_wchar_p
        for function, result, arguments in (
            ("WintunCreateAdapter", pointer, [text, text, pointer]),
            ("WintunCloseAdapter", None, [pointer]),
            ("WintunStartSession", pointer, [pointer, number]),
            ("WintunEndSession", None, [pointer]),
            ("WintunGetReadWaitEvent", pointer, [pointer]),
            ("WintunReceivePacket", pointer, [pointer, ctypes.POINTER(number)]),
            ("WintunReleaseReceivePacket", None, [pointer, pointer]),
            ("WintunAllocateSendPacket", pointer, [pointer, number]),
            ("WintunSendPacket", None, [pointer, pointer]),
        ):
            declared = getattr(self._dll, function)
            declared.restype, declared.argtypes = result, arguments

    def receive(self) -> bytes | None:
        size = ctypes.c_uint32()
        packet = self._dll.WintunReceivePacket(self._session, ctypes.byref(size))
        if not packet:
            error = _last_error()
            if error == _NO_MORE_ITEMS:
                return None
            raise OSError(error, "the adapter has gone")
        try:
            return ctypes.string_at(packet, size.value)
        finally:
            self._dll.WintunReleaseReceivePacket(self._session, packet)

    def wait(self) -> None:
        self._kernel.WaitForSingleObject(ctypes.c_void_p(self._event), _WAIT_MILLISECONDS)

    def send(self, packet: bytes) -> bool:
        place = self._dll.WintunAllocateSendPacket(self._session, len(packet))
        if not place:
            return False
        ctypes.memmove(place, packet, len(packet))
        self._dll.WintunSendPacket(self._session, place)
        return True

    def close(self) -> None:
        self._dll.WintunEndSession(self._session)
        self._dll.WintunCloseAdapter(self._adapter)


def _last_error() -> int:
    last: Any = getattr(ctypes, "get_last_error", int)
    return int(last())


class WindowsTun:
    """See `net.tun.TunDevice`. Owns its ring. Make it in a running loop."""

    can_offload = False

    def __init__(self, ring: Ring, name: str) -> None:
        self.name = name
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._on_packets: OnPackets | None = None
        self._on_lost: Callable[[OSError], None] | None = None
        self._may_read = threading.Event()
        self._paused = self._closed = self._taken = False
        self._thread = threading.Thread(target=self._read, name=f"tun {name}", daemon=True)

    def start(self, on_packets: OnPackets, on_lost: Callable[[OSError], None]) -> None:
        self._on_packets, self._on_lost = on_packets, on_lost
        self._taken = True
        self._go_on()
        self._thread.start()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._go_on()

    def write(self, header: bytes, packet: bytes) -> bool:
        return not self._closed and self._ring.send(packet)

    def read_now(self) -> None:
        """The thread that reads brings it."""

    def set_offload(self, wanted: bool) -> None:
        """There is none."""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._may_read.set()
        if self._thread.is_alive():
            self._thread.join()  # it looks every quarter of a second
        self._ring.close()

    def _go_on(self) -> None:
        if self._taken and not self._paused:
            self._taken = False
            self._may_read.set()

    def _take(self, batch: list[Offloaded], error: OSError | None) -> None:
        """In the loop: what the thread has read."""
        if self._closed:
            return
        assert self._on_packets is not None and self._on_lost is not None
        if batch:
            self._on_packets(batch)
        if error is not None:
            self._on_lost(error)
            return
        self._taken = True
        self._go_on()

    def _read(self) -> None:
        """In the thread."""
        error: OSError | None = None
        while error is None:
            self._may_read.wait()
            self._may_read.clear()
            batch: list[Offloaded] = []
            try:
                self._fill(batch)
            except OSError as problem:
                error = problem
            if self._closed:
                return
            try:
                self._loop.call_soon_threadsafe(self._take, batch, error)
            except RuntimeError:
                return  # the loop has ended

    def _fill(self, batch: list[Offloaded]) -> None:
        """All there is, one packet at least unless the device is closed meanwhile."""
        while not self._closed and len(batch) < MAX_BATCH:
            packet = self._ring.receive()
            if packet is not None:
                batch.append((NO_OFFLOAD, packet))
            elif batch:
                return
            else:
                self._ring.wait()
