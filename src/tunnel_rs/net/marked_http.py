"""HTTP to our own infrastructure that stays out of a VPN on this machine (Linux).

Both the connections carry a mark and the questions to the DNS before them.
"""

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tunnel_rs.errors import TargetError, UnreachableError
from tunnel_rs.net.marked_dns import MarkedDns
from tunnel_rs.net.marks import set_mark
from tunnel_rs.net.resolver import Resolve, SystemResolver
from tunnel_rs.proto.dns_wire import RecordType, parse_name

HOSTS = Path("/etc/hosts")
MAX_REMEMBERED = 64


def connector(mark: int | None, **options: Any) -> aiohttp.TCPConnector:
    """aiohttp's connector with these options; with a mark, one whose packets carry it."""
    if mark is None:
        return aiohttp.TCPConnector(**options)

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, _ = info
        sock = socket.socket(family, kind, protocol)
        try:
            set_mark(sock, mark)
        except BaseException:
            sock.close()
            raise
        return sock

    return aiohttp.TCPConnector(
        resolver=MarkedResolver(MarkedDns(mark)), socket_factory=make, **options
    )


class MarkedResolver(AbstractResolver):
    """Host names to addresses: as /etc/hosts has them, else by DNS with a mark, else as they were
    the last time, or as the system's resolver says, which knows more ways."""

    def __init__(
        self, dns: MarkedDns, *, system: Resolve | None = None, hosts: Path = HOSTS
    ) -> None:
        self._dns = dns
        self._system = SystemResolver() if system is None else system
        self._hosts = hosts
        self._remembered: dict[str, list[str]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError, as aiohttp expects it."""
        ips = _read_hosts(self._hosts).get(host.lower().rstrip(".")) or await self._look_up(host)
        self._remember(host, ips)
        found = [_result(host, ip, port) for ip in ips]
        return [each for each in found if family in (socket.AF_UNSPEC, each["family"])]

    async def close(self) -> None:
        """There is nothing to close."""

    def _remember(self, host: str, ips: list[str]) -> None:
        if len(self._remembered) >= MAX_REMEMBERED and host not in self._remembered:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[host] = ips

    async def _look_up(self, host: str) -> list[str]:
        try:
            ips = await self._from_dns(host)
        except UnreachableError:
            ips = self._remembered.get(host, [])
        if ips:
            return ips
        try:
            return await self._system(host)
        except TargetError as error:
            raise OSError(0, str(error)) from None

    async def _from_dns(self, host: str) -> list[str]:
        """None for what the DNS does not know. Raises UnreachableError."""
        try:
            name = parse_name(host)
        except ValueError:
            return []
        ips: list[str] = []
        for kind in (RecordType.AAAA, RecordType.A):
            records = await self._dns.ask(name, kind)
            ips.extend(str(ip_address(each.data)) for each in records if len(each.data) in (4, 16))
        return ips


def _read_hosts(file: Path) -> Mapping[str, list[str]]:
    """See hosts(5)."""
    found: dict[str, list[str]] = {}
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        ip, *names = line.partition("#")[0].split() or [""]
        try:
            ip_address(ip)
        except ValueError:
            continue
        for name in names:
            found.setdefault(name.lower(), []).append(ip)
    return found


def _result(host: str, ip: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return {
        "hostname": host,
        "host": ip,
        "port": port,
        "family": family,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }
