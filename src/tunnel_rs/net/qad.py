"""Address discovery from a UDP socket of ours (spec `relay.md` section 7).

The question must leave from the socket whose address is wanted: a NAT maps each socket apart. So
`AddressDiscovery` sits between a socket and whoever uses it, takes what belongs to its own
connections, and hands on the rest untouched.
"""

import asyncio
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

from tunnel_rs.errors import ConfigError, UnreachableError
from tunnel_rs.net.udp import SockAddr, TrainSink, UdpSocket, sock_addr
from tunnel_rs.proto.qad import KEEP_ALIVE, QadClient, QadConnection, Trust
from tunnel_rs.proto.quic_packets import destination_id
from tunnel_rs.values import SocketAddr

MAX_SESSIONS = 32
"""Servers asked from one socket at a time."""


def system_trust(ca_file: Path | None = None) -> Trust:
    """The system's certificate authorities, and those of a PEM file. Raises ConfigError."""
    paths = ssl.get_default_verify_paths()
    pem = _read_pem(ca_file) if ca_file is not None else b""
    if sys.platform == "win32":  # it keeps them elsewhere
        context = ssl.create_default_context()
        certificates = map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))
        pem += "".join(certificates).encode()
    return Trust(pem or None, paths.cafile, paths.capath)


def _read_pem(file: Path) -> bytes:
    try:
        ssl.create_default_context(cafile=str(file))
        return file.read_bytes()
    except (OSError, ssl.SSLError) as error:
        reason = "not PEM certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"relay_ca_file {file}: {reason}") from None


class QadDriver:
    """Moves one connection: datagrams in and out, and its timer."""

    def __init__(
        self,
        connection: QadConnection,
        send: Callable[[bytes, SockAddr], object],
        on_change: Callable[[], None],
        *,
        keep_alive: float | None = None,
    ) -> None:
        """`on_change` is called after everything that may have changed the connection; look at
        its `ending` there. `keep_alive`: seconds between pings."""
        self.connection = connection
        self._send = send
        self._on_change = on_change
        self._keep_alive = keep_alive
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.TimerHandle | None = None

    def receive(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        now = self._loop.time()
        for start in range(0, len(train), segment_size):
            datagram = bytes(train[start : start + segment_size])
            self.connection.receive_datagram(datagram, address, now)

    def update(self) -> None:
        """After `receive`, or any call to the connection: look at the events, send, set timers."""
        self.connection.process()
        for datagram, address in self.connection.datagrams_to_send(self._loop.time()):
            self._send(datagram, address)
        self._arm()
        self._on_change()

    def discard(self) -> None:
        """Drop the state without a word."""
        for timer in (self._timer, self._ping):
            if timer is not None:
                timer.cancel()
        self._timer = self._ping = None

    def _arm(self) -> None:
        due = self.connection.get_timer()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)
        if self._keep_alive is not None and self._ping is None and self.connection.is_established:
            self._ping = self._loop.call_later(self._keep_alive, self._on_ping)

    def _on_timer(self) -> None:
        self._timer = None
        self.connection.handle_timer(self._loop.time())
        self.update()

    def _on_ping(self) -> None:
        self._ping = None
        self.connection.send_ping(0)
        self.update()


class QadSession:
    """A connection to one server, open until `close`."""

    def __init__(
        self,
        client: QadClient,
        server: SocketAddr,
        forget: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self.server = server
        self._client = client
        self._forget = forget
        self._on_change = on_change
        self._reported: asyncio.Future[SocketAddr] = asyncio.get_running_loop().create_future()
        self._driver: QadDriver | None = None
        self._known: SocketAddr | None = None

    @property
    def address(self) -> SocketAddr | None:
        """How the socket looks from the server, as far as it has told."""
        observation = self._client.observation
        return observation.address if observation is not None else None

    @property
    def is_open(self) -> bool:
        """Whether the server may still report changes."""
        return self._driver is not None

    @property
    def was_answered(self) -> bool:
        """Whether anything valid came back."""
        return self._client.has_heard

    @property
    def round_trip(self) -> float | None:
        """Seconds; None before the first answer."""
        return self._client.round_trip

    async def observed(self) -> SocketAddr:
        """Wait for the first report. Raises UnreachableError."""
        return await asyncio.shield(self._reported)

    def close(self) -> None:
        """Tell the server that we have what we wanted. Idempotent."""
        driver, self._driver = self._driver, None
        if driver is not None:
            self._client.finish()
            driver.update()
            driver.discard()
            self._end("closed")

    def attach(self, driver: QadDriver) -> None:
        """The driver that moves this session."""
        self._driver = driver
        # A failure nobody waits for is no unhandled error.
        self._reported.add_done_callback(lambda future: future.cancelled() or future.exception())

    def changed(self) -> None:
        """The driver's `on_change`."""
        if self.address != self._known:
            self._known = self.address
            if self.address is not None and not self._reported.done():
                self._reported.set_result(self.address)
            self._on_change()
        ending = self._client.ending
        if ending is not None and self._driver is not None:
            self._driver.discard()
            self._driver = None
            reason = ending.reason_phrase if self._client.has_heard else "no answer"
            self._end(reason or f"closed with code {ending.error_code}")
            self._on_change()

    def _end(self, reason: str) -> None:
        if not self._reported.done():
            printable = "".join(c if c.isprintable() else "?" for c in reason[:200])
            self._reported.set_exception(UnreachableError(f"{self.server}: {printable}"))
        self._forget()


class AddressDiscovery:
    """The sink of a socket: start the socket with it instead of with `inner`."""

    def __init__(self, socket: UdpSocket, inner: TrainSink | None = None) -> None:
        self._socket = socket
        self._inner = inner
        self._sessions: dict[SockAddr, dict[bytes, QadDriver]] = {}
        self._touched: dict[QadDriver, None] = {}
        self._open: set[QadSession] = set()

    def dial(
        self,
        server: SocketAddr,
        server_name: str,
        trust: Trust,
        on_change: Callable[[], None] = lambda: None,
    ) -> QadSession:
        """Ask `server`, an address of the socket's family, whose certificate must be for
        `server_name`. `on_change` is called with each change of the session's address, and when
        the session ends by itself. Raises RuntimeError when there are too many sessions."""
        if len(self._open) >= MAX_SESSIONS:
            raise RuntimeError(f"{MAX_SESSIONS} address discovery sessions are open")
        client = QadClient(server_name, trust)
        where = sock_addr(server)
        drivers = self._sessions.setdefault(where, {})

        def forget() -> None:
            drivers.pop(client.host_cid, None)
            if not drivers:
                self._sessions.pop(where, None)
            self._open.discard(session)

        session = QadSession(client, server, forget, on_change)
        driver = QadDriver(client, self._send, session.changed, keep_alive=KEEP_ALIVE)
        session.attach(driver)
        drivers[client.host_cid] = driver
        self._open.add(session)
        client.connect(where, asyncio.get_running_loop().time())
        driver.update()
        return session

    def close(self) -> None:
        """End every session; the socket is its owner's."""
        for session in list(self._open):
            session.close()

    def _send(self, datagram: bytes, address: SockAddr) -> None:
        # A full socket loses the datagram; QUIC sends it again.
        self._socket.send_train(datagram, len(datagram), address)

    # The sink's side

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        drivers = self._sessions.get(address)
        if drivers is not None:
            driver = drivers.get(destination_id(train))
            if driver is not None:
                driver.receive(train, segment_size, address)
                self._touched[driver] = None
                return
        if self._inner is not None:
            self._inner.receive_train(train, segment_size, address)

    def end_batch(self) -> None:
        if self._touched:
            touched, self._touched = self._touched, {}
            for driver in touched:
                driver.update()
        if self._inner is not None:
            self._inner.end_batch()

    def writable(self) -> None:
        if self._inner is not None:
            self._inner.writable()
