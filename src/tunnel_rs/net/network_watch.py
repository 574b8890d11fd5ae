"""Notices when the network of this machine has changed, or when we have slept.

On Linux the kernel tells (rtnetlink, for which no privilege is needed); elsewhere the addresses are
looked at every few seconds. What the kernel tells is only a reason to look: drivers and other
programs touch routes all the time. Sleep, of the machine or of this process alone, is noticed by
the time that a short timer took.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tunnel_rs.net.interfaces import Interface, local_interfaces

TICK = 1.0
"""Seconds between looks at the clock."""

ASLEEP = 4.0
"""Seconds that a tick must be late to be a sleep; a busy machine is late by less."""

SETTLE = 0.1
"""Seconds from the kernel's first word of a change to the look at it: they come in bursts."""

POLL = 5.0
"""Seconds between looks where the kernel does not tell."""

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; IPv4 addresses, routes; IPv6 the same
_READS = 64
_READ_SIZE = 8192
_MAX_ROUTES = 65_536
_ROUTES = (Path("/proc/net/route"), Path("/proc/net/ipv6_route"))

_CLOCKS = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}
"""Python's own monotonic clock stands still there while the machine sleeps."""

Picture = tuple[object, ...]


def time_awake_or_not() -> float:
    """Seconds of a clock that goes on while the machine sleeps."""
    clock = getattr(time, _CLOCKS.get(sys.platform, ""), None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def default_routes() -> tuple[str, ...]:
    """What tells one set of default routes from another; empty where it cannot be seen."""
    found: list[str] = []
    for file in _ROUTES:
        try:
            with file.open() as lines:
                text = lines.read(_MAX_ROUTES)
        except OSError:
            continue
        found += [_default(line.split()) for line in text.splitlines()]
    return tuple(sorted(filter(None, found)))


def _default(fields: Sequence[str]) -> str:
    """Interface and gateway of a default route, empty for another route. Counters change."""
    if len(fields) == 11 and fields[1] == "00000000" == fields[7]:
        return f"{fields[0]} {fields[2]}"
    if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
        return f"{fields[9]} {fields[4]}"
    return ""


class NetworkWatch:
    """Create it in a running loop, `start`, `close`."""

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        scan: Callable[[], Sequence[Interface]] = local_interfaces,
        routes: Callable[[], tuple[str, ...]] = default_routes,
        clock: Callable[[], float] = time_awake_or_not,
    ) -> None:
        """`on_change` is called after each change, and after a sleep."""
        self._on_change = on_change
        self._scan = scan
        self._routes = routes
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._picture: Picture = ()
        self._ticked = 0.0

    def start(self) -> None:
        self._picture = self._look()
        self._socket = self._open_netlink()
        if self._socket is None:
            self._later("poll", POLL, self._poll)
        self._ticked = self._clock()
        self._later("tick", TICK, self._tick)

    def close(self) -> None:
        """Idempotent."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _later(self, name: str, delay: float, call: Callable[[], None]) -> None:
        self._timers[name] = self._loop.call_later(delay, call)

    # Change

    def _look(self) -> Picture:
        try:
            interfaces = tuple(self._scan())
        except OSError:
            interfaces = ()
        return interfaces, self._routes()

    def _compare(self) -> None:
        self._timers.pop("settle", None)
        picture = self._look()
        if picture != self._picture:
            self._picture = picture
            self._on_change()

    def _poll(self) -> None:
        self._later("poll", POLL, self._poll)
        self._compare()

    def _open_netlink(self) -> socket.socket | None:
        if sys.platform != "linux":
            return None
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError:
            return None
        try:
            sock.setblocking(False)
            sock.bind((0, _GROUPS))
        except OSError:
            sock.close()
            return None
        self._loop.add_reader(sock, self._kernel_tells)
        return sock

    def _kernel_tells(self) -> None:
        """Something has changed; what, is seen by looking."""
        assert self._socket is not None
        for _ in range(_READS):
            try:
                self._socket.recv(_READ_SIZE)
            except BlockingIOError:
                break
            except OSError:
                continue  # so much has changed that the kernel dropped some of it
        if "settle" not in self._timers:
            self._later("settle", SETTLE, self._compare)

    # Sleep

    def _tick(self) -> None:
        now = self._clock()
        slept = now - self._ticked > TICK + ASLEEP
        self._ticked = now
        self._later("tick", TICK, self._tick)
        if slept:
            self._picture = self._look()
            self._on_change()
