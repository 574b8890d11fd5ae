"""Which addresses of a host to try in which order, and when (RFC 8305, pure).

`order` sorts, `Race` decides. A shell starts what `due` names, tells `failed` for each attempt that
did not work, and wakes up again at `next_start`.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest

ATTEMPT_DELAY = 0.25
"""Seconds between attempts (RFC 8305 section 5, Connection Attempt Delay)."""


def order(ips: Sequence[str]) -> list[str]:
    """Interleave the families of RFC 6724-sorted addresses (RFC 8305 section 4), keeping the order
    within each. The first address decides which family leads, except when all are loopback:
    then IPv4 does, because a local service that has only one of the two mostly has that one."""
    first = [ip for ip in ips if _is_ipv6(ip) == _is_ipv6(ips[0])]
    second = [ip for ip in ips if _is_ipv6(ip) != _is_ipv6(ips[0])]
    if second and _is_ipv6(ips[0]) and all(ip_address(ip).is_loopback for ip in ips):
        first, second = second, first
    mixed = chain.from_iterable(zip_longest(first, second))
    return [ip for ip in mixed if ip is not None]


def _is_ipv6(ip: str) -> bool:
    return ":" in ip


class Race:
    """The schedule of one connection to one of several addresses. Times are seconds."""

    def __init__(self, ips: Sequence[str], *, attempt_delay: float = ATTEMPT_DELAY) -> None:
        self._waiting = order(ips)
        self._running: set[str] = set()
        self._attempt_delay = attempt_delay
        self._next_start = 0.0
        self.failures: dict[str, str] = {}
        """Address -> why it did not work, in the order of failing."""

    def due(self, now: float) -> list[str]:
        """Addresses to start now: none or one. Never the same one twice."""
        if not self._waiting or now < self._next_start:
            return []
        ip = self._waiting.pop(0)
        self._running.add(ip)
        self._next_start = now + self._attempt_delay
        return [ip]

    def failed(self, ip: str, why: str, now: float) -> None:
        """The attempt on `ip` has ended without a connection; the next one need not wait."""
        self._running.discard(ip)
        self.failures[ip] = why
        self._next_start = now

    def abandon(self, why: str) -> None:
        """Time is up: everything running, or not even started, has failed because of `why`."""
        for ip in [*self._running, *self._waiting]:
            self.failures[ip] = why
        self._running.clear()
        self._waiting.clear()

    @property
    def next_start(self) -> float | None:
        """When `due` will name another address, or None when all have been named."""
        return self._next_start if self._waiting else None

    @property
    def lost(self) -> bool:
        """Every address has failed."""
        return not self._waiting and not self._running
