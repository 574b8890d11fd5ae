"""Who says what when, while a session is introduced over Nostr (spec `ice.md` sections 1.1, 1.8).

Client: request, repeated until an offer or a rejection comes. Server: one offer or rejection for
each session. `now` is the loop's clock, `wall` seconds since 1970; both are arguments.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.ice_messages import (
    Offer,
    Reject,
    Request,
    decode_offer,
    decode_reject,
    decode_request,
    encode,
)
from tunnel_rs.proto.nostr_events import EventType, Signal
from tunnel_rs.proto.signalling import Encryption

FRESH = 30
"""Seconds that a request may be old; one from the future counts as new."""

REPUBLISH_LIMIT = 60.0
MAX_KNOWN = 1000
"""Session ids that a server remembers, against repetition."""
KNOWN_FOR = 60.0
_DROPPED_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Message:
    """What to publish."""

    type: EventType
    body: bytes
    encrypted: bool


class ClientFlow:
    """The client's side of one session."""

    def __init__(
        self,
        request: Request,
        encryption: Encryption,
        *,
        interval: float,
        max_wait: float,
        now: float,
    ) -> None:
        self._request = request
        self._encryption = encryption
        self._interval = interval
        self._next_at = now
        self._give_up_at = now + max_wait
        self._published = 0

    @property
    def published(self) -> int:
        """How often the request has been published."""
        return self._published

    def get_timer(self) -> float:
        """When `due` wants to be called."""
        return min(self._next_at, self._give_up_at)

    def is_over(self, now: float) -> bool:
        """Whether nobody has answered in time."""
        return now >= self._give_up_at

    def due(self, now: float, wall: int) -> list[Message]:
        """The request, when it is time to publish it (again); its time is always the present."""
        if now < self._next_at:
            return []
        body = encode(replace(self._request, timestamp=wall))
        self._published += 1
        self._next_at = now + self._interval
        self._interval = min(2 * self._interval, REPUBLISH_LIMIT)
        messages = []
        if self._encryption is not Encryption.OFF:
            messages.append(Message(EventType.REQUEST, body, True))
        later = self._encryption is Encryption.AUTO and self._published > 1
        if self._encryption is Encryption.OFF or later:
            messages.append(Message(EventType.REQUEST, body, False))
        return messages

    def heard(self, signal: Signal) -> Offer | Reject | None:
        """The server's answer to this session; None for anything else."""
        if not signal.encrypted and self._encryption is Encryption.REQUIRED:
            return None
        if signal.encrypted and self._encryption is Encryption.OFF:
            return None
        try:
            answer: Offer | Reject
            if signal.type is EventType.OFFER:
                answer = decode_offer(signal.body)
            elif signal.type is EventType.REJECT:
                answer = decode_reject(signal.body)
            else:
                return None
        except ProtocolError:
            return None
        return answer if answer.session_id == self._request.session_id else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A new session is asked for. Answer in the same way, encrypted or not."""

    request: Request
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Repeated:
    """The client still waits for our answer to this session."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Stale:
    """A request is too old to be answered: a relay has kept it, or the clocks differ."""

    age: int


class ServerFlow:
    """The server's side of all sessions."""

    def __init__(self, encryption: Encryption) -> None:
        self._encryption = encryption
        self._known: OrderedDict[str, float] = OrderedDict()

    def heard(self, signal: Signal, now: float, wall: int) -> Asked | Repeated | Stale | None:
        """What the client wants; None for anything that needs no answer."""
        if signal.type is not EventType.REQUEST or not self._understands(signal):
            return None
        try:
            request = decode_request(signal.body)
        except ProtocolError:
            return None
        age = max(0, wall - request.timestamp)
        if age > FRESH:
            return Stale(age)
        self._forget(now)
        if request.session_id in self._known:
            return Repeated(request.session_id)
        # Until then it may be repeated by a relay and would still be fresh.
        lifetime = max(KNOWN_FOR, float(min(request.timestamp - wall + FRESH, 3600)))
        self._known[request.session_id] = now + lifetime
        return Asked(request, signal.encrypted)

    def _understands(self, signal: Signal) -> bool:
        refused = Encryption.OFF if signal.encrypted else Encryption.REQUIRED
        return self._encryption is not refused

    def _forget(self, now: float) -> None:
        for session_id in [each for each, until in self._known.items() if now >= until]:
            del self._known[session_id]
        if len(self._known) >= MAX_KNOWN:
            for _ in range(_DROPPED_AT_ONCE):
                self._known.popitem(last=False)
