"""Which of a connection's paths to use: direct before relayed, then the fastest. No I/O.

Spec `multipath.md` section 6. Both ends choose for what they send; the client has the say, and the
server follows it as long as that works. Ask `decide` whenever paths have changed. The round trip
that counts is that of a PATH_CHALLENGE: acknowledgements may come back on another path and make a
slow one look fast.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from tunnel_rs.proto.relay_addr import RelayAddr

STICKINESS = 0.005
"""Seconds that a path must be faster to be preferred to one of the same kind in use."""

IPV6_BONUS = 0.003
"""Seconds by which a path over IPv6 counts as faster than it is."""

MAX_PTOS = 3
"""Probe timeouts in a row after which a path passes nothing."""

FIRST_PENALTY, LONGEST_PENALTY = 5.0, 300.0
"""Seconds that a direct address which failed in use is not used again, doubled with each failure
until it has not failed for the longest of it: what lets small packets pass but not data would
else be chosen again and again."""

MAX_FAILURES = 128
"""Addresses remembered for having failed; the oldest is forgotten."""


class KnownPath(Protocol):
    """What is known of an open path."""

    @property
    def id(self) -> int: ...

    @property
    def address(self) -> Hashable: ...

    @property
    def is_validated(self) -> bool: ...

    @property
    def peer_wants(self) -> bool:
        """Whether the peer has not declared it to be a backup."""

    @property
    def is_data(self) -> bool:
        """Whether our data is sent on it."""

    @property
    def rtt(self) -> float | None:
        """Seconds from challenge to response; None while not measured."""

    @property
    def ptos(self) -> int:
        """Probe timeouts since something was last acknowledged."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: ids of paths."""

    select: int | None = None
    """Send data there from now on. None: leave it."""

    close: tuple[int, ...] = ()
    """Paths that are of no more use."""

    measure: tuple[int, ...] = ()
    """Paths whose round trip is to be measured before they can be compared."""


def is_relayed(address: Hashable) -> bool:
    return isinstance(address, RelayAddr)


def way_name(address: Hashable, text: str) -> str:
    """What people call the way to an address, whose `text` is known."""
    return f"{'relay' if is_relayed(address) else 'direct'} {text}"


def is_ipv6(address: Hashable) -> bool:
    """Whether a direct address, in the socket module's form, is of IPv6."""
    if not isinstance(address, tuple) or is_relayed(address):
        return False
    return isinstance(ip_address(str(address[0]).partition("%")[0]), IPv6Address)


@dataclass(slots=True)
class _Failure:
    penalty: float
    until: float


class PathChoice:
    """The choice for one connection."""

    def __init__(self, *, is_client: bool, direct_only: bool = False) -> None:
        """`direct_only`: a relay is good for finding a direct path, and is left once there is
        one (client only)."""
        self._is_client = is_client
        self._direct_only = direct_only
        self._failures: dict[Hashable, _Failure] = {}

    def failed(self, address: Hashable, now: float) -> None:
        """The path to `address` was given up as it passed nothing."""
        if is_relayed(address):
            return  # there is no other way to fall back to
        before = self._failures.pop(address, None)
        if before is not None and before.until + LONGEST_PENALTY < now:
            before = None
        penalty = min(before.penalty * 2, LONGEST_PENALTY) if before else FIRST_PENALTY
        if len(self._failures) >= MAX_FAILURES:
            del self._failures[next(iter(self._failures))]
        self._failures[address] = _Failure(penalty, now + penalty)

    def network_changed(self) -> None:
        """Ours or the peer's: what failed before may work now."""
        self._failures.clear()

    def retry_at(self, now: float) -> float | None:
        """When to `decide` again although nothing has changed: a penalty ends."""
        ends = (failure.until for failure in self._failures.values() if failure.until > now)
        return min(ends, default=None)

    def decide(self, paths: Sequence[KnownPath], now: float) -> Decision:
        current = next((path for path in paths if path.is_data), None)
        usable = [path for path in paths if path.is_validated and self._passes(path, now)]
        if not usable:
            return Decision()
        measure = tuple(path.id for path in usable if path.rtt is None)
        best = self._best(usable, current)
        select = None if best is current else best.id
        return Decision(select, self._redundant(usable, best), measure)

    def _passes(self, path: KnownPath, now: float) -> bool:
        if path.ptos >= MAX_PTOS or (path.ptos and not path.is_data):
            return False
        failure = self._failures.get(path.address)
        return failure is None or failure.until <= now or path.is_data

    def _best(self, usable: Sequence[KnownPath], current: KnownPath | None) -> KnownPath:
        if not self._is_client:
            usable = [path for path in usable if path.peer_wants] or usable
        best = min(usable, key=_rank)
        if current not in usable or current is None or best is current:
            return best
        if is_relayed(best.address) != is_relayed(current.address):
            return best
        if current.rtt is None:  # it is being measured
            return current
        return best if _cost(best) + STICKINESS <= _cost(current) else current

    def _redundant(self, usable: Sequence[KnownPath], best: KnownPath) -> tuple[int, ...]:
        """Other direct paths, once ours is known to be the best; a relay stays to fall back to."""
        if not self._is_client or is_relayed(best.address) or best.rtt is None:
            return ()
        return tuple(
            path.id
            for path in usable
            if path is not best
            and (self._direct_only if is_relayed(path.address) else path.rtt is not None)
        )


def _cost(path: KnownPath) -> float:
    if path.rtt is None:
        return float("inf")
    return path.rtt - (IPV6_BONUS if is_ipv6(path.address) else 0.0)


def _rank(path: KnownPath) -> tuple[bool, float, int]:
    return is_relayed(path.address), _cost(path), path.id
