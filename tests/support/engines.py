"""Two QUIC engines joined in memory on a virtual clock, with seeded loss, delay and reordering."""

import heapq
import math
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from aioquic import tls
from aioquic.quic.events import QuicEvent, StreamDataReceived

from tunnel_rs.proto.engine import Engine, ResetTokens
from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.proto.traversal import Traversal
from tunnel_rs.values import Secret

CLIENT, SERVER = "client", "server"
CLIENT_IDENTITY = Identity(Secret(bytes([1]) * 32))
SERVER_IDENTITY = Identity(Secret(bytes([2]) * 32))
TOKENS = ResetTokens(bytes(32))
DEFAULTS = TransportSettings()
ALPN = "multi-forward/1"

PAIRS: dict[str, tuple[type[Engine], type[Engine]]] = {
    "stock": (MultipathEngine, MultipathEngine),
    "fast": (FastEngine, FastEngine),
    "fast client": (FastEngine, MultipathEngine),
    "fast server": (MultipathEngine, FastEngine),
}
"""Engines of client and server, by the name a test is shown with."""

MAX_IDLE_TURNS = 1000
"""Turns without the clock moving after which an engine is held to be spinning."""


@dataclass
class Wire:
    """What happens to a datagram in one direction. Times in seconds."""

    delay: float = 0.001
    loss: float = 0.0
    jitter: float = 0.0
    cut: bool = False
    duplicates: float = 0.0
    rate: float = math.inf
    """Bytes a second. What is faster waits in the queue."""
    late_share: float = 0.0
    late: float = 0.0
    """Seconds by which others overtake that share of the datagrams."""
    queue: int = 0
    """Bytes that may wait; more are lost."""
    free_at: float = -math.inf
    """When all that has been sent so far is on its way."""

    def queued(self, size: int, now: float) -> float | None:
        """Seconds that `size` more bytes take to leave; None when the queue has no room."""
        if self.rate == math.inf:
            return 0.0
        waits = max(0.0, self.free_at - now)
        if waits * self.rate > self.queue:
            return None
        self.free_at = now + waits + size / self.rate
        return self.free_at - now


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
    """Carries trains between two peers. `run` advances the virtual clock.

    With `offload`, datagrams of one size that arrive at one moment are received as one train.
    """

    def __init__(
        self,
        client_settings: TransportSettings = DEFAULTS,
        server_settings: TransportSettings = DEFAULTS,
        *,
        seed: int = 0,
        client_identity: Identity = CLIENT_IDENTITY,
        server_identity: Identity = SERVER_IDENTITY,
        candidates: tuple[Hashable, ...] = (SERVER,),
        make_engine: type[Engine] = MultipathEngine,
        make_server: type[Engine] | None = None,
        offload: bool = False,
        client_traversal: Traversal | None = None,
        server_traversal: Traversal | None = None,
    ) -> None:
        self.now = 100.0
        self.random = random.Random(seed)
        self.up, self.down = Wire(), Wire()
        self.datagrams = 0
        self.client_address: Hashable = CLIENT
        """Where the client's datagrams come from; what goes elsewhere does not reach it."""
        self.spy: Callable[[str, bytes], bytes | None] = lambda to, datagram: datagram
        """Sees each datagram as it arrives, and may replace or drop it."""
        self.offload = offload
        self.mtu = 65_527
        """Larger datagrams do not pass."""
        self._queue: list[tuple[float, int, str, bytes, Hashable]] = []
        self._count = 0
        self._make_server = make_server or make_engine
        self._server_traversal = server_traversal
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
                traversal=client_traversal,
            )
        )
        self.server: Peer | None = None

    def _send(self, peer: Peer, wire: Wire, to: str) -> None:
        for data, segment_size, address in peer.engine.trains(self.now):
            data = bytes(data)
            assert data
            if to == CLIENT and address != self.client_address:
                continue
            origin = self.client_address if to == SERVER else SERVER
            for start in range(0, len(data), segment_size):
                self.datagrams += 1
                self.travel(wire, to, data[start : start + segment_size], origin)

    def travel(self, wire: Wire, to: str, datagram: bytes, origin: Hashable) -> None:
        """Let `datagram` go over `wire`, as coming from `origin`."""
        if wire.cut or len(datagram) > self.mtu or self.random.random() < wire.loss:
            return
        leaves_in = wire.queued(len(datagram), self.now)
        if leaves_in is None:
            return
        for _ in range(2 if self.random.random() < wire.duplicates else 1):
            due = self.now + leaves_in + wire.delay + self.random.random() * wire.jitter
            if wire.late_share and self.random.random() < wire.late_share:
                due += wire.late
            self._count += 1
            heapq.heappush(self._queue, (due, self._count, to, datagram, origin))

    def inject(self, to: str, datagram: bytes, origin: Hashable | None = None) -> None:
        """Let `datagram` arrive now, from `origin` (default: the other peer)."""
        if origin is None:
            origin = self.client_address if to == SERVER else SERVER
        self._deliver(to, datagram, len(datagram), origin)
        self.flush()

    def flush(self) -> None:
        """Take what both peers have to say now."""
        self._send(self.client, self.up, SERVER)
        if self.server is not None:
            self._send(self.server, self.down, CLIENT)

    def _accept(self, datagram: bytes) -> Peer:
        length = datagram[5]
        return Peer(
            self._make_server.server(
                self._server_settings,
                self._server_identity,
                TOKENS,
                alpn=ALPN,
                original_destination_connection_id=datagram[6 : 6 + length],
                traversal=self._server_traversal,
            )
        )

    def _arrivals(self) -> list[tuple[str, bytes, int, Hashable]]:
        """Trains that are due: receiver, bytes, segment size, origin."""
        trains: list[tuple[str, bytes, int, Hashable]] = []
        while self._queue and self._queue[0][0] <= self.now:
            _, _, to, original, origin = heapq.heappop(self._queue)
            datagram = self.spy(to, original)
            if datagram is None:
                continue
            if trains and self.offload:
                last_to, data, size, last_origin = trains[-1]
                if (
                    (last_to, last_origin) == (to, origin)
                    and len(data) % size == 0
                    and len(datagram) <= size
                    and datagram[:9][1:] == data[:9][1:]  # one connection id, as the shell sorts
                ):
                    trains[-1] = (to, data + datagram, size, origin)
                    continue
            trains.append((to, datagram, len(datagram), origin))
        return trains

    def _deliver(self, to: str, train: bytes, segment_size: int, origin: Hashable) -> None:
        if to == SERVER and self.server is None:
            self.server = self._accept(train)
        peer = self.server if to == SERVER else self.client
        assert peer is not None
        peer.engine.receive(memoryview(train), segment_size, origin, self.now)
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
        idle_turns = 0
        self.flush()
        while not until() and (due := self._next_time()) <= end:
            idle_turns = idle_turns + 1 if due == self.now else 0
            assert idle_turns < MAX_IDLE_TURNS, "an engine asks for timers and does nothing"
            self.now = due
            for to, train, segment_size, origin in self._arrivals():
                self._deliver(to, train, segment_size, origin)
            for peer in (self.client, self.server):
                timer = peer.engine.get_timer() if peer else None
                if peer and timer is not None and timer <= self.now:
                    peer.engine.handle_timer(self.now)
                    peer.take_events()
            self.flush()
        if not until():
            self.now = max(self.now, end)

    def connect(self) -> tuple[Peer, Peer]:
        """Run until both sides have confirmed the handshake; client and server."""
        self.run(30, lambda: self.client.engine._handshake_confirmed and self.server is not None)
        assert self.client.engine._handshake_confirmed
        assert self.server is not None
        return self.client, self.server

    def settle(self) -> None:
        """Let what is on its way arrive and be acknowledged."""
        self.run(1.0)


def forged(engine: Engine, frames: bytes, *, number: int | None = None) -> bytes:
    """A 1-RTT packet of a peer that says what its engine never would: `frames` sealed with the
    engine's keys, under its next packet number or `number`."""
    if number is None:
        number = engine._packet_number
        engine._packet_number += 1
    pair = engine._cryptos[tls.Epoch.ONE_RTT]
    first = 0x40 | pair.key_phase << 2 | 3
    header = bytes([first]) + engine._peer_cid.cid + (number & 0xFFFFFFFF).to_bytes(4, "big")
    return pair.encrypt_packet(header, frames, number)


def varint(value: int) -> bytes:
    """RFC 9000 section 16."""
    for size, bits in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | bits << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def payload(size: int, seed: int = 0) -> bytes:
    """Bytes that tell whether they are in order."""
    return random.Random(seed).randbytes(size)


def open_stream(peer: Peer) -> int:
    """A new stream; its id."""
    stream = peer.engine.open_stream()
    assert stream is not None
    return stream


def exchange(network: Network, size: int, *, streams: int = 1, seconds: float = 120.0) -> None:
    """Send `size` bytes each way on each of `streams` streams at once, and check each byte."""
    client, server = network.client, network.server
    assert server is not None
    up = {open_stream(client): payload(size, i) for i in range(streams)}
    for stream, data in up.items():
        client.engine.write(stream, data, True)
    answers: dict[int, bytes] = {}

    def answer() -> bool:
        for stream in up:
            if stream in server.received and stream not in answers:
                answers[stream] = payload(size, stream + 1000)
                server.engine.write(stream, answers[stream], True)
        done = set(up)
        return done <= server.ended and done <= client.ended

    network.run(seconds, answer)
    network.flush()
    for stream, data in up.items():
        assert server.received[stream] == data
        assert client.received[stream] == answers[stream]


def ending(peer: Peer | None) -> tuple[int, str]:
    """Code and reason that a connection ends with."""
    assert peer is not None and peer.engine.ending is not None
    return peer.engine.ending.error_code, peer.engine.ending.reason_phrase
