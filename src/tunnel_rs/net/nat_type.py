"""The kind of NAT in RFC 3489's words, by pystun3; a hint, not a fact.

pystun3 loops for ever on some servers' answers and has no time limit (spec `ice.md` section 5), and
a thread cannot be ended from outside. So it only gets a socket that counts what it sends and ends
it with an exception, and it runs in a daemon thread that nobody waits for beyond the time limit.
"""

import asyncio
import socket
import threading
import time
from typing import Any, NamedTuple

from tunnel_rs.errors import UnreachableError
from tunnel_rs.values import SocketAddr

MAX_SENT = 40
"""Requests of one classification; an honest one needs 16 at most."""

STEP_TIMEOUT = 0.4
"""Seconds for one answer; pystun3 asks four times in each of up to three steps."""

_WORDS = {
    "Blocked": "no answer",
    "Open Internet": "no NAT",
    "Full Cone": "full cone",
    "Symmetric UDP Firewall": "no NAT, but a firewall",
    "Restric NAT": "address-restricted cone",
    "Restric Port NAT": "port-restricted cone",
    "Symmetric NAT": "symmetric",
}


class NatType(NamedTuple):
    """`external` is None where pystun3 does not tell it (port-restricted cone, blocked)."""

    kind: str
    external: SocketAddr | None


class GuardedSocket:
    """The socket pystun3 gets: only `sendto` and `recvfrom`, both bounded."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        """`deadline`: on the clock of `time.monotonic`."""
        sock.settimeout(STEP_TIMEOUT)
        self._sock = sock
        self._deadline = deadline
        self._sent = 0

    def sendto(self, data: bytes, address: tuple[str | None, int]) -> int:
        """Raises TimeoutError when it has been enough; pystun3 lets that through."""
        self._sent += 1
        host, port = address
        if host is None or not port:
            raise TimeoutError("the STUN server does not name its other address")
        if self._sent > MAX_SENT or time.monotonic() > self._deadline:
            raise TimeoutError("the STUN server does not let it be found out in time")
        return self._sock.sendto(data, (host, port))

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        return self._sock.recvfrom(size)


async def nat_type(server: SocketAddr, source_ip: str, *, timeout: float) -> NatType:
    """Classify the NAT before `source_ip` (ours) with an IPv4 STUN server that has two addresses.
    Raises UnreachableError when that does not work out within `timeout` seconds."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[NatType] = loop.create_future()

    def deliver(found: NatType | Exception) -> None:
        if result.done():
            return
        if isinstance(found, NatType):
            result.set_result(found)
        else:
            result.set_exception(found)

    def work() -> None:
        found = classify(server, source_ip, time.monotonic() + timeout)
        try:
            loop.call_soon_threadsafe(deliver, found)
        except RuntimeError:
            pass  # the loop has closed: nobody waits any more

    threading.Thread(target=work, name="nat type", daemon=True).start()
    try:
        async with asyncio.timeout(timeout):
            return await result
    except TimeoutError:
        raise UnreachableError(f"{server}: not found out within {timeout:g} s") from None


def classify(server: SocketAddr, source_ip: str, deadline: float) -> NatType | UnreachableError:
    """Blocks until `deadline` at most. Whatever goes wrong inside pystun3 is returned."""
    try:
        import stun
    except ImportError:
        return UnreachableError("pystun3 is not installed")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source_ip, 0))
            guarded = GuardedSocket(sock, deadline)
            kind, facts = stun.get_nat_type(guarded, source_ip, 0, server.ip, server.port)
        return NatType(_WORDS.get(kind, "unknown"), _external(facts))
    except Exception as error:  # pystun3 raises whatever a strange answer leads to
        reason = str(error) if isinstance(error, OSError) else "an answer that makes no sense"
        return UnreachableError(f"{server}: {reason}")


def _external(facts: dict[str, Any]) -> SocketAddr | None:
    ip, port = facts.get("ExternalIP"), facts.get("ExternalPort")
    return SocketAddr(str(ip), int(port)) if ip and port else None
