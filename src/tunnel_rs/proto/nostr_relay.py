"""One connection to a Nostr relay: messages and session logic (NIP-01, NIP-42), without I/O.

Call `opened`, then `received` for each text and `handle_timer` when due; after each call send what
`outgoing` gives, and look at `next_event` until None. A new connection needs a new session; what
has to be published again is the caller's to remember.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tunnel_rs.proto.nostr_events import Event, parse_event

SUBSCRIPTION = "tunnel"

MAX_MESSAGE = 131_072
"""Most characters of a relay's message; an event of ours has 4,000."""

MAX_PUBLISHED = 64
"""Events whose acceptance is awaited; older ones are forgotten."""

RESUBSCRIBE_FIRST, RESUBSCRIBE_LIMIT = 1.0, 60.0
"""Seconds before the subscription is asked for again after the relay has closed it."""

_MAX_EVENTS = 256
_MAX_REASON = 200
_AUTH_REQUIRED = ("auth-required:", "restricted:")


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event that the relay says fits our subscription; nothing of it has been verified."""

    event: Event


@dataclass(frozen=True, slots=True)
class Published:
    """What the relay says to an event of ours."""

    event_id: str
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Events flow from now on."""


@dataclass(frozen=True, slots=True)
class SubscriptionClosed:
    """The relay ended our subscription; it will be asked for again."""

    reason: str


@dataclass(frozen=True, slots=True)
class RelayNotice:
    """Words of the relay, for people."""

    text: str


RelayEvent = Arrived | Published | Subscribed | SubscriptionClosed | RelayNotice


class RelaySession:
    """`sign_auth(challenge)` makes the event that a relay asks for by AUTH."""

    def __init__(self, filter: dict[str, object], sign_auth: Callable[[str], Event]) -> None:
        self._filter = filter
        self._sign_auth = sign_auth
        self._outgoing: list[str] = []
        self._events: deque[RelayEvent] = deque(maxlen=_MAX_EVENTS)
        self._published: dict[str, Event] = {}
        self._refused_for_auth: dict[str, Event] = {}
        self._auth_id: str | None = None
        self._subscribed = False
        self._resubscribe_at: float | None = None
        self._pause = RESUBSCRIBE_FIRST

    def opened(self) -> None:
        """The connection is up: subscribe."""
        self._send("REQ", SUBSCRIPTION, self._filter)

    def publish(self, event: Event) -> None:
        self._published[event.id] = event
        while len(self._published) > MAX_PUBLISHED:
            del self._published[next(iter(self._published))]
        self._send("EVENT", event.as_json())

    def received(self, text: str, now: float) -> None:
        """A message of the relay. Whatever makes no sense is ignored."""
        try:
            message = json.loads(text) if len(text) <= MAX_MESSAGE else None
        except (ValueError, RecursionError):
            return
        match message:
            case ["EVENT", str(subscription), dict(fields)] if subscription == SUBSCRIPTION:
                event = parse_event(fields)
                if event is not None:
                    self._events.append(Arrived(event))
            case ["OK", str(event_id), bool(accepted), *rest]:
                self._judged(event_id, accepted, _reason(rest))
            case ["EOSE", str(subscription)] if subscription == SUBSCRIPTION:
                self._flows()
            case ["CLOSED", str(subscription), *rest] if subscription == SUBSCRIPTION:
                self._closed(_reason(rest), now)
            case ["AUTH", str(challenge)] if len(challenge) <= 1024:
                self._authenticate(challenge)
            case ["NOTICE", *rest]:
                self._events.append(RelayNotice(_reason(rest)))

    def next_event(self) -> RelayEvent | None:
        return self._events.popleft() if self._events else None

    def outgoing(self) -> list[str]:
        """Texts to send, in order; they are handed out once."""
        texts, self._outgoing = self._outgoing, []
        return texts

    def get_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._resubscribe_at

    def handle_timer(self, now: float) -> None:
        if self._resubscribe_at is not None and now >= self._resubscribe_at:
            self._resubscribe_at = None
            self._send("REQ", SUBSCRIPTION, self._filter)

    def _send(self, *message: object) -> None:
        self._outgoing.append(json.dumps(message, separators=(",", ":"), ensure_ascii=False))

    def _flows(self) -> None:
        self._pause = RESUBSCRIBE_FIRST
        if not self._subscribed:
            self._subscribed = True
            self._events.append(Subscribed())

    def _closed(self, reason: str, now: float) -> None:
        self._subscribed = False
        self._events.append(SubscriptionClosed(reason))
        self._resubscribe_at = now + self._pause
        self._pause = min(2 * self._pause, RESUBSCRIBE_LIMIT)

    def _judged(self, event_id: str, accepted: bool, reason: str) -> None:
        if event_id == self._auth_id:
            self._authenticated(accepted, reason)
            return
        event = self._published.pop(event_id, None)
        if event is None:
            return
        if not accepted and reason.startswith(_AUTH_REQUIRED) and self._auth_id is None:
            self._refused_for_auth[event_id] = event
        else:
            # A relay that has the event already says so with "duplicate:"; that is success.
            accepted = accepted or reason.startswith("duplicate:")
            self._events.append(Published(event_id, accepted, reason))

    def _authenticate(self, challenge: str) -> None:
        event = self._sign_auth(challenge)
        self._auth_id = event.id
        self._send("AUTH", event.as_json())

    def _authenticated(self, accepted: bool, reason: str) -> None:
        refused, self._refused_for_auth = self._refused_for_auth, {}
        if not accepted:
            self._events.append(RelayNotice(f"it does not accept our key: {reason}"))
            self._events.extend(Published(each, False, reason) for each in refused)
            return
        if not self._subscribed:
            self._resubscribe_at = None
            self._send("REQ", SUBSCRIPTION, self._filter)
        for event in refused.values():
            self.publish(event)


def _reason(rest: list[object]) -> str:
    """The first of `rest` as one line for people."""
    text = rest[0] if rest and isinstance(rest[0], str) else ""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_REASON]).strip()
