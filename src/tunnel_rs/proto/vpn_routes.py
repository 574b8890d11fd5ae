"""Which rules send packets into the VPN, and keep the tunnel itself out of it (spec section 5.1).

Routes of the VPN live in a table of their own; the main table is never touched. So that the
longest prefix still wins over both tables, rules look them up by turns, from the longest prefix of
the VPN to the shortest: first the main table for anything more specific, then ours. Our own
packets carry a mark and skip our table.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

MARK = 0x7472
TABLE = 29_810
FIRST_PRIORITY = 5_210
LAST_PRIORITY = FIRST_PRIORITY + 2 * 129 - 1
"""Rules with a priority in this range are ours, and are removed at the next start."""

_MAIN_TABLE = 254


@dataclass(frozen=True, slots=True)
class Rule:
    """Look up `table`, for all packets or those without our mark; what it says counts only when
    the prefix found is longer than `suppress` (None: always)."""

    version: int
    priority: int
    table: int
    unmarked: bool
    suppress: int | None


def rules_for(routes: Iterable[Network]) -> tuple[Rule, ...]:
    """The rules that go with `routes` in `TABLE`, in the order of their priority."""
    routes = tuple(routes)
    rules: list[Rule] = []
    for version in (4, 6):
        lengths = {route.prefixlen for route in routes if route.version == version}
        priority = FIRST_PRIORITY
        for length in sorted(lengths, reverse=True):
            rules.append(Rule(version, priority, _MAIN_TABLE, False, length))
            shorter = length - 1 if length else None
            rules.append(Rule(version, priority + 1, TABLE, True, shorter))
            priority += 2
    return tuple(rules)


def halved(routes: Iterable[Network]) -> tuple[Network, ...]:
    """Each network once, everything in two halves: those win over a default route by their length,
    and leave it as it is."""
    found: list[Network] = []
    for route in routes:
        found.extend(route.subnets() if route.prefixlen == 0 else (route,))
    return tuple(dict.fromkeys(found))
