"""The face of a TUN device, whatever the system.

What is read and written is an IP packet with a virtio header (`proto.vpn_offload`) apart from it;
systems without offloads always have the header of an ordinary packet.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from tunnel_rs.errors import LocalError
from tunnel_rs.proto.vpn_frames import Offloaded

OnPackets = Callable[[list[Offloaded]], None]
"""Takes all packets of one wake-up. Must not raise."""

MAX_BATCH = 64
"""Packets read per wake-up."""

MAX_BATCH_BYTES = 512 << 10


class TunDevice(Protocol):
    """One network interface whose other end we are."""

    @property
    def name(self) -> str:
        """As the system calls it."""

    @property
    def can_offload(self) -> bool:
        """Whether super-packets can be written, and be asked for."""

    def start(self, on_packets: OnPackets, on_lost: Callable[[OSError], None]) -> None:
        """Deliver what the system sends into the device from now on. `on_lost` is called once
        when the device has gone."""

    def pause_reading(self) -> None:
        """Let packets wait in the system, which drops them when they are too many."""

    def resume_reading(self) -> None: ...

    def write(self, header: bytes, packet: bytes) -> bool:
        """Hand a packet to the system; False when it did not take it (it is dropped)."""

    def read_now(self) -> None:
        """Deliver what is there, unless paused. The system often answers within `write`: read at
        once, the answer needs no wake-up of its own, and leaves with what else is to be sent."""

    def set_offload(self, wanted: bool) -> None:
        """Whether super-packets and open checksums may be delivered from now on."""

    def close(self) -> None:
        """Idempotent. Nothing is delivered after it."""


def open_tun(name: str | None = None) -> TunDevice:
    """Make a TUN device, called `name` if given. Raises LocalError with what to do about it."""
    module = _MODULES.get(sys.platform)
    if module is None:
        raise LocalError(f"there is no support for TUN devices on {sys.platform}")
    device: TunDevice = import_module(module).open_device(name)
    return device


_MODULES = {
    "linux": "tunnel_rs.net.tun_linux",
    "darwin": "tunnel_rs.net.tun_darwin",
    "win32": "tunnel_rs.net.tun_windows",
}
"""Each imports what only its system has."""
