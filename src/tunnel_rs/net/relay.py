"""A client's connection to one relay, kept up (spec `relay.md` sections 1 to 4).

`RelayClient` dials, authenticates, pings, and dials again after a failure until it is closed.
The rules are in `proto.relay_client`; here are the WebSocket, the timers and the two tasks that
a connection needs. Sending never waits: what does not fit into the queue is dropped, as on UDP.
"""

import asyncio
import os
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiohttp

from tunnel_rs.errors import ConfigError, TunnelError
from tunnel_rs.net.proxy import environment_proxy
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.backoff import Backoff
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_client import (
    BACKOFF_FIRST,
    BACKOFF_LIMIT,
    BACKOFF_LIMIT_DENIED,
    DIAL_TIMEOUT,
    LASTING,
    Failed,
    PeerGone,
    Received,
    RelayConnection,
    StatusChanged,
    datagram_messages,
)
from tunnel_rs.proto.relay_frames import MAX_MESSAGE, FrameError
from tunnel_rs.proto.relay_handshake import (
    SUBPROTOCOL_OFFER,
    RelayIdentity,
    RelayVersion,
    accepted_version,
    printable,
)
from tunnel_rs.values import EndpointId, Secret

MAX_QUEUED_MESSAGES = 256
MAX_QUEUED_BYTES = 1_048_576
_QUEUE_LIFE = 3.0
"""While there is no connection, what is queued is thrown away after this many seconds."""
_SEND_TIMEOUT = 15.0
_CONNECT_TIMEOUT = 4.0
"""Seconds for TCP and TLS to one address, so that a dead one leaves time for the next."""
_CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class RelayClientSettings:
    """How relays are reached."""

    ca_file: Path | None = None
    """PEM file of certificate authorities trusted besides the system's."""

    token: Secret[str] | None = None
    """Access token for every relay whose URL carries none."""

    offer: str = SUBPROTOCOL_OFFER
    """WebSocket subprotocols offered, newest first; anything else is for tests of old relays."""


class RelayUp(NamedTuple):
    """The relay has let us in."""

    url: str


class RelayDown(NamedTuple):
    """The connection broke or could not be made. Tried again after `retry_in` seconds."""

    url: str
    reason: str
    retry_in: float
    was_up: bool


class RelayProblem(NamedTuple):
    """The relay told us of a problem; empty text when it is over."""

    url: str
    text: str


class RelayPeerGone(NamedTuple):
    """A peer has left the relay."""

    url: str
    peer: EndpointId


RelayState = RelayUp | RelayDown | RelayProblem | RelayPeerGone


class DatagramSink(Protocol):
    """Who takes received datagrams. All calls are synchronous and must not raise."""

    def receive_train(self, buffer: memoryview, segment_size: int, addr: RelayAddr) -> None:
        """Datagrams of `segment_size` bytes each, the last may be shorter."""

    def end_batch(self) -> None:
        """All that was there to be read has been handed over."""


class _WebSocket(aiohttp.ClientWebSocketResponse):
    """Keeps the subprotocol the relay chose: aiohttp only knows it for offers it wrote itself, and
    it would write ours without the blank that old relays need."""

    def __init__(
        self, reader: Any, writer: Any, protocol: str | None, response: Any, *args: Any, **kw: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *args, **kw)
        self.chosen_protocol: str | None = response.headers.get("Sec-WebSocket-Protocol")


def relay_session(settings: RelayClientSettings) -> aiohttp.ClientSession:
    """The HTTP session all relay clients of an endpoint share; to be closed by who made it.

    Raises ConfigError when the CA file cannot be used.
    """
    connector = aiohttp.TCPConnector(
        ssl=_tls_context(settings.ca_file), limit=0, happy_eyeballs_delay=0.25, ttl_dns_cache=10
    )
    return aiohttp.ClientSession(
        connector=connector,
        ws_response_class=_WebSocket,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
    )


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or "not PEM certificates"
            raise ConfigError(f"relay_ca_file {ca_file}: {reason}") from None
    return context


def _why(error: Exception) -> str:
    """Why dialling failed, in one line."""
    if isinstance(error, TimeoutError):
        return f"no answer within {DIAL_TIMEOUT:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f"its certificate is not trusted: {getattr(cause, 'verify_message', cause)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.os_error.errno
        return os.strerror(code) if code and code > 0 else printable(str(error.os_error))
    if isinstance(error, aiohttp.ClientResponseError):
        return f"answered HTTP status {error.status} instead of opening a WebSocket"
    return printable(str(error)) or type(error).__name__


class RelayClient:
    """One relay, connected to until `close`."""

    def __init__(
        self,
        relay: RelayUrl,
        identity: RelayIdentity,
        session: aiohttp.ClientSession,
        sink: DatagramSink,
        *,
        settings: RelayClientSettings | None = None,
        on_state: Callable[[RelayState], None] = lambda _: None,
    ) -> None:
        """`session`: from `relay_session`. `sink` and `on_state` are called from the loop."""
        self.url = relay.text
        self._relay = relay
        self._identity = identity
        self._session = session
        self._sink = sink
        self._settings = settings or RelayClientSettings()
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._scope = TaskScope(f"relay {relay.text}")
        self._backoff = Backoff(first=BACKOFF_FIRST, limit=BACKOFF_LIMIT, random=random.random)
        self._denied_backoff = Backoff(
            first=BACKOFF_FIRST, limit=BACKOFF_LIMIT_DENIED, random=random.random
        )
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._queued_at = 0.0
        self._wake = asyncio.Event()
        self._connection: RelayConnection | None = None
        self._over: asyncio.Future[Failed] | None = None
        self._addresses: dict[EndpointId, RelayAddr] = {}
        self._batch_open = False
        self._retry_now = asyncio.Event()
        self._up = asyncio.Event()
        self.last_sent = self._loop.time()
        """Loop time of the latest `send`."""
        self.dropped = 0
        """Messages that did not fit into the queue or were queued too long."""

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def round_trip(self) -> float | None:
        """Latest measured round trip to the relay in seconds."""
        return self._connection.round_trip if self._connection else None

    def start(self) -> None:
        """Begin to dial."""
        self._scope.spawn(self._keep_up(), "connection")

    async def wait_up(self) -> None:
        """Wait until the relay has let us in."""
        await self._up.wait()

    def retry_now(self) -> None:
        """Something changed (a network came up): dial without waiting for the backoff."""
        self._retry_now.set()

    def send(self, destination: EndpointId, segment_size: int, data: memoryview) -> bool:
        """Queue datagrams, `segment_size` bytes each but the last. Never waits.

        False when there is no room: they are dropped then, the newest first.
        """
        now = self.last_sent = self._loop.time()
        if not self.is_up:
            self._forget_old(now)
        messages = datagram_messages(destination, segment_size, data)
        size = sum(map(len, messages))
        full = len(self._queue) + len(messages) > MAX_QUEUED_MESSAGES
        if full or self._queued_bytes + size > MAX_QUEUED_BYTES:
            self.dropped += len(messages)
            return False
        if not self._queue:
            self._queued_at = now
        self._enqueue(messages, size)
        return True

    async def close(self) -> None:
        """End the connection and stop dialling. Idempotent; no callback comes afterwards."""
        await self._scope.aclose()
        self._up.clear()

    def _enqueue(self, messages: list[bytes], size: int) -> None:
        self._queue.extend(messages)
        self._queued_bytes += size
        self._wake.set()

    def _forget_old(self, now: float) -> None:
        if self._queue and now - self._queued_at > _QUEUE_LIFE:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._queued_bytes = 0

    # Dialling, and dialling again.

    async def _keep_up(self) -> None:
        while True:
            failure, was_up = await self._one_connection()
            if failure.denied:
                delay = self._denied_backoff.next_delay()
            else:
                delay = self._backoff.next_delay()
            self._on_state(RelayDown(self.url, failure.reason, delay, was_up))
            await self._pause(delay)

    async def _pause(self, delay: float) -> None:
        self._retry_now.clear()
        try:
            async with asyncio.timeout(delay):
                await self._retry_now.wait()
        except TimeoutError:
            pass

    async def _one_connection(self) -> tuple[Failed, bool]:
        """From dialling to the end: why it ended, and whether the relay had let us in."""
        websocket: _WebSocket | None = None
        try:
            try:
                async with asyncio.timeout(DIAL_TIMEOUT):
                    websocket = await self._dial()
                    connection = self._converse_on(websocket)
                    await self._authenticate(websocket, connection)
            except _Ended as ended:
                return ended.failure, False
            except (aiohttp.ClientError, TunnelError, OSError, ValueError) as error:
                return Failed(_why(error)), False
            return await self._serve(websocket, connection), True
        finally:
            self._up.clear()
            self._connection = None
            if websocket is not None:
                await self._hang_up(websocket)

    async def _dial(self) -> _WebSocket:
        token = self._relay.token or self._settings.token
        headers = {"Sec-WebSocket-Protocol": self._settings.offer}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        proxy = environment_proxy(self._relay.endpoint)
        websocket = await self._session.ws_connect(
            self._relay.endpoint,
            headers=headers,
            max_msg_size=MAX_MESSAGE,
            compress=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT),
            proxy=proxy.url if proxy else None,
            proxy_headers=proxy.headers if proxy else None,
        )
        assert isinstance(websocket, _WebSocket)
        return websocket

    def _converse_on(self, websocket: _WebSocket) -> RelayConnection:
        version: RelayVersion = accepted_version(websocket.chosen_protocol)
        if version.value not in self._settings.offer:
            raise FrameError("the relay chose a protocol version we did not offer")
        return RelayConnection(self._identity, version, os.urandom)

    async def _authenticate(self, websocket: _WebSocket, connection: RelayConnection) -> None:
        while not connection.is_connected:
            message = await _next_message(websocket)
            event = connection.receive(message, self._loop.time())
            if isinstance(event, Failed):
                raise _Ended(event)
            for answer in connection.messages_to_send():
                await websocket.send_bytes(answer)

    # A connection in use.

    async def _serve(self, websocket: _WebSocket, connection: RelayConnection) -> Failed:
        self._connection = connection
        self._over = self._loop.create_future()
        self._forget_old(self._loop.time())
        self._wake.set()
        self._up.set()
        self._on_state(RelayUp(self.url))
        since = self._loop.time()
        timer = _Timer(self._loop, connection, self._timer_fired)
        try:
            async with TaskScope(f"relay {self.url}", on_failure=self._task_failed) as scope:
                scope.spawn(self._read(websocket, connection), "reader")
                scope.spawn(self._write(websocket), "writer")
                return await self._over
        finally:
            timer.cancel()
            if connection.was_answered and self._loop.time() - since >= LASTING:
                self._backoff.reset()
                self._denied_backoff.reset()

    def _timer_fired(self, failure: Failed | None) -> None:
        if failure is not None:
            self._finish(failure)
        self._flush_control()

    def _task_failed(self, _: str, error: Exception) -> None:
        if isinstance(error, _Ended):
            self._finish(error.failure)
        elif isinstance(error, TimeoutError):
            self._finish(Failed(f"it took nothing from us for {_SEND_TIMEOUT:g} s"))
        elif isinstance(error, (aiohttp.ClientError, OSError)):
            self._finish(Failed(_why(error)))
        else:
            self._finish(Failed(f"internal error: {type(error).__name__}"))
            self._loop.call_exception_handler({"message": "relay client", "exception": error})

    def _finish(self, failure: Failed) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(failure)

    async def _read(self, websocket: _WebSocket, connection: RelayConnection) -> None:
        time = self._loop.time
        while True:
            event = connection.receive(await _next_message(websocket), time())
            if type(event) is Received:
                self._deliver(event)
                continue
            if isinstance(event, Failed):
                raise _Ended(event)
            if isinstance(event, StatusChanged):
                self._on_state(RelayProblem(self.url, event.problem))
            elif isinstance(event, PeerGone):
                self._on_state(RelayPeerGone(self.url, event.peer))
            self._flush_control()

    def _deliver(self, event: Received) -> None:
        self._sink.receive_train(event.contents, event.segment_size, self._address(event.source))
        if not self._batch_open:
            self._batch_open = True
            # The reader handles all messages that are there before the loop runs this.
            self._loop.call_soon(self._end_batch)

    def _end_batch(self) -> None:
        self._batch_open = False
        self._sink.end_batch()

    def _address(self, source: EndpointId) -> RelayAddr:
        address = self._addresses.get(source)
        if address is None:
            if len(self._addresses) >= 1024:
                del self._addresses[next(iter(self._addresses))]
            address = self._addresses[source] = RelayAddr(self.url, source)
        return address

    def _flush_control(self) -> None:
        if self._connection is None:
            return
        messages = self._connection.messages_to_send()
        # A relay that pings without reading our pongs does not make us hold more and more.
        if messages and len(self._queue) < 2 * MAX_QUEUED_MESSAGES:
            self._enqueue(messages, sum(map(len, messages)))

    async def _write(self, websocket: _WebSocket) -> None:
        queue = self._queue
        while True:
            await self._wake.wait()
            self._wake.clear()
            while queue:
                async with asyncio.timeout(_SEND_TIMEOUT):
                    for _ in range(len(queue)):
                        message = queue.popleft()
                        self._queued_bytes -= len(message)
                        await websocket.send_bytes(message)

    async def _hang_up(self, websocket: _WebSocket) -> None:
        """Close politely, but do not wait for a relay that is stuck."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await websocket.close()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass


class _Ended(Exception):
    """The connection is over, for a reason that is known."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class _Timer:
    """Calls `handle_timer` of a connection when it is due."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: RelayConnection,
        fired: Callable[[Failed | None], None],
    ) -> None:
        self._loop, self._connection, self._fired = loop, connection, fired
        self._handle: asyncio.TimerHandle | None = None
        self._run()

    def _run(self) -> None:
        self._fired(self._connection.handle_timer(self._loop.time()))
        due = self._connection.get_timer()
        if due is not None:
            self._handle = self._loop.call_at(due, self._run)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


async def _next_message(websocket: _WebSocket) -> bytes:
    """The next binary message; text is ignored. Raises _Ended when there will be no more."""
    while True:
        message = await websocket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is not aiohttp.WSMsgType.TEXT:
            break
    error = websocket.exception()
    reason = f": {printable(str(error))}" if error is not None and str(error) else ""
    raise _Ended(Failed(f"the relay closed the connection{reason}"))
