"""DNS questions that stay out of a VPN on this machine: their packets carry a mark (Linux).

The system's resolver and c-ares send theirs into the VPN, like any other program's: a tunnel that
is down could not look up how to come up again. Over UDP only: what we ask for is small.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from tunnel_rs.errors import UnreachableError
from tunnel_rs.net.marks import set_mark
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.dns_wire import (
    DnsFormatError,
    Name,
    RecordType,
    ResourceRecord,
    ResponseCode,
    answers_to,
    encode_query,
    name_text,
)

DNS_PORT = 53
MAX_SERVERS = 6
STAGGER = 0.4
"""Seconds until the next server is asked as well."""

ROUNDS = 3
TIMEOUT = 4.0

RESOLV_CONFS = (
    Path("/etc/resolv.conf.before-tunnel-rs-vpn"),
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/etc/resolv.conf"),
)
"""Where servers are named: before a VPN of ours wrote the file, behind the stub of
systemd-resolved, and in general."""


def name_servers(files: Sequence[Path] = RESOLV_CONFS) -> tuple[str, ...]:
    """The servers of this machine, those on the machine itself left out: they would ask others
    without our mark."""
    found: dict[str, None] = {}
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver" and _is_elsewhere(words[1]):
                found[words[1]] = None
    return tuple(found)[:MAX_SERVERS]


def _is_elsewhere(text: str) -> bool:
    try:
        return not ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


class MarkedDns:
    """Asks the servers of this machine. Those seen at the start are remembered: the VPN may put its
    own in their place."""

    def __init__(
        self,
        mark: int,
        *,
        servers: Callable[[], Sequence[str]] = name_servers,
        port: int = DNS_PORT,
        timeout: float = TIMEOUT,
    ) -> None:
        self._mark = mark
        self._servers = servers
        self._first = tuple(servers())
        self._port = port
        self._timeout = timeout

    async def ask(self, name: Name, kind: RecordType) -> tuple[ResourceRecord, ...]:
        """The records of this type, also behind aliases; none when there is no such name. Raises
        UnreachableError when nobody answers."""
        servers = tuple(dict.fromkeys((*self._first, *self._servers())))[: 2 * MAX_SERVERS]
        if not servers:
            raise UnreachableError("no DNS server of this machine is known")
        try:
            async with asyncio.timeout(self._timeout):
                return await self._race(servers, name, kind)
        except TimeoutError:
            raise UnreachableError(
                f"no DNS server answered for {name_text(name)} in {self._timeout:g} s"
            ) from None

    async def _race(
        self, servers: tuple[str, ...], name: Name, kind: RecordType
    ) -> tuple[ResourceRecord, ...]:
        """One after the other is asked until one has answered; then all are waited for."""
        answer: asyncio.Future[tuple[ResourceRecord, ...]]
        answer = asyncio.get_running_loop().create_future()

        async def ask(server: str) -> None:
            found = await self._ask_one(server, name, kind)
            if found is not None and not answer.done():
                answer.set_result(found)

        async with TaskScope("DNS", on_failure=lambda *_: None) as scope:
            for server in servers * ROUNDS:
                scope.spawn(ask(server), server)
                done, _ = await asyncio.wait((answer,), timeout=STAGGER)
                if done:
                    break
            return await answer

    async def _ask_one(
        self, server: str, name: Name, kind: RecordType
    ) -> tuple[ResourceRecord, ...] | None:
        """None: this server does not know, or cannot be asked."""
        loop = asyncio.get_running_loop()
        ident = secrets.randbits(16)
        question = encode_query(name, kind, ident)
        with ExitStack() as stack:
            try:
                sock = stack.enter_context(_socket(server, self._mark))
                await loop.sock_connect(sock, (server, self._port))
                await loop.sock_sendall(sock, question)
                while True:
                    message = await loop.sock_recv(sock, 65_535)
                    try:
                        code, records = answers_to(question, message)
                    except DnsFormatError:
                        continue  # not from the server: its answer may still come
                    return records if code in _FINAL else None
            except OSError:
                return None


_FINAL = (ResponseCode.NOERROR, ResponseCode.NXDOMAIN)


def _socket(server: str, mark: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        set_mark(sock, mark)
    except BaseException:
        sock.close()
        raise
    return sock
