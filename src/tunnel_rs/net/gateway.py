"""The router that leads from this machine to the internet."""

import socket
import sys
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands

_ROUTES, _ROUTES6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
_RTF_UP, _RTF_GATEWAY = 0x1, 0x2
_MAX_ROUTES = 65_536
"""Characters read of the routing table."""


async def default_gateway() -> IPv4Address | None:
    """The router of IPv4's default route; None when there is none or it cannot be found out."""
    if (command := _COMMANDS.get(sys.platform)) is not None:
        return await _ask(*command)
    return from_proc(_read_routes(_ROUTES))


async def default_gateway6() -> IPv6Address | None:
    """The router of IPv6's default route, with the interface as its scope when it is of link-local
    scope. None when there is none or it cannot be found out; so far it can on Linux alone."""
    return from_proc6(_read_routes(_ROUTES6)) if sys.platform == "linux" else None


def _read_routes(path: Path) -> str:
    try:
        with path.open() as file:
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


def from_proc6(text: str) -> IPv6Address | None:
    """Out of Linux's /proc/net/ipv6_route: the default route with the lowest metric."""
    found: list[tuple[int, IPv6Address]] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 10 or fields[0] != "0" * 32 or fields[1] != "00":
            continue
        flags = int(fields[8], 16)
        if flags & _RTF_UP and flags & _RTF_GATEWAY:
            router = IPv6Address(bytes.fromhex(fields[4]))
            if router.is_link_local:
                router = IPv6Address(f"{router}%{fields[9]}")
            found.append((int(fields[5], 16), router))
    return min(found, key=lambda each: each[0])[1] if found else None


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
