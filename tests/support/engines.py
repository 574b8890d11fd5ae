"""Two QUIC engines joined in memory on a virtual clock, with seeded loss, delay and reordering."""

import heapq
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from aioquic.quic.events import QuicEvent, StreamDataReceived

from tunnel_rs.proto.engine import Engine, ResetTokens
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import Secret

CLIENT, SERVER = "client", "server"
CLIENT_IDENTITY = Identity(Secret(bytes([1]) * 32))
SERVER_IDENTITY = Identity(Secret(bytes([2]) * 32))
TOKENS = ResetTokens(bytes(32))
DEFAULTS = TransportSettings()
ALPN = "multi-forward/1"


@dataclass
class Wire:
    """What happens to a datagram in one direction. Times in seconds."""

    delay: float = 0.001
    loss: float = 0.0
    jitter: float = 0.0
    cut: bool = False


@dataclass
class Peer:
    """One engine and everything it said."""

    engine: Engine
    events: list[QuicEvent] = field(default_factory=list)
    received: dict[int, bytearray] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    consume: bool = True

    def event(self, kind: type[QuicEvent]) -> list[QuicEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    def take_events(self) -> None:
        while (event := self.engine.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, StreamDataReceived):
                self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
                if self.consume and event.data:
                    self.engine.consumed(event.stream_id, len(event.data))
                if event.end_stream:
                    self.ended.add(event.stream_id)


class Network:
    """Carries trains between two peers. `run` advances the virtual clock."""

    def __init__(
        self,
        client_settings: TransportSettings = DEFAULTS,
        server_settings: TransportSettings = DEFAULTS,
        *,
        seed: int = 0,
        client_identity: Identity = CLIENT_IDENTITY,
        server_identity: Identity = SERVER_IDENTITY,
        candidates: tuple[Hashable, ...] = (SERVER,),
        make_engine: type[Engine] = Engine,
    ) -> None:
        self.now = 100.0
        self.random = random.Random(seed)
        self.up, self.down = Wire(), Wire()
        self.datagrams = 0
        self._queue: list[tuple[float, int, str, bytes, Hashable]] = []
        self._count = 0
        self._make_engine = make_engine
        self._server_settings, self._server_identity = server_settings, server_identity
        self.client = Peer(
            make_engine.client(
                client_settings,
                client_identity,
                TOKENS,
                peer=SERVER_IDENTITY.endpoint_id,
                alpn=ALPN,
                candidates=candidates,
                now=self.now,
            )
        )
        self.server: Peer | None = None

    def _send(self, peer: Peer, wire: Wire, to: str) -> None:
        for data, segment_size, address in peer.engine.trains(self.now):
            data = bytes(data)
            for start in range(0, len(data), segment_size):
                self.datagrams += 1
                if wire.cut or self.random.random() < wire.loss:
                    continue
                due = self.now + wire.delay + self.random.random() * wire.jitter
                self._count += 1
                datagram = data[start : start + segment_size]
                heapq.heappush(self._queue, (due, self._count, to, datagram, address))

    def flush(self) -> None:
        """Take what both peers have to say now."""
        self._send(self.client, self.up, SERVER)
        if self.server is not None:
            self._send(self.server, self.down, CLIENT)

    def _accept(self, datagram: bytes) -> Peer:
        length = datagram[5]
        return Peer(
            self._make_engine.server(
                self._server_settings,
                self._server_identity,
                TOKENS,
                alpn=ALPN,
                original_destination_connection_id=datagram[6 : 6 + length],
            )
        )

    def _deliver(self, to: str, datagram: bytes, address: Hashable) -> None:
        if to == SERVER and self.server is None:
            self.server = self._accept(datagram)
        peer = self.server if to == SERVER else self.client
        assert peer is not None
        origin = CLIENT if to == SERVER else SERVER
        peer.engine.receive(memoryview(datagram), len(datagram), origin, self.now)
        peer.take_events()

    def _next_time(self) -> float:
        times = [self._queue[0][0]] if self._queue else []
        for peer in (self.client, self.server):
            timer = peer.engine.get_timer() if peer else None
            if timer is not None:
                times.append(timer)
        return max(self.now, min(times)) if times else float("inf")

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until `until` holds or `seconds` are over."""
        end = self.now + seconds
        self.flush()
        while not until() and (due := self._next_time()) <= end:
            self.now = due
            while self._queue and self._queue[0][0] <= self.now:
                _, _, to, datagram, address = heapq.heappop(self._queue)
                self._deliver(to, datagram, address)
            for peer in (self.client, self.server):
                timer = peer.engine.get_timer() if peer else None
                if peer and timer is not None and timer <= self.now:
                    peer.engine.handle_timer(self.now)
                    peer.take_events()
            self.flush()
        if not until():
            self.now = max(self.now, end)

    def connect(self) -> None:
        """Run until both sides have confirmed the handshake."""
        self.run(10, lambda: self.client.engine._handshake_confirmed)
        assert self.client.engine._handshake_confirmed
        assert self.server is not None
