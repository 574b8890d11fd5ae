"""Rate limits by where requests come from: token buckets in a table of bounded size."""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network


def source_group(ip: str, *, ipv4_prefix: int = 32, ipv6_prefix: int = 64) -> str:
    """The network that an address is counted under. An IPv6 user commands a /64 at least.

    IPv4-mapped IPv6 addresses count as IPv4; a text that is no address is its own group.
    """
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    return str(ip_network((address, prefix), strict=False))


class SourceLimits:
    """One token bucket for each source: `burst` at once, refilled with `rate` a second.

    The table holds `max_sources`; beyond that the source seen least recently is forgotten. A
    source that is being limited is by that never the one forgotten.
    """

    def __init__(self, rate: float, burst: float, *, max_sources: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._max_sources = max_sources
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, source: str, now: float) -> bool:
        """Take one token. False when there is none."""
        tokens, then = self._buckets.pop(source, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1
        self._buckets[source] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self._max_sources:
            self._buckets.popitem(last=False)
        return allowed
