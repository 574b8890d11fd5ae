"""A QUIC endpoint: one key, one or more datagram faces, many connections.

A *face* carries trains: a UDP socket, a relay. It says which addresses it reaches; for the engine
an address is an opaque value. Whatever one wake-up brings is processed as a batch, and all that
the connections have to say afterwards leaves in one flush.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.udp import UdpSocket, from_sock_addr, sock_addr
from tunnel_rs.net.waiters import serve_first, wait_in_line
from tunnel_rs.proto.admission import BUSY, Admission, Newcomer
from tunnel_rs.proto.credentials import Credentials
from tunnel_rs.proto.engine import (
    CONNECTION_ID_LENGTH,
    DATAGRAM_SIZE,
    Address,
    ResetTokens,
    Train,
)
from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.nat_traversal import shared_budget
from tunnel_rs.proto.quic_packets import destination_id
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.proto.traversal import Traversal
from tunnel_rs.values import EndpointId, SocketAddr

ALPN = "multi-forward/1"

MAX_UNACCEPTED = 64
"""Connections that wait for `accept`; beyond it newcomers are closed again."""
MAX_HANDSHAKES_OF_ONE = 16
"""Handshakes in progress with one peer behind a relay. Others are held off by Retry."""
MAX_HELD_TRAINS = 256
"""Trains that wait for a full face; beyond it they are lost, as on a congested path."""
LARGEST_ON_IPV4, LARGEST_ON_IPV6 = 1452, 1432
"""What Ethernet carries, with room for PPPoE and the like."""
LARGEST_ON_LOOPBACK = 16_384


class Face(Protocol):
    """Something that carries trains to some kind of address."""

    def reaches(self, address: Address) -> bool: ...

    def send_train(self, train: bytes | memoryview, segment_size: int, address: Address) -> bool:
        """False: full; hold the train until the face calls `writable`."""

    def text(self, address: Address) -> str:
        """The address for people."""

    def error(self, address: Address) -> str:
        """Why nothing could be sent there; empty when nothing is known."""

    def largest_datagram(self, address: Address) -> int:
        """The largest UDP payload worth probing for."""

    def receive_room(self) -> int | None:
        """Bytes that may wait to be taken from us; None when nothing is known of it."""

    def validates(self, address: Address) -> bool:
        """Whether a Retry makes sense: the address could be forged."""

    def close(self) -> None: ...


class UdpFace:
    """A `UdpSocket` as a face. Addresses are the socket module's tuples."""

    def __init__(self, socket: UdpSocket) -> None:
        self.socket = socket
        self._ipv6 = socket.address.is_ipv6
        self._receive_room = socket.receive_room

    def reaches(self, address: Address) -> bool:
        # Exactly a tuple: addresses behind a relay are tuples with names.
        return type(address) is tuple and len(address) == (4 if self._ipv6 else 2)

    def send_train(self, train: bytes | memoryview, segment_size: int, address: Any) -> bool:
        return self.socket.send_train(train, segment_size, address)

    def text(self, address: Any) -> str:
        return str(from_sock_addr(address))

    def error(self, address: Any) -> str:
        return self.socket.error(address)

    def close(self) -> None:
        self.socket.close()

    def largest_datagram(self, address: Any) -> int:
        if ip_address(address[0].partition("%")[0]).is_loopback:
            return LARGEST_ON_LOOPBACK
        return LARGEST_ON_IPV6 if self._ipv6 else LARGEST_ON_IPV4

    def receive_room(self) -> int | None:
        return self._receive_room

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
        punches: bool = False,
    ) -> None:
        """`accept`: take connections that peers open. `alpn` None: do without (RFC 7301).
        `punches`: look for direct paths through NATs; tell `set_candidates` where we may be."""
        self.identity = identity
        self._settings = settings
        self._engine = FastEngine if settings.fast_path else MultipathEngine
        self._alpn = alpn
        self._loop = asyncio.get_running_loop()
        self._faces: list[Face] = []
        self._by_id: dict[bytes, QuicConnection] = {}
        self._dialled: dict[QuicConnection, None] = {}
        self._ids: dict[QuicConnection, set[bytes]] = {}
        self._received: dict[QuicConnection, None] = {}
        """What got datagrams in this batch."""
        self._touched: dict[QuicConnection, None] = {}
        """What may have something to send."""
        self._flush_scheduled = False
        self._in_batch = False
        self._held: dict[Face, deque[Train]] = {}
        self._handshakes: dict[QuicConnection, asyncio.TimerHandle] = {}
        self._accepted: deque[QuicConnection] = deque()
        self._accept_waiters: deque[asyncio.Future[QuicConnection]] = deque()
        self._reset_tokens = ResetTokens(identity.reset_key)
        self._admission = Admission(self._reset_tokens, os.urandom, accepting=accept)
        self._candidates: tuple[SocketAddr, ...] = ()
        self._traversal = self._make_traversal() if punches else None
        self._closed = False

    def _make_traversal(self) -> Traversal:
        return Traversal(
            budget=shared_budget(self._loop.time()),
            to_address=sock_addr,
            to_socket=_to_socket,
            reaches=lambda address: self.reaches(sock_addr(address)),
            random_bytes=os.urandom,
        )

    def add_face(self, face: Face) -> None:
        """Use `face` from now on. UDP faces are started by the caller with us as the sink."""
        self._faces.append(face)

    # Dialling and accepting

    def dial(
        self, peer: EndpointId, candidates: Iterable[Address], settings: TransportSettings
    ) -> QuicConnection:
        """Begin a handshake with `peer` at all `candidates` (at least one) at once. Await its
        `handshaken`; add what is found later with `add_candidate`. Raises LinkClosedError once
        the endpoint is closed."""
        self._check_open()
        engine = self._engine.client(
            settings,
            self.identity,
            self._reset_tokens,
            peer=peer,
            alpn=self._alpn,
            candidates=candidates,
            now=self._loop.time(),
            largest_datagram=self._largest_datagram,
            traversal=self._traversal,
        )
        connection = self._register(engine, lambda _: None)
        self._dialled[connection] = None
        self.schedule_flush(connection)
        return connection

    def reaches(self, address: Address) -> bool:
        """Whether any face could carry a datagram there."""
        return self._face(address) is not None

    def add_candidate(self, connection: QuicConnection, address: Address) -> None:
        """Dial at `address` too, unless somebody has answered already."""
        self.send_trains(connection.engine.add_candidate(address))

    def probe(self, connection: QuicConnection, address: Address) -> bool:
        """Ask a server whether it is at `address` too. Once it answers, the connection has one more
        path or, when the server knows no such thing, moves there. False when it cannot be asked
        now: see `MultipathEngine.open_path` and `PathMoves.probe`."""
        engine = connection.engine
        if not self.reaches(address):
            return False
        if engine.is_multipath:
            if engine.open_path(address, self._loop.time()) is None:
                return False
        elif not engine.probe(address):
            return False
        self.schedule_flush(connection)
        return True

    def send_error(self, address: Address) -> str:
        """Why nothing could be sent there; empty when nothing is known."""
        face = self._face(address)
        return face.error(address) if face is not None else ""

    async def accept(self) -> QuicConnection:
        """Next connection whose handshake is complete. Raises LinkClosedError once closed."""
        self._check_open()
        if self._accepted:
            return self._accepted.popleft()
        return await wait_in_line(self._accept_waiters, self._accepted.appendleft)

    def _check_open(self) -> None:
        if self._closed:
            raise LinkClosedError(0, "the endpoint was closed")

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
        self._held.clear()
        for face in self._faces:
            face.close()

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def connection_count(self) -> int:
        return len(self._ids)

    # Connections' side

    def schedule_flush(self, connection: QuicConnection) -> None:
        self._touched[connection] = None
        if not self._flush_scheduled and not self._in_batch:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    @property
    def in_batch(self) -> bool:
        """Datagrams are being read; connections are flushed when that is done."""
        return self._in_batch

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
                if len(held) < MAX_HELD_TRAINS:
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

    def _receive_room(self, address: Address) -> int | None:
        face = self._face(address)
        return face.receive_room() if face is not None else None

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
        self._dialled.pop(connection, None)
        if connection in self._accepted:
            self._accepted.remove(connection)
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
                connection.receive(part, segment_size, address, now)
                self._received[connection] = None
            start = end

    def end_batch(self) -> None:
        """A face has nothing more for now."""
        received, self._received = self._received, {}
        for connection in received:
            connection.process_events()
        self._in_batch = False
        touched, self._touched = self._touched, {}
        for connection in touched:
            connection.flush()
        for connection in received:
            if connection not in touched:
                connection.flush_after_receiving()

    def paths_lost(self, concerns: Callable[[Address], bool]) -> None:
        """A face cannot send to the addresses that `concerns` holds for."""
        for connection in self._reached_by(concerns):
            connection.engine.path_lost()
            connection.on_unanswered()

    def ask_peers(self, concerns: Callable[[Address], bool]) -> None:
        """Something has happened to the addresses that `concerns` holds for (they can be sent to
        again, or a peer is said to have left): see who is there."""
        now = self._loop.time()
        for connection in self._reached_by(concerns):
            connection.engine.ask(now)
            self.schedule_flush(connection)

    def set_candidates(self, addresses: Iterable[SocketAddr]) -> None:
        """Where peers may find our sockets from now on, the most valuable first; they are told."""
        self._candidates = tuple(addresses)
        for connection in self._ids:
            connection.engine.set_candidates(self._candidates, self._loop.time())
            self.schedule_flush(connection)

    def network_changed(self) -> None:
        """What passed may pass no more, and what did not may pass now: ask on all paths."""
        now = self._loop.time()
        for connection in self._ids:
            connection.engine.network_changed(now)
            connection.engine.ask(now)
            self.schedule_flush(connection)

    def _reached_by(self, concerns: Callable[[Address], bool]) -> list[QuicConnection]:
        return [c for c in self._ids if c.engine.peer is not None and concerns(c.engine.address)]

    def writable(self) -> None:
        """A face that was full has room again."""
        for face, held in list(self._held.items()):
            while held and face.send_train(*held[0]):
                held.popleft()
            if not held:
                del self._held[face]

    # Strangers

    def _stray(self, datagram: memoryview, address: Address, now: float) -> QuicConnection | None:
        """A datagram of no connection: accept a new one, answer, or ignore."""
        face = self._face(address)
        if face is None or self._closed:
            return None
        if (connection := self._forgotten_by_peer(datagram)) is not None:
            return connection
        forgeable = face.validates(address)
        if not forgeable and self._is_greedy(address):
            return None
        verdict = self._admission.judge(
            datagram,
            address,
            now,
            handshakes=len(self._handshakes),
            connections=len(self._ids),
            forgeable=forgeable,
        )
        if isinstance(verdict, Newcomer):
            return self._welcome(verdict)
        if verdict is not None:
            self.send_trains([(verdict, len(verdict), address)])
        return None

    def _is_greedy(self, address: Address) -> bool:
        """Whether a peer whose address is proven has as many handshakes in progress as one may."""
        if len(self._handshakes) < MAX_HANDSHAKES_OF_ONE:
            return False
        same = sum(connection.engine.address == address for connection in self._handshakes)
        return same >= MAX_HANDSHAKES_OF_ONE

    def _forgotten_by_peer(self, datagram: memoryview) -> QuicConnection | None:
        """The dialled connection that a stateless reset belongs to. Those that others dialled end
        by their timeouts: to look at them all for each datagram of a flood costs too much."""
        data = bytes(datagram) if self._dialled else b""
        for connection in self._dialled:
            if connection.engine.is_stateless_reset(data):
                return connection
        return None

    def _welcome(self, newcomer: Newcomer) -> QuicConnection:
        engine = self._engine.server(
            self._settings,
            self.identity,
            self._reset_tokens,
            alpn=self._alpn,
            original_destination_connection_id=newcomer.original,
            retry_source_connection_id=newcomer.retry_source,
            largest_datagram=self._largest_datagram,
            traversal=self._traversal,
        )
        connection = self._register(engine, self._arrived)
        self.add_connection_id(connection, newcomer.destination)
        self._handshakes[connection] = self._loop.call_later(
            self._settings.handshake_timeout, self._give_up, connection
        )
        return connection

    def _register(
        self, engine: MultipathEngine, on_connected: Callable[[QuicConnection], None]
    ) -> QuicConnection:
        engine.set_candidates(self._candidates, self._loop.time())
        engine.receive_buffer = self._receive_room
        connection = QuicConnection(self, engine, on_connected)
        self._ids[connection] = set()
        self.add_connection_id(connection, engine.host_cid)
        return connection

    def _arrived(self, connection: QuicConnection) -> None:
        self._end_handshake(connection)
        if serve_first(self._accept_waiters, connection):
            return
        if len(self._accepted) >= MAX_UNACCEPTED:
            connection.close(0, BUSY)
            return
        self._accepted.append(connection)

    def _end_handshake(self, connection: QuicConnection) -> None:
        timer = self._handshakes.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _give_up(self, connection: QuicConnection) -> None:
        connection.close(0, "handshake timed out")
        connection.discard()


def _to_socket(address: Any) -> SocketAddr | None:
    """The IP address of a face's address; None behind a relay."""
    return None if isinstance(address, RelayAddr) else from_sock_addr(address)
