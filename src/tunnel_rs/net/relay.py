"""A client's connection to one relay, kept up (spec `relay.md` sections 1 to 4).

`RelayClient` dials, authenticates, pings, and dials again after a failure until it is closed.
The rules are in `proto.relay_client`; here are the WebSocket, the timers and the two tasks that
a connection needs. Sending never waits: what does not fit into the queue is dropped, as on UDP.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import aiohttp

from tunnel_rs.errors import TunnelError
from tunnel_rs.net.relay_websocket import (
    Ended,
    RelayClientSettings,
    RelayWebSocket,
    dial,
    hang_up,
    next_message,
    why,
)
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
from tunnel_rs.proto.relay_frames import FrameError
from tunnel_rs.proto.relay_handshake import RelayIdentity, accepted_version
from tunnel_rs.values import EndpointId

MAX_QUEUED_MESSAGES = 256
MAX_QUEUED_BYTES = 1_048_576
_QUEUE_LIFE = 3.0
"""While there is no connection, what is queued is thrown away after this many seconds."""
_SEND_TIMEOUT = 15.0


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
        self._all_sent = asyncio.Event()
        self._connection: RelayConnection | None = None
        self._timer: _Timer | None = None
        self._over: asyncio.Future[Failed] | None = None
        self._addresses: dict[EndpointId, RelayAddr] = {}
        self._batch_open = False
        self._retry_now = asyncio.Event()
        self._dial_limit: asyncio.Timeout | None = None
        self._up = asyncio.Event()
        self.problem = "not connected yet"
        """Why it cannot be used now; empty when it can."""
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
        """Something changed (a network came up): dial without waiting for the backoff or for what
        was begun in another network, or see at once whether the connection there is still works."""
        if self._connection is not None and self._timer is not None:
            self._connection.ask(self._loop.time())
            self._timer.run()
            return
        self._retry_now.set()
        if self._dial_limit is not None and not self._dial_limit.expired():
            self._dial_limit.reschedule(self._loop.time())

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
        self._queue.extend(messages)
        self._queued_bytes += size
        self._all_sent.clear()
        self._wake.set()
        return True

    async def drain(self) -> None:
        """Wait until all that was queued has been handed to the relay. Returns at once while there
        is no connection."""
        if self.is_up and self._queue:
            await self._all_sent.wait()

    async def close(self) -> None:
        """End the connection and stop dialling. Idempotent; no callback comes afterwards."""
        await self._scope.aclose()
        self._up.clear()

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
            self.problem = failure.reason
            self._on_state(RelayDown(self.url, failure.reason, delay, was_up))
            await self._pause(delay)

    async def _pause(self, delay: float) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._retry_now.wait()
        except TimeoutError:
            pass

    async def _one_connection(self) -> tuple[Failed, bool]:
        """From dialling to the end: why it ended, and whether the relay had let us in."""
        websocket: RelayWebSocket | None = None
        self._retry_now.clear()
        try:
            try:
                async with asyncio.timeout(DIAL_TIMEOUT) as self._dial_limit:
                    websocket = await dial(self._relay, self._session, self._settings)
                    connection = self._converse_on(websocket)
                    await self._authenticate(websocket, connection)
            except Ended as ended:
                return ended.failure, False
            except (aiohttp.ClientError, TunnelError, OSError, ValueError) as error:
                is_other_network = self._retry_now.is_set() and isinstance(error, TimeoutError)
                return Failed("the network changed" if is_other_network else why(error)), False
            finally:
                self._dial_limit = None
            return await self._serve(websocket, connection), True
        finally:
            self._up.clear()
            self._connection = None
            if websocket is not None:
                await hang_up(websocket)

    def _converse_on(self, websocket: RelayWebSocket) -> RelayConnection:
        version = accepted_version(websocket.chosen_protocol)
        if version.value not in self._settings.offer:
            raise FrameError("the relay chose a protocol version we did not offer")
        return RelayConnection(self._identity, version, os.urandom)

    async def _authenticate(self, websocket: RelayWebSocket, connection: RelayConnection) -> None:
        while not connection.is_connected:
            message = await next_message(websocket)
            event = connection.receive(message, self._loop.time())
            if isinstance(event, Failed):
                raise Ended(event)
            for answer in connection.messages_to_send():
                await websocket.send_bytes(answer)

    # A connection in use.

    async def _serve(self, websocket: RelayWebSocket, connection: RelayConnection) -> Failed:
        self._connection = connection
        self._over = self._loop.create_future()
        self._forget_old(self._loop.time())
        self._wake.set()
        self._up.set()
        self.problem = ""
        self._on_state(RelayUp(self.url))
        since = self._loop.time()
        timer = self._timer = _Timer(self._loop, connection, self._timer_fired)
        try:
            async with TaskScope(f"relay {self.url}", on_failure=self._task_failed) as scope:
                scope.spawn(self._read(websocket, connection), "reader")
                scope.spawn(self._write(websocket), "writer")
                return await self._over
        finally:
            timer.cancel()
            self._timer = None
            if connection.was_answered and self._loop.time() - since >= LASTING:
                self._backoff.reset()
                self._denied_backoff.reset()

    def _timer_fired(self, failure: Failed | None) -> None:
        if failure is not None:
            self._finish(failure)
        self._flush_control()

    def _task_failed(self, _: str, error: Exception) -> None:
        if isinstance(error, Ended):
            self._finish(error.failure)
        elif isinstance(error, TimeoutError):
            self._finish(Failed(f"it took nothing from us for {_SEND_TIMEOUT:g} s"))
        elif isinstance(error, (aiohttp.ClientError, OSError)):
            self._finish(Failed(why(error)))
        else:
            self._finish(Failed(f"internal error: {type(error).__name__}"))
            self._loop.call_exception_handler({"message": "relay client", "exception": error})

    def _finish(self, failure: Failed) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(failure)

    async def _read(self, websocket: RelayWebSocket, connection: RelayConnection) -> None:
        time = self._loop.time
        while True:
            event = connection.receive(await next_message(websocket), time())
            if type(event) is Received:
                self._deliver(event)
                continue
            if isinstance(event, Failed):
                raise Ended(event)
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
            # Ahead of datagrams: a pong has a deadline.
            self._queue.extendleft(reversed(messages))
            self._queued_bytes += sum(map(len, messages))
            self._wake.set()

    async def _write(self, websocket: RelayWebSocket) -> None:
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
            self._all_sent.set()


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
        self.run()

    def run(self) -> None:
        """Let the connection act on what is due, and wait for what is due next."""
        self.cancel()
        self._fired(self._connection.handle_timer(self._loop.time()))
        due = self._connection.get_timer()
        if due is not None:
            self._handle = self._loop.call_at(due, self.run)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
