"""Host names to IP addresses, through the system's resolver: once, bounded, within a time limit.

`getaddrinfo` is used rather than a DNS library because it honours /etc/hosts, nsswitch and the
platform's split DNS. It blocks and cannot be cancelled, so each look-up has a daemon thread: one
that hangs delays neither the answer (there is a time limit) nor the end of the program.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address

from tunnel_rs.errors import TargetError

Resolve = Callable[[str], Awaitable[list[str]]]
"""Host name or IP literal -> IP addresses as text, never empty. Raises TargetError."""

RESOLVE_TIMEOUT = 5.0
MAX_ADDRESSES = 16
"""Addresses kept of one answer. A name with more is a trap or a farm; 16 reach either."""

MAX_LOOKUPS = 32
"""Threads at a time, those included whose caller has given up already."""


def literal(host: str) -> str | None:
    """`host` in canonical text when it is an IP literal, else None. An IPv4-mapped IPv6 literal
    becomes the IPv4 address it stands for, so that everything after sees one form."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


class SystemResolver:
    """Resolves with `getaddrinfo` in daemon threads, at most `MAX_LOOKUPS` at a time.

    An instance belongs to the event loop it is first used in.
    """

    def __init__(
        self,
        *,
        timeout: float = RESOLVE_TIMEOUT,
        lookup: Callable[[str], list[str]] | None = None,
    ) -> None:
        self._timeout = timeout
        self._lookup = lookup or system_lookup
        self._free_threads = asyncio.Semaphore(MAX_LOOKUPS)

    async def __call__(self, host: str) -> list[str]:
        """Addresses of `host`, best first, without duplicates. Raises TargetError."""
        if (address := literal(host)) is not None:
            return [address]
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._in_thread(host)
        except TimeoutError:
            raise TargetError(
                f"{host}: no answer from the resolver in {self._timeout:g} s; check DNS"
            ) from None
        except (OSError, UnicodeError) as error:
            raise TargetError(f"{host}: cannot be resolved ({describe(error)})") from None
        ips = list(dict.fromkeys(literal(ip) or ip for ip in found))[:MAX_ADDRESSES]
        if not ips:
            raise TargetError(f"{host}: has no IP address")
        return ips

    async def _in_thread(self, host: str) -> list[str]:
        await self._free_threads.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def deliver(ips: list[str], error: Exception | None) -> None:
            self._free_threads.release()
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(ips)

        def work() -> None:
            ips: list[str] = []
            failure: Exception | None = None
            try:
                ips = self._lookup(host)
            except Exception as error:  # carried to the caller
                failure = error
            try:
                loop.call_soon_threadsafe(deliver, ips, failure)
            except RuntimeError:
                pass  # the loop has closed: nobody waits any more

        threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()
        return await answer


def system_lookup(host: str) -> list[str]:
    """All addresses of `host` in the order of RFC 6724. Blocks. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def describe(error: OSError | UnicodeError) -> str:
    """The system's words for a look-up failure, in lower case and without the error number."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else "not a host name"
    return text[:1].lower() + text[1:]
