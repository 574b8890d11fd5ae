"""The router that leads from this machine to the internet, for IPv4."""

import socket
import sys
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands

_ROUTES = Path("/proc/net/route")
_RTF_UP, _RTF_GATEWAY = 0x1, 0x2
_MAX_ROUTES = 65_536
"""Characters read of the routing table."""


async def default_gateway() -> IPv4Address | None:
    """The router of the default route; None when there is none or it cannot be found out."""
    if (command := _COMMANDS.get(sys.platform)) is not None:
        return await _ask(*command)
    return from_proc(_read_routes())


def _read_routes() -> str:
    try:
        with _ROUTES.open() as file:
            return file.read(_MAX_ROUTES)
    except OSError:
        return ""


async def _ask(
    command: tuple[str, ...], read: Callable[[str], IPv4Address | None]
) -> IPv4Address | None:
    try:
        return read(await commands.run(command))
    except LocalError:
        return None


def from_proc(text: str) -> IPv4Address | None:
    """Out of Linux's /proc/net/route: the default route with the lowest metric."""
    found: list[tuple[int, IPv4Address]] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        flags = int(fields[3], 16)
        if flags & _RTF_UP and flags & _RTF_GATEWAY:
            packed = int(fields[2], 16).to_bytes(4, sys.byteorder)
            found.append((int(fields[6]), IPv4Address(packed)))
    return min(found)[1] if found else None


def from_route_get(text: str) -> IPv4Address | None:
    """Out of what macOS's `route -n get default` says."""
    for line in text.splitlines():
        name, _, value = line.strip().partition(": ")
        if name == "gateway":
            return _address(value.strip())
    return None


def from_route_print(text: str) -> IPv4Address | None:
    """Out of what Windows' `route print -4 0.0.0.0` says, whose words depend on the language: a
    line of destination, mask, gateway, interface, metric."""
    found: list[tuple[int, IPv4Address]] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 5 and fields[:2] == ["0.0.0.0", "0.0.0.0"] and fields[4].isdigit():
            gateway = _address(fields[2])
            if gateway is not None:
                found.append((int(fields[4]), gateway))
    return min(found)[1] if found else None


_COMMANDS = {
    "darwin": (("route", "-n", "get", "default"), from_route_get),
    "win32": (("route", "print", "-4", "0.0.0.0"), from_route_print),
}
"""Where there is no file to read."""


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def address_towards(gateway: IPv4Address) -> str | None:
    """Our address on the way to the router. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(gateway), 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
