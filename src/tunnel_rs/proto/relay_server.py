"""Server side of the relay protocol (spec `relay.md` sections 2, 3 and 5), no I/O.

`ClientConnection` speaks with one client; `Roster` knows which connections there are and where
datagrams go. Both hand out what is to be sent; the shell in `selfhost` sends it.
"""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from tunnel_rs.proto.relay_frames import (
    PING_SIZE,
    Forward,
    FrameError,
    Ping,
    Pong,
    StatusCode,
    decode_from_client,
    encode_confirmation,
    encode_denial,
    encode_endpoint_gone,
    encode_health,
    encode_ping,
    encode_pong,
    encode_status,
)
from tunnel_rs.proto.relay_handshake import RelayVersion, ServerHandshake
from tunnel_rs.proto.relay_ping import IDLE_BEFORE_PING, PingClock
from tunnel_rs.values import EndpointId

HANDSHAKE_TIMEOUT = 30.0
"""Seconds an accepted TCP connection has to become a relay connection."""

MAX_SAME_ID = 8
"""Connections one EndpointId may hold; one more drops the oldest."""

MAX_REMEMBERED_PEERS = 1024
"""Destinations remembered per sender, to be told when the sender has gone."""

_HEALTH = {
    StatusCode.HEALTHY: "",
    StatusCode.SAME_ID_ELSEWHERE: "another endpoint uses the same id; it gets all packets",
}


class Authenticated(NamedTuple):
    """The client has proved its id: decide, then call `admit` or `deny`."""

    endpoint_id: EndpointId


class Failed(NamedTuple):
    """The client broke the protocol or does not answer: drop the connection."""

    reason: str


ServerEvent = Authenticated | Forward | Ping | Failed


class ClientConnection:
    """One client, from the upgraded WebSocket on.

    Send `opening` first; feed each binary message to `receive`, send what `messages_to_send`
    gives, and call `handle_timer` when `get_timer` is due.
    """

    def __init__(self, version: RelayVersion, random_bytes: Callable[[int], bytes]) -> None:
        self.version = version
        self._random_bytes = random_bytes
        self._handshake = ServerHandshake(random_bytes(16))
        self._outgoing = [self._handshake.opening]
        self._ping: PingClock | None = None
        self._over = False
        self._rate_limit_told = False
        self.endpoint_id: EndpointId | None = None
        """Who the client has proved to be."""

    @property
    def is_admitted(self) -> bool:
        return self._ping is not None

    def receive(self, message: bytes, now: float) -> ServerEvent | None:
        """Take one binary message. Never raises for what the client sent."""
        if self._over:
            return None
        try:
            if self._ping is None:
                return self._shake_hands(message)
            frame = decode_from_client(message)
        except FrameError as error:
            self._over = True
            return Failed(str(error))
        self._ping.frame_received(now)
        if isinstance(frame, Pong):
            self._ping.pong_received(frame.data, now)
            return None
        if isinstance(frame, Ping):
            self._outgoing.append(encode_pong(frame.data))
        return frame

    def _shake_hands(self, message: bytes) -> Authenticated | Failed:
        if self.endpoint_id is not None:
            raise FrameError("the client sent more before it was admitted")
        self.endpoint_id = self._handshake.receive(message)
        if self.endpoint_id is None:
            self.deny("signature invalid")
            return Failed("signature invalid")
        return Authenticated(self.endpoint_id)

    def admit(self, now: float, jitter: float) -> None:
        """Let the client in. `jitter`: random seconds from 1 to 5 added to the ping interval."""
        self._outgoing.append(encode_confirmation())
        self._ping = PingClock(now, IDLE_BEFORE_PING + jitter, ping_at_once=False)

    def deny(self, reason: str) -> None:
        """Turn the client away: send what is queued, then close."""
        self._over = True
        self._outgoing.append(encode_denial(reason))

    def rate_limited(self) -> None:
        """The client had to be slowed down; version 2 clients are told once."""
        if not self._rate_limit_told:
            self._rate_limit_told = True
            self._outgoing.extend(status_messages(self.version, StatusCode.RATE_LIMITED))

    def messages_to_send(self) -> list[bytes]:
        messages, self._outgoing = self._outgoing, []
        return messages

    def get_timer(self) -> float | None:
        """When `handle_timer` is due; None before the client is admitted and when it is over."""
        return None if self._ping is None or self._over else self._ping.get_timer()

    def handle_timer(self, now: float) -> Failed | None:
        ping = self._ping
        if ping is None or self._over:
            return None
        if ping.is_dead(now):
            self._over = True
            return Failed("no answer to a ping")
        if ping.due(now):
            data = self._random_bytes(PING_SIZE)
            ping.ping_sent(data, now)
            self._outgoing.append(encode_ping(data))
        return None


def status_messages(version: RelayVersion, code: StatusCode) -> list[bytes]:
    """How a client of this version is told; version 1 has no word for being rate limited."""
    if version is RelayVersion.V2:
        return [encode_status(code)]
    return [encode_health(_HEALTH[code])] if code in _HEALTH else []


class Member(NamedTuple):
    """What the roster has to know of a connection."""

    endpoint_id: EndpointId
    version: RelayVersion


C = TypeVar("C")
Notice = tuple[C, bytes]
"""A connection and a message to send on it."""


class Roster(Generic[C]):
    """The admitted connections, `C` being whatever the shell uses for one (hashable).

    Of several connections with one id the newest is active: it alone gets datagrams. When it ends
    the one before it takes over.
    """

    def __init__(self) -> None:
        self._members: dict[C, Member] = {}
        self._by_id: dict[bytes, list[C]] = {}
        self._active: dict[bytes, C] = {}
        self._sent_to: dict[bytes, set[bytes]] = {}
        self._heard_from: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[C]:
        return iter(self._members)

    def __contains__(self, connection: object) -> bool:
        return connection in self._members

    @property
    def endpoint_count(self) -> int:
        return len(self._by_id)

    def add(self, connection: C, member: Member) -> tuple[list[Notice[C]], C | None]:
        """Make a connection the active one of its id. Returns what to tell whom, and the
        connection to drop when the id has too many."""
        key = member.endpoint_id.key
        same_id = self._by_id.setdefault(key, [])
        notices = self._notices(same_id[-1:], StatusCode.SAME_ID_ELSEWHERE)
        self._members[connection] = member
        same_id.append(connection)
        self._active[key] = connection
        return notices, same_id[0] if len(same_id) > MAX_SAME_ID else None

    def remove(self, connection: C) -> list[Notice[C]]:
        """Forget a connection, known or not. Returns what to tell whom."""
        member = self._members.pop(connection, None)
        if member is None:
            return []
        key = member.endpoint_id.key
        same_id = self._by_id[key]
        same_id.remove(connection)
        if not same_id:
            return self._endpoint_gone(key)
        if self._active[key] is not connection:
            return []
        self._active[key] = same_id[-1]
        return self._notices(same_id[-1:], StatusCode.HEALTHY)

    def route(self, sender: C, destination: bytes) -> tuple[EndpointId, C] | None:
        """Who sends, and the connection to send to; None when there is nobody to send to.

        Remembers the pair, so that the destination can be told when the sender has gone.
        """
        member, target = self._members.get(sender), self._active.get(destination)
        if member is None or target is None:
            return None
        source = member.endpoint_id.key
        sent_to = self._sent_to.setdefault(source, set())
        if destination not in sent_to and len(sent_to) < MAX_REMEMBERED_PEERS:
            sent_to.add(destination)
            self._heard_from.setdefault(destination, set()).add(source)
        return member.endpoint_id, target

    def _notices(self, connections: list[C], code: StatusCode) -> list[Notice[C]]:
        return [
            (connection, message)
            for connection in connections
            for message in status_messages(self._members[connection].version, code)
        ]

    def _endpoint_gone(self, key: bytes) -> list[Notice[C]]:
        """Forget an id whose last connection ended, and every pair it was part of."""
        del self._by_id[key], self._active[key]
        for source in self._heard_from.pop(key, ()):
            self._sent_to[source].discard(key)
        message = encode_endpoint_gone(key)
        notices = []
        for destination in self._sent_to.pop(key, ()):
            if destination in self._heard_from:
                self._heard_from[destination].discard(key)
            if destination in self._active:
                notices.append((self._active[destination], message))
        return notices
