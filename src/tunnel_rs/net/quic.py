"""A QUIC endpoint: one key, one or more datagram faces, many connections.

A *face* carries trains: a UDP socket, a relay. It says which addresses it reaches; for the engine
an address is an opaque value. Whatever one wake-up brings is processed as a batch, and all that
the connections have to say afterwards leaves in one flush.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from aioquic.quic.packet import QuicProtocolVersion, encode_quic_retry
from aioquic.quic.retry import QuicRetryTokenHandler

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.udp import UdpSocket, from_sock_addr
from tunnel_rs.proto.credentials import Credentials
from tunnel_rs.proto.engine import (
    CONNECTION_ID_LENGTH,
    DATAGRAM_SIZE,
    Address,
    Engine,
    ResetTokens,
    Train,
)
from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.quic_packets import (
    Kind,
    Stray,
    classify,
    destination_id,
    refusal,
    stateless_reset,
    version_negotiation,
)
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import EndpointId

ALPN = "multi-forward/1"

MAX_CONNECTIONS = 1024
MAX_HANDSHAKES = 256
"""Handshakes in progress; beyond it newcomers are refused."""
RETRY_ABOVE = 64
"""Handshakes in progress above which newcomers must prove their address first."""
MAX_UNACCEPTED = 64
LARGEST_ON_IPV4, LARGEST_ON_IPV6 = 1452, 1432
"""What Ethernet carries, with room for PPPoE and the like."""
LARGEST_ON_LOOPBACK = 16_384
_STRAY_ANSWERS_PER_SECOND = 100
_MAX_HELD_TRAINS = 256

logging.getLogger("quic").addHandler(logging.NullHandler())
logging.getLogger("quic").propagate = False


class Face(Protocol):
    """Something that carries trains to some kind of address."""

    def reaches(self, address: Address) -> bool: ...

    def send_train(self, train: bytes | memoryview, segment_size: int, address: Address) -> bool:
        """False: full; hold the train until the face calls `writable`."""

    def text(self, address: Address) -> str:
        """The address for people."""

    def largest_datagram(self, address: Address) -> int:
        """The largest UDP payload worth probing for."""

    def validates(self, address: Address) -> bool:
        """Whether a Retry makes sense: the address could be forged."""

    def close(self) -> None: ...


class UdpFace:
    """A `UdpSocket` as a face. Addresses are the socket module's tuples."""

    def __init__(self, socket: UdpSocket) -> None:
        self.socket = socket
        self._ipv6 = socket.address.is_ipv6

    def reaches(self, address: Address) -> bool:
        return isinstance(address, tuple) and len(address) == (4 if self._ipv6 else 2)

    def send_train(self, train: bytes | memoryview, segment_size: int, address: Any) -> bool:
        return self.socket.send_train(train, segment_size, address)

    def text(self, address: Any) -> str:
        return str(from_sock_addr(address))

    def close(self) -> None:
        self.socket.close()

    def largest_datagram(self, address: Any) -> int:
        if ip_address(address[0].partition("%")[0]).is_loopback:
            return LARGEST_ON_LOOPBACK
        return LARGEST_ON_IPV6 if self._ipv6 else LARGEST_ON_IPV4

    def validates(self, address: Address) -> bool:
        return True


class QuicEndpoint:
    """Dials and accepts connections. Create in a running loop, `add_face`, use, `close`."""

    def __init__(
        self,
        identity: Credentials,
        settings: TransportSettings,
        *,
        accept: bool,
        alpn: str | None = ALPN,
    ) -> None:
        """`accept`: take connections that peers open. `alpn` None: do without (RFC 7301)."""
        self.identity = identity
        self._settings = settings
        self._accepting = accept
        self._engine = FastEngine if settings.fast_path else Engine
        self._alpn = alpn
        self._loop = asyncio.get_running_loop()
        self._faces: list[Face] = []
        self._by_id: dict[bytes, QuicConnection] = {}
        self._ids: dict[QuicConnection, set[bytes]] = {}
        self._touched: dict[QuicConnection, None] = {}
        self._flush_scheduled = False
        self._in_batch = False
        self._held: dict[Face, deque[Train]] = {}
        self._handshakes: dict[QuicConnection, asyncio.TimerHandle] = {}
        self._accepted: deque[QuicConnection] = deque()
        self._accept_waiters: deque[asyncio.Future[QuicConnection]] = deque()
        self._reset_tokens = ResetTokens(identity.reset_key)
        self._retry = QuicRetryTokenHandler()
        self._stray_budget = float(_STRAY_ANSWERS_PER_SECOND)
        self._stray_refilled = 0.0
        self._closed = False

    def add_face(self, face: Face) -> None:
        """Use `face` from now on. UDP faces are started by the caller with us as the sink."""
        self._faces.append(face)

    # Dialling and accepting

    def dial(
        self, peer: EndpointId, candidates: Iterable[Address], settings: TransportSettings
    ) -> QuicConnection:
        """Begin a handshake with `peer` at all `candidates` (at least one) at once. Await its
        `handshaken`; add what is found later with `add_candidate`."""
        engine = self._engine.client(
            settings,
            self.identity,
            self._reset_tokens,
            peer=peer,
            alpn=self._alpn,
            candidates=candidates,
            now=self._loop.time(),
            largest_datagram=self._largest_datagram,
        )
        connection = self._register(engine, lambda _: None)
        self.schedule_flush(connection)
        return connection

    def reaches(self, address: Address) -> bool:
        """Whether any face could carry a datagram there."""
        return self._face(address) is not None

    def add_candidate(self, connection: QuicConnection, address: Address) -> None:
        """Dial at `address` too, unless somebody has answered already."""
        self.send_trains(connection.engine.add_candidate(address))

    async def accept(self) -> QuicConnection:
        """Next connection whose handshake is complete. Raises LinkClosedError once closed."""
        if self._accepted:
            return self._accepted.popleft()
        if self._closed:
            raise LinkClosedError(0, "the endpoint was closed")
        waiter: asyncio.Future[QuicConnection] = self._loop.create_future()
        self._accept_waiters.append(waiter)
        return await waiter

    def close(self, code: int, reason: str) -> None:
        """Close all connections and faces."""
        if self._closed:
            return
        self._closed = True
        for connection in list(self._ids):
            connection.close(code, reason)
            connection.discard()
        for waiter in self._accept_waiters:
            if not waiter.done():
                waiter.set_exception(LinkClosedError(0, "the endpoint was closed"))
        for face in self._faces:
            face.close()

    @property
    def connection_count(self) -> int:
        return len(self._ids)

    # Connections' side

    def schedule_flush(self, connection: QuicConnection) -> None:
        self._touched[connection] = None
        if not self._flush_scheduled and not self._in_batch:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        while self._touched:
            connection, _ = self._touched.popitem()
            connection.flush()

    def send_trains(self, trains: Sequence[Train]) -> None:
        for train in trains:
            face = self._face(train[2])
            if face is None:
                continue
            held = self._held.get(face)
            if held is not None:
                if len(held) < _MAX_HELD_TRAINS:
                    held.append(train)
            elif not face.send_train(*train):
                self._held[face] = deque([(bytes(train[0]), train[1], train[2])])

    def _face(self, address: Address) -> Face | None:
        for face in self._faces:
            if face.reaches(address):
                return face
        return None

    def _largest_datagram(self, address: Address) -> int:
        face = self._face(address)
        return face.largest_datagram(address) if face is not None else DATAGRAM_SIZE

    def add_connection_id(self, connection: QuicConnection, connection_id: bytes) -> None:
        ids = self._ids.get(connection)
        if ids is not None:
            ids.add(connection_id)
            self._by_id[connection_id] = connection

    def remove_connection_id(self, connection_id: bytes) -> None:
        connection = self._by_id.pop(connection_id, None)
        if connection is not None:
            self._ids[connection].discard(connection_id)

    def forget(self, connection: QuicConnection) -> None:
        for connection_id in self._ids.pop(connection, ()):
            self._by_id.pop(connection_id, None)
        self._touched.pop(connection, None)
        self._end_handshake(connection)

    def address_text(self, address: Address) -> str:
        face = self._face(address)
        return face.text(address) if face is not None else str(address)

    # Faces' side

    def receive_train(self, train: memoryview, segment_size: int, address: Address) -> None:
        """A face has received datagrams; only `end_batch` makes their effects visible."""
        self._in_batch = True
        now = self._loop.time()
        size = len(train)
        start = 0
        while start < size:
            wanted = destination_id(train[start:])
            end = start + segment_size
            # Long headers have their version where short ones have the id: they never match.
            while end < size and train[end + 1 : end + 1 + CONNECTION_ID_LENGTH] == wanted:
                end += segment_size
            part = train[start:end]
            connection = self._by_id.get(wanted)
            if connection is None:
                connection = self._stray(part[:segment_size], address, now)
            if connection is not None:
                connection.engine.receive(part, segment_size, address, now)
                self._touched[connection] = None
            start = end

    def end_batch(self) -> None:
        """A face has nothing more for now."""
        touched, self._touched = self._touched, {}
        for connection in touched:
            connection.process_events()
        self._in_batch = False
        touched.update(self._touched)
        self._touched = {}
        for connection in touched:
            connection.flush()

    def writable(self) -> None:
        """A face that was full has room again."""
        for face, held in list(self._held.items()):
            while held:
                if not face.send_train(*held[0]):
                    return
                held.popleft()
            del self._held[face]

    # Strangers

    def _stray(self, datagram: memoryview, address: Address, now: float) -> QuicConnection | None:
        """A datagram of no connection: accept a new one, answer, or ignore."""
        stray = classify(datagram)
        if stray.kind is Kind.INITIAL and self._accepting and not self._closed:
            return self._newcomer(stray, address, now)
        if stray.kind is Kind.OTHER_VERSION and self._accepting:
            self._answer(version_negotiation(stray), address, now)
        elif stray.kind is Kind.SHORT:
            reset = stateless_reset(datagram, self._reset_tokens, os.urandom(27))
            if reset is not None:
                self._answer(reset, address, now)
        return None

    def _answer(self, datagram: bytes, address: Address, now: float) -> None:
        """Send a stateless answer, at a bounded rate."""
        earned = (now - self._stray_refilled) * _STRAY_ANSWERS_PER_SECOND
        self._stray_refilled = now
        self._stray_budget = min(_STRAY_ANSWERS_PER_SECOND, self._stray_budget + earned)
        if self._stray_budget >= 1:
            self._stray_budget -= 1
            self.send_trains([(datagram, len(datagram), address)])

    def _newcomer(self, stray: Stray, address: Address, now: float) -> QuicConnection | None:
        if len(self._handshakes) >= MAX_HANDSHAKES or len(self._ids) >= MAX_CONNECTIONS:
            self._answer(refusal(stray, "server is busy"), address, now)
            return None
        original, retry_source = stray.destination, None
        face = self._face(address)
        if len(self._handshakes) >= RETRY_ABOVE and face is not None and face.validates(address):
            original_or_none = self._check_token(stray, address, now)
            if original_or_none is None:
                return None
            original, retry_source = original_or_none, stray.destination
        engine = self._engine.server(
            self._settings,
            self.identity,
            self._reset_tokens,
            alpn=self._alpn,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
            largest_datagram=self._largest_datagram,
        )
        connection = self._register(engine, self._arrived)
        self.add_connection_id(connection, stray.destination)
        self._handshakes[connection] = self._loop.call_later(
            self._settings.handshake_timeout, self._give_up, connection
        )
        return connection

    def _check_token(self, stray: Stray, address: Address, now: float) -> bytes | None:
        """The original destination id a valid Retry token vouches for; else send a Retry."""
        assert isinstance(address, tuple)
        if stray.token:
            try:
                return self._retry.validate_token(
                    address=address, destination_cid=stray.destination, token=stray.token, now=now
                )
            except ValueError:
                return None
        source = os.urandom(CONNECTION_ID_LENGTH)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=stray.destination,
            retry_source_connection_id=source,
            now=now,
        )
        retry = encode_quic_retry(
            version=QuicProtocolVersion.VERSION_1,
            source_cid=source,
            destination_cid=stray.source,
            original_destination_cid=stray.destination,
            retry_token=token,
        )
        self._answer(retry, address, now)
        return None

    def _register(
        self, engine: Engine, on_connected: Callable[[QuicConnection], None]
    ) -> QuicConnection:
        connection = QuicConnection(self, engine, on_connected)
        self._ids[connection] = set()
        self.add_connection_id(connection, engine.host_cid)
        return connection

    def _arrived(self, connection: QuicConnection) -> None:
        self._end_handshake(connection)
        while self._accept_waiters:
            waiter = self._accept_waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if len(self._accepted) >= MAX_UNACCEPTED:
            connection.close(0, "server is busy")
            return
        self._accepted.append(connection)

    def _end_handshake(self, connection: QuicConnection) -> None:
        timer = self._handshakes.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _give_up(self, connection: QuicConnection) -> None:
        connection.close(0, "handshake timed out")
        connection.discard()
