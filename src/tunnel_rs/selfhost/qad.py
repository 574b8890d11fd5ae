"""The QUIC address discovery port of a relay (spec `relay.md` section 7)."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aioquic.quic.packet import QuicProtocolVersion, encode_quic_retry
from aioquic.quic.retry import QuicRetryTokenHandler

from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.net.http_listener import source_network
from tunnel_rs.net.qad import QadDriver
from tunnel_rs.net.udp import SockAddr, UdpSocket, from_sock_addr
from tunnel_rs.proto.qad import CONNECTION_ID_LENGTH, QadServer, ServerIdentity
from tunnel_rs.proto.quic_packets import (
    Kind,
    Stray,
    classify,
    destination_id,
    refusal,
    version_negotiation,
)
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import SocketAddr

HANDSHAKE_TIMEOUT = 5.0
MAX_HANDSHAKES = 128
"""Handshakes in progress; beyond it newcomers are refused. Each costs us a signature."""
RETRY_ABOVE = 32
"""Handshakes in progress above which newcomers must prove their address first."""
MAX_PER_SOURCE = 64
HANDSHAKES_PER_SECOND = 200.0
_ANSWERS_PER_SECOND = 100.0
_BUSY = "server is busy"


def read_identity(certificate: Path, key: Path) -> ServerIdentity:
    """Read PEM files. Raises ConfigError."""
    try:
        return ServerIdentity.from_pem(certificate.read_bytes(), key.read_bytes())
    except OSError as error:
        raise ConfigError(f"TLS file {error.filename}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(
            f"TLS files {certificate} and {key} do not make a certificate with its key"
        ) from None


class QadListener:
    """Serves address discovery on one address. `start` it, `close` it in the same loop."""

    def __init__(
        self,
        address: SocketAddr,
        identity: ServerIdentity,
        *,
        max_connections: int,
        on_accepted: Callable[[], None] = lambda: None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """`[::]` stands for every address of both families."""
        self._address = address
        self.identity = identity
        """Shown to newcomers; may be replaced."""
        self._max_connections = max_connections
        self._on_accepted = on_accepted
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._handshake_budget = TokenBucket(HANDSHAKES_PER_SECOND, HANDSHAKES_PER_SECOND, now)
        self._answer_budget = TokenBucket(_ANSWERS_PER_SECOND, _ANSWERS_PER_SECOND, now)
        self._ports: list[_Port] = []
        self._retry = QuicRetryTokenHandler()
        self._by_source: Counter[str] = Counter()
        self._members: dict[QadServer, _Member] = {}
        self._handshakes: set[QadServer] = set()

    @property
    def bound(self) -> SocketAddr:
        """Where it listens; the real port once started."""
        port = self._ports[0].socket.address.port if self._ports else self._address.port
        return SocketAddr(self._address.ip, port)

    @property
    def connection_count(self) -> int:
        return len(self._members)

    def start(self) -> None:
        """Raises LocalError when the address cannot be used."""
        first = UdpSocket.bind(self._address, mirror=True)
        self._ports.append(_Port(self, first))
        if self._address.ip == "::":
            try:
                second = UdpSocket.bind(SocketAddr("0.0.0.0", first.address.port), mirror=True)
            except LocalError:
                self.close()
                raise
            self._ports.append(_Port(self, second))
        for port in self._ports:
            port.socket.start(port)

    def close(self) -> None:
        """End every connection. Idempotent."""
        for connection, member in list(self._members.items()):
            if connection.has_heard:
                connection.close(reason_phrase="the server stops")
                member.driver.update()
            self._forget(connection)
        ports, self._ports = self._ports, []
        for port in ports:
            port.socket.close()

    # What ports bring

    def admit(self, port: "_Port", datagram: memoryview, address: SockAddr) -> "QadDriver | None":
        """Judge a datagram of no connection: a new connection, or an answer, or nothing."""
        stray = classify(datagram)
        now = self._loop.time()
        if stray.kind is Kind.OTHER_VERSION:
            self._answer(port, version_negotiation(stray), address, now)
        if stray.kind is not Kind.INITIAL:
            return None
        source = source_network(address[0])
        if self._is_full(source) or not self._handshake_budget.try_spend(1, now):
            self._on_refused()
            self._answer(port, refusal(stray, _BUSY), address, now)
            return None
        original, retry_source = stray.destination, None
        if len(self._handshakes) >= RETRY_ABOVE:
            validated = self._check_token(port, stray, address, now)
            if validated is None:
                return None
            original, retry_source = validated, stray.destination
        connection = QadServer(
            self.identity,
            to_value=from_sock_addr,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
        )
        return self._add(port, connection, stray.destination, source)

    def _is_full(self, source: str) -> bool:
        return (
            len(self._members) >= self._max_connections
            or len(self._handshakes) >= MAX_HANDSHAKES
            or self._by_source[source] >= MAX_PER_SOURCE
        )

    def _add(
        self, port: "_Port", connection: QadServer, first_id: bytes, source: str
    ) -> "QadDriver":
        driver = QadDriver(connection, port.send, lambda: self._changed(connection))
        timer = self._loop.call_later(HANDSHAKE_TIMEOUT, self._forget, connection)
        member = _Member(port, driver, source, timer, {first_id, connection.host_cid})
        self._members[connection] = member
        self._handshakes.add(connection)
        self._by_source[source] += 1
        for connection_id in member.ids:
            port.drivers[connection_id] = driver
        return driver

    def _check_token(
        self, port: "_Port", stray: Stray, address: SockAddr, now: float
    ) -> bytes | None:
        """The original destination id a valid Retry token vouches for; else send a Retry."""
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
        self._answer(port, retry, address, now)
        return None

    def _answer(self, port: "_Port", datagram: bytes, address: SockAddr, now: float) -> None:
        """Send a stateless answer, at a bounded rate."""
        if self._answer_budget.try_spend(1, now):
            port.send(datagram, address)

    # Connections

    def _changed(self, connection: QadServer) -> None:
        member = self._members.get(connection)
        if member is None:
            return
        for connection_id in connection.issued:
            member.ids.add(connection_id)
            member.port.drivers[connection_id] = member.driver
        for connection_id in connection.retired:
            member.ids.discard(connection_id)
            member.port.drivers.pop(connection_id, None)
        connection.issued.clear()
        connection.retired.clear()
        if connection in self._handshakes and connection.is_established:
            self._handshakes.discard(connection)
            member.timer.cancel()
            self._on_accepted()
        if connection.is_terminated:
            self._forget(connection)

    def drop(self, driver: QadDriver) -> None:
        """Forget a connection that is none."""
        assert isinstance(driver.connection, QadServer)
        self._forget(driver.connection)

    def _forget(self, connection: QadServer) -> None:
        member = self._members.pop(connection, None)
        if member is None:
            return
        member.timer.cancel()
        member.driver.discard()
        self._handshakes.discard(connection)
        self._by_source[member.source] -= 1
        if not self._by_source[member.source]:
            del self._by_source[member.source]
        for connection_id in member.ids:
            member.port.drivers.pop(connection_id, None)


class _Member:
    """What the listener keeps of a connection."""

    __slots__ = ("driver", "ids", "port", "source", "timer")

    def __init__(
        self,
        port: "_Port",
        driver: QadDriver,
        source: str,
        timer: asyncio.TimerHandle,
        ids: set[bytes],
    ) -> None:
        self.port = port
        self.driver = driver
        self.source = source
        self.timer = timer
        self.ids = ids


class _Port:
    """One socket of a listener, and the sink of it."""

    def __init__(self, listener: QadListener, socket: UdpSocket) -> None:
        self._listener = listener
        self.socket = socket
        self.drivers: dict[bytes, QadDriver] = {}
        self._touched: dict[QadDriver, None] = {}

    def send(self, datagram: bytes, address: SockAddr) -> None:
        # A full socket loses the datagram; QUIC sends it again.
        self.socket.send_train(datagram, len(datagram), address)

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        # Strangers may send datagrams of several connections in one go.
        for start in range(0, len(train), segment_size):
            datagram = train[start : start + segment_size]
            driver = self.drivers.get(destination_id(datagram))
            if driver is None:
                driver = self._listener.admit(self, datagram, address)
            if driver is not None:
                driver.receive(datagram, segment_size, address)
                self._touched[driver] = None

    def end_batch(self) -> None:
        touched, self._touched = self._touched, {}
        for driver in touched:
            if driver.connection.has_heard:
                driver.update()
            else:  # what came was no valid Initial: nobody waits for anything
                self._listener.drop(driver)

    def writable(self) -> None:
        """Nothing waits: what did not fit was dropped."""
