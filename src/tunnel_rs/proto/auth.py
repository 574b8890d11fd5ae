"""Judging tokens, and slowing down those who guess (spec `tunnel-protocol.md`, last section,
point 5; the model is `PerSourcePenalties` of OpenSSH, sshd_config(5))."""

import hmac
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from ipaddress import IPv6Address, IPv6Network, ip_address
from itertools import islice

from tunnel_rs.reports import Penalties, Penalty
from tunnel_rs.values import Secret

_GROUPED_PREFIX = 64
"""One IPv6 customer holds at least this network, so its addresses count as one source."""

_EVICTION_SAMPLE = 8
"""How many of the longest untouched records are weighed when one has to go."""

EVERYBODY = "*"
"""How the penalty is called that is over all sources."""

MAX_SHOWN = 20
"""Sources that `penalties` names."""

_MAX_NAME = 64
"""Most characters kept of a source that is no IP address (a relay URL, an EndpointId)."""


def _digestible(token: Secret[str]) -> bytes:
    return token.reveal().encode("utf-8", "surrogatepass")


def token_accepted(candidate: Secret[str], tokens: Sequence[Secret[str]]) -> bool:
    """Whether `candidate` is one of `tokens`; see `find_token`."""
    return find_token(candidate, tokens) is not None


def find_token(candidate: Secret[str], tokens: Sequence[Secret[str]]) -> int | None:
    """Where `candidate` is among `tokens`; None when it is not there. Each one is compared in
    constant time, and all of them always, so that the time taken tells nothing."""
    shown = _digestible(candidate)
    found = -1
    for index, token in enumerate(tokens):
        found = (found, index)[hmac.compare_digest(shown, _digestible(token))]
    return None if found < 0 else found


def _source_key(source: str) -> str:
    """What counts as one source: an IPv4 address, an IPv6 /64, or the name of another way."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source[:_MAX_NAME]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(IPv6Network((int(address), _GROUPED_PREFIX), strict=False))
        address = address.ipv4_mapped
    return str(address)


@dataclass(slots=True)
class _Record:
    expiry: float
    active: bool = False
    failures: int = 0


class FailurePenalties:
    """How long each source has to wait after wrong tokens.

    Every failure adds `per_failure` seconds to the source's penalty, which runs off in real time.
    It is enforced from the moment it has grown to `threshold` (by three within four seconds), so
    that a mistyped token costs nothing, until it has run off; it never exceeds `maximum`. At most
    `max_sources` are remembered; when full, the least penalty among the longest untouched makes
    room.

    Over all sources, `global_burst` failures at once and `global_rate` per second are tolerated;
    beyond that everybody waits, but not sources that authenticated before: an attack from many
    addresses does not lock out those who have a token.
    """

    def __init__(
        self,
        *,
        per_failure: float = 5.0,
        threshold: float = 11.0,
        maximum: float = 600.0,
        max_sources: int = 16_384,
        global_rate: float = 10.0,
        global_burst: int = 100,
    ) -> None:
        self._per_failure = per_failure
        self._threshold = threshold
        self._maximum = maximum
        self._max_sources = max_sources
        self._global_interval = 1.0 / global_rate
        self._global_tolerance = global_burst / global_rate
        self._global_debt_until = float("-inf")
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """How many sources are remembered, penalised or proven."""
        return len(self._records) + len(self._proven)

    def penalty(self, source_ip: str, now: float) -> float:
        """Seconds this source still has to wait at time `now` (seconds, monotonic); 0.0 when it
        is welcome. A text that is no IP address is a source of its own."""
        key = _source_key(source_ip)
        return max(self._own_penalty(key, now), self._shared_penalty(key, now))

    def failed(self, source_ip: str, now: float) -> None:
        """Note a wrong token, or no token in time."""
        key = _source_key(source_ip)
        record = self._records.get(key)
        if record is None or record.expiry <= now:
            self._make_room(key)
            record = self._records[key] = _Record(now)
        self._records.move_to_end(key)
        record.failures += 1
        record.expiry = min(record.expiry + self._per_failure, now + self._maximum)
        record.active |= record.expiry - now >= min(self._threshold, self._maximum)
        debt = max(self._global_debt_until, now) + self._global_interval
        self._global_debt_until = min(debt, now + self._global_tolerance + self._maximum)

    def penalties(self, now: float) -> Penalties:
        """Who has to wait at time `now`, the longest first."""
        held = [
            Penalty(source, round(record.expiry - now, 1), record.failures)
            for source, record in self._records.items()
            if record.active and record.expiry > now
        ]
        longest = nlargest(MAX_SHOWN, held, key=lambda penalty: penalty.seconds)
        shared = self._global_debt_until - now - self._global_tolerance
        if shared > 0:
            failures = math.ceil((self._global_debt_until - now) / self._global_interval)
            longest = [Penalty(EVERYBODY, round(shared, 1), failures), *longest[: MAX_SHOWN - 1]]
        return Penalties(len(held) + (shared > 0), tuple(longest))

    def succeeded(self, source_ip: str) -> None:
        """Note an accepted token: the limit over all sources no longer holds this one back. Its
        own penalty stays, so that a holder of one token cannot guess others freely."""
        key = _source_key(source_ip)
        self._proven[key] = None
        self._proven.move_to_end(key)
        if len(self._proven) > self._max_sources:
            self._proven.popitem(last=False)

    def _own_penalty(self, key: str, now: float) -> float:
        record = self._records.get(key)
        if record is None:
            return 0.0
        if record.expiry <= now:
            del self._records[key]
            return 0.0
        return record.expiry - now if record.active else 0.0

    def _shared_penalty(self, key: str, now: float) -> float:
        if key in self._proven:
            return 0.0
        return max(0.0, self._global_debt_until - now - self._global_tolerance)

    def _make_room(self, key: str) -> None:
        if key in self._records or len(self._records) < self._max_sources:
            return
        oldest = islice(self._records, _EVICTION_SAMPLE)
        del self._records[min(oldest, key=lambda k: self._records[k].expiry)]
