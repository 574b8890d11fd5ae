"""Packets that were declared lost and had only been overtaken.

RFC 9002 section 6.1 takes a packet for lost when three later ones, or one an eighth of a round trip
later, have arrived, and lets senders that see themselves mistaken be more patient. How patient
follows RACK (RFC 8985 section 6.2): as much as was needed, at most a round trip, until sixteen
losses in a row were real.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from aioquic.quic.recovery import K_PACKET_THRESHOLD, K_TIME_THRESHOLD

_PERSISTENCE = 16
"""Loss events without a late packet, after which patience ends (RFC 8985 section 6.2)."""

_MAX_PACKET_THRESHOLD = 4096
_MARGIN = 1.25
"""By how much more than was needed to be patient: the next one may be a little later still."""

_MAX_REMEMBERED = 256
_REMEMBERED_FOR = 3.0
"""Round trips for which a packet declared lost may still turn up."""


class _Declared(NamedTuple):
    number: int
    end: int
    sent_time: float
    forgotten_at: float
    event: int
    """The loss event that it belongs to."""


class Reordering:
    """What was declared lost lately, and how long to wait before that."""

    __slots__ = ("_declared", "_event", "_events_left", "_missing", "_patience", "packet_threshold")

    def __init__(self) -> None:
        self._declared: deque[_Declared] = deque()
        self._event = self._missing = 0
        self._reset()

    def _reset(self) -> None:
        self.packet_threshold = K_PACKET_THRESHOLD
        """How many packets after it have to be acknowledged before a packet is lost."""
        self._patience = 0.0
        self._events_left = _PERSISTENCE

    def restart(self) -> None:
        """Another path: nothing is known of it."""
        self._declared.clear()
        self._missing = 0
        self._reset()

    def loss_delay(self, rtt: float) -> float:
        """Seconds after which a packet is lost, once a later one was acknowledged, where a round
        trip takes `rtt` seconds: at most two round trips."""
        return max(K_TIME_THRESHOLD * rtt, rtt + min(self._patience, rtt))

    def begin_event(self) -> None:
        """The window shrinks for what is declared lost next."""
        self._event += 1
        self._missing = 0
        self._events_left -= 1
        if not self._events_left:
            self._reset()

    def declare(self, number: int, end: int, sent_time: float, *, now: float, rtt: float) -> None:
        """Packets `number` to `end - 1`, sent at `sent_time`, were declared lost."""
        self._missing += end - number
        forgotten_at = now + _REMEMBERED_FOR * rtt
        self._declared.append(_Declared(number, end, sent_time, forgotten_at, self._event))
        if len(self._declared) > _MAX_REMEMBERED:
            self._declared.popleft()

    @property
    def is_watching(self) -> bool:
        """Whether anything declared lost might still turn up."""
        return bool(self._declared)

    def acknowledge(self, ranges: Iterable[range], *, largest: int, now: float, rtt: float) -> bool:
        """Learn from what of `ranges` (ascending) had been declared lost; `largest` is the newest
        packet acknowledged. True when with this all packets of the last loss event have turned
        up: there was no loss, and the window need not have shrunk (RFC 9438 section 4.9.2)."""
        self._forget(now)
        was_missing = self._missing > 0
        covered = list(ranges)
        kept: deque[_Declared] = deque()
        for packets in self._declared:
            rest = _without(packets, covered)
            kept.extend(rest)
            if rest == [packets]:
                continue
            if packets.event == self._event:
                self._missing -= _count([packets]) - _count(rest)
            self._learn(largest - packets.number + 1, now - packets.sent_time - rtt)
        self._declared = kept
        return was_missing and not self._missing

    def _forget(self, now: float) -> None:
        declared = self._declared
        while declared and declared[0].forgotten_at <= now:
            declared.popleft()

    def _learn(self, overtaken: int, late: float) -> None:
        threshold = min(overtaken, _MAX_PACKET_THRESHOLD)
        self.packet_threshold = max(self.packet_threshold, threshold)
        self._patience = max(self._patience, _MARGIN * late)
        self._events_left = _PERSISTENCE


def _count(parts: Iterable[_Declared]) -> int:
    return sum(part.end - part.number for part in parts)


def _without(packets: _Declared, covered: list[range]) -> list[_Declared]:
    """What of `packets` none of `covered` (ascending) covers."""
    rest: list[_Declared] = []
    position = packets.number
    for numbers in covered:
        if numbers.stop <= position:
            continue
        if numbers.start >= packets.end:
            break
        if numbers.start > position:
            rest.append(packets._replace(number=position, end=numbers.start))
        position = numbers.stop
    if position < packets.end:
        rest.append(packets._replace(number=position))
    return rest
