"""Client side of one relay connection, from the upgraded WebSocket on (spec `relay.md`), no I/O.

Use: feed each binary message to `receive` and act on the event it returns; then send everything
`messages_to_send` gives. Call `handle_timer` when `get_timer` is due. After a `Failed` event the
WebSocket is to be dropped and dialled anew.
"""

from collections.abc import Callable
from typing import NamedTuple

from tunnel_rs.proto.relay_frames import (
    MAX_BATCH,
    MAX_DATAGRAM,
    PING_SIZE,
    Datagrams,
    EndpointGone,
    FrameError,
    FromRelay,
    Health,
    Ping,
    Pong,
    Status,
    StatusCode,
    decode_from_relay,
    encode_ping,
    encode_pong,
    encode_to_relay,
)
from tunnel_rs.proto.relay_handshake import (
    ClientHandshake,
    Denied,
    RelayIdentity,
    RelayVersion,
    printable,
)
from tunnel_rs.proto.relay_ping import PingClock
from tunnel_rs.values import EndpointId

DIAL_TIMEOUT = 10.0
"""Seconds for connecting, upgrading and authenticating together."""

BACKOFF_FIRST, BACKOFF_LIMIT = 0.01, 2.5
"""Seconds between attempts: doubling from the first to the limit. iroh goes up to 16; we promise
that traffic flows within 5 s of a relay being reachable: both ends dial, then one has to probe."""

BACKOFF_LIMIT_DENIED = 16.0
"""The limit for a relay that refuses us."""

LASTING = 1.0
"""A connection that was up this long, and answered a ping, starts the backoff anew."""

IDLE_LIMIT = 60.0
"""A connection to a relay that is not our home ends this many seconds after the last datagram."""

_MAX_KNOWN_SOURCES = 1024
"""Ids remembered as valid; the relay cannot make us hold more."""

RandomBytes = Callable[[int], bytes]


class Connected(NamedTuple):
    """The relay has let us in."""


class Received(NamedTuple):
    """Datagrams of `segment_size` bytes each (the last may be shorter), never empty."""

    source: EndpointId
    segment_size: int
    contents: memoryview


class PeerGone(NamedTuple):
    """The peer has left this relay. Its QUIC connection may well survive on another way."""

    peer: EndpointId


class StatusChanged(NamedTuple):
    """What the relay thinks of us, in words; empty when all is well."""

    problem: str


class Failed(NamedTuple):
    """The connection is over. `denied`: the relay refused us, so that haste is of no use."""

    reason: str
    denied: bool = False


RelayEvent = Connected | Received | PeerGone | StatusChanged | Failed

_PROBLEMS = {
    StatusCode.HEALTHY.value: "",
    StatusCode.SAME_ID_ELSEWHERE.value: "another program uses our key on this relay",
    StatusCode.RATE_LIMITED.value: "the relay limits our rate",
}


class RelayConnection:
    """One authenticated conversation with a relay."""

    def __init__(
        self, identity: RelayIdentity, version: RelayVersion, random_bytes: RandomBytes
    ) -> None:
        self._handshake = ClientHandshake(identity)
        self._version = version.number
        self._random_bytes = random_bytes
        self._ping: PingClock | None = None
        self._outgoing: list[bytes] = []
        self._sources: dict[bytes, EndpointId] = {}
        self._failed = False

    @property
    def is_connected(self) -> bool:
        return self._ping is not None and not self._failed

    @property
    def was_answered(self) -> bool:
        """Whether a pong has come: only then has the connection proved its worth."""
        return self.round_trip is not None

    @property
    def round_trip(self) -> float | None:
        """Seconds, None before the first pong."""
        return self._ping.round_trip if self._ping else None

    def receive(self, message: bytes, now: float) -> RelayEvent | None:
        """Take one binary message. Never raises for what the relay sent."""
        if self._failed:
            return None
        try:
            if self._ping is None:
                return self._shake_hands(message, now)
            frame = decode_from_relay(message, self._version)
            self._ping.frame_received(now)
            return self._act(frame, self._ping, now)
        except FrameError as error:
            self._failed = True
            return Failed(str(error), denied=isinstance(error, Denied))

    def messages_to_send(self) -> list[bytes]:
        """Take what is to be sent, in order, each as one binary message."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def get_timer(self) -> float | None:
        """When `handle_timer` is due; None before `Connected` and after `Failed`."""
        return self._ping.get_timer() if self._ping is not None and not self._failed else None

    def handle_timer(self, now: float) -> Failed | None:
        ping = self._ping
        if ping is None or self._failed:
            return None
        if ping.is_dead(now):
            self._failed = True
            return Failed("the relay does not answer")
        if ping.due(now):
            data = self._random_bytes(PING_SIZE)
            ping.ping_sent(data, now)
            self._outgoing.append(encode_ping(data))
        return None

    def ask(self, now: float) -> None:
        """See soon whether the relay is still there; `handle_timer` is due now."""
        if self._ping is not None:
            self._ping.ask(now)

    def _shake_hands(self, message: bytes, now: float) -> Connected | None:
        answer = self._handshake.receive(message)
        if answer is not None:
            self._outgoing.append(answer)
        if not self._handshake.done:
            return None
        self._ping = PingClock(now, ping_at_once=True)
        self.handle_timer(now)
        return Connected()

    def _act(self, frame: FromRelay, ping: PingClock, now: float) -> RelayEvent | None:
        if isinstance(frame, Datagrams):
            if not frame.contents:
                return None
            return Received(self._source(frame.source), frame.segment_size, frame.contents)
        if isinstance(frame, Ping):
            self._outgoing.append(encode_pong(frame.data))
        elif isinstance(frame, Pong):
            ping.pong_received(frame.data, now)
        elif isinstance(frame, EndpointGone):
            return PeerGone(self._source(frame.endpoint_id))
        elif isinstance(frame, Status):
            return StatusChanged(_PROBLEMS.get(frame.code, f"status {frame.code} of the relay"))
        elif isinstance(frame, Health):
            return StatusChanged(_health_problem(frame.text))
        return None

    def _source(self, key: bytes) -> EndpointId:
        known = self._sources.get(key)
        if known is not None:
            return known
        try:
            source = EndpointId.parse(key.hex())
        except ValueError:
            raise FrameError("the relay named a peer whose id is no public key") from None
        if len(self._sources) >= _MAX_KNOWN_SOURCES:
            del self._sources[next(iter(self._sources))]
        self._sources[key] = source
        return source


def _health_problem(text: str) -> str:
    """Version 1 has words only: nothing, or (iroh-relay 1.x) a sentence that says healthy."""
    words = printable(text)
    return "" if words.casefold().startswith("the connection is healthy") else words


def datagram_messages(destination: EndpointId, segment_size: int, data: memoryview) -> list[bytes]:
    """A train of datagrams, `segment_size` bytes each but the last, as messages to the relay.

    A train too long for one message is split between datagrams. Datagrams longer than a relay
    carries (65,502 bytes) are left out, as UDP would do.
    """
    if not data:
        return []
    if len(data) <= segment_size or segment_size <= 0:
        return [encode_to_relay(destination.key, data)] if len(data) <= MAX_DATAGRAM else []
    step = MAX_BATCH // segment_size * segment_size
    if step == 0:
        return _singles(destination, segment_size, data)
    parts = (data[start : start + step] for start in range(0, len(data), step))
    return [encode_to_relay(destination.key, part, segment_size) for part in parts]


def _singles(destination: EndpointId, segment_size: int, data: memoryview) -> list[bytes]:
    parts = (data[start : start + segment_size] for start in range(0, len(data), segment_size))
    return [encode_to_relay(destination.key, part) for part in parts if len(part) <= MAX_DATAGRAM]
