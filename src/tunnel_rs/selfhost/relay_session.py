"""One client of the relay server: its WebSocket, its bounded queue and its timers.

The task that aiohttp runs for the request reads; a second one writes, because a client that is
slow to read must hold up nobody but itself.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import ClientConnectionError, WSMsgType, web

from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.relay_access import NOT_AUTHORIZED
from tunnel_rs.proto.relay_frames import Forward, Ping, forwarded
from tunnel_rs.proto.relay_handshake import RelayVersion
from tunnel_rs.proto.relay_server import (
    Authenticated,
    ClientConnection,
    Failed,
    Member,
    Notice,
    Roster,
)
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.selfhost.relay_metrics import RelayMetrics
from tunnel_rs.selfhost.relay_settings import RelayLimits
from tunnel_rs.values import EndpointId, Secret

_BURST_BYTES = 65_536
"""Written under one time limit: a client that takes less than this in `write_timeout` is slow."""
_MAX_CONTROL = 64
_CLOSE_TIMEOUT = 1.0


class SharedState(NamedTuple):
    """What all sessions of a server have in common."""

    roster: "Roster[RelaySession]"
    metrics: RelayMetrics
    limits: RelayLimits
    may_enter: Callable[[EndpointId, Secret[str] | None], Awaitable[bool]]


class RelaySession:
    """A WebSocket that has been upgraded; `run` returns when it is over."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        request: web.BaseRequest,
        version: RelayVersion,
        token: Secret[str] | None,
        shared: SharedState,
    ) -> None:
        self._websocket = websocket
        self._transport = request.transport
        self._shared = shared
        self._limits = shared.limits
        self._loop = asyncio.get_running_loop()
        self._connection = ClientConnection(version, os.urandom)
        self._queue: deque[bytes] = deque()
        # Pongs and notices go first, so that a flood of datagrams cannot make a client believe
        # that the relay is dead.
        self._control: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._rate = self._rate_limit()
        self.token = token
        """What the client presented, to judge it again when the rules change."""
        self.end_reason = "closed by the client"

    @property
    def endpoint_id(self) -> EndpointId | None:
        """Who the client has proved to be."""
        return self._connection.endpoint_id

    def _rate_limit(self) -> TokenBucket | None:
        limit = self._limits.client_rx
        if limit is None:
            return None
        burst = limit.max_burst_bytes or limit.bytes_per_second / 10
        return TokenBucket(limit.bytes_per_second, burst, self._loop.time())

    async def run(self, admitted: Callable[[], None]) -> None:
        """Handshake, then forward until the end. `admitted` is called once the client is in."""
        try:
            if await self._let_in():
                admitted()
                async with TaskScope("relay session", on_failure=self._writer_failed) as scope:
                    scope.spawn(self._write(), "writer")
                    await self._read()
        except (ClientConnectionError, ConnectionError):
            self.end_reason = "connection lost"
        finally:
            self._leave()
            await self._hang_up()

    def drop(self, reason: str) -> None:
        """End the connection at once, whatever it is doing."""
        self.end_reason = reason
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    # Handshake and access.

    async def _let_in(self) -> bool:
        # The connection's deadline, which the listener keeps, bounds all of this.
        await self._send_pending()
        message = await self._next_message()
        if message is None:
            return False
        event = self._connection.receive(message, self._loop.time())
        if isinstance(event, Authenticated):
            return await self._admit_or_deny(event.endpoint_id)
        self._shared.metrics.auth_failures += 1
        self.end_reason = event.reason if isinstance(event, Failed) else "no authentication"
        await self._send_pending()
        return False

    async def _admit_or_deny(self, endpoint_id: EndpointId) -> bool:
        if not await self._shared.may_enter(endpoint_id, self.token):
            self._shared.metrics.access_denied += 1
            self.end_reason = NOT_AUTHORIZED
            self._connection.deny(NOT_AUTHORIZED)
            await self._send_pending()
            return False
        self._connection.admit(self._loop.time(), random.uniform(1, 5))
        await self._send_pending()
        self._enter(Member(endpoint_id, self._connection.version))
        return True

    def _enter(self, member: Member) -> None:
        notices, surplus = self._shared.roster.add(self, member)
        if notices:
            self._shared.metrics.duplicate_endpoints += 1
        self._shared.metrics.accepts += 1
        deliver(notices)
        if surplus is not None:
            surplus.drop("too many connections with one id")
        self._run_timer()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self in self._shared.roster:
            deliver(self._shared.roster.remove(self))
            self._shared.metrics.disconnects += 1

    # Reading.

    async def _next_message(self) -> bytes | None:
        """The next binary message, None at the end. Text messages mean nothing."""
        while True:
            message = await self._websocket.receive()
            if message.type is WSMsgType.BINARY:
                data: bytes = message.data
                return data
            if message.type is not WSMsgType.TEXT:
                return None
            await self._slow_down(len(message.data))

    async def _read(self) -> None:
        receive, time = self._connection.receive, self._loop.time
        while (message := await self._next_message()) is not None:
            self._shared.metrics.bytes_recv += len(message)
            event = receive(message, time())
            if type(event) is Forward:
                self._forward(event)
            elif isinstance(event, Failed):
                self._shared.metrics.frames_invalid += 1
                self.end_reason = event.reason
                return
            elif isinstance(event, Ping):
                self._shared.metrics.got_ping += 1
                self._shared.metrics.sent_pong += 1
                self._queue_pending()
            await self._slow_down(len(message))

    def _forward(self, frame: Forward) -> None:
        metrics = self._shared.metrics
        metrics.send_packets_recv += 1
        route = self._shared.roster.route(self, frame.destination)
        # An empty payload makes real clients drop the connection, so it must not get through.
        if route is None or not frame.has_payload:
            metrics.send_packets_dropped += 1
        elif route[1].offer(forwarded(frame, route[0].key)):
            metrics.send_packets_sent += 1
        else:
            metrics.send_packets_dropped += 1

    async def _slow_down(self, size: int) -> None:
        """Not reading is what limits the rate: TCP then holds the client back."""
        if self._rate is None:
            return
        delay = self._rate.spend(size, self._loop.time())
        if delay > 0:
            self._shared.metrics.bytes_rx_ratelimited_total += size
            self._connection.rate_limited()
            self._queue_pending()
            await asyncio.sleep(delay)

    # Writing.

    def offer(self, message: bytes) -> bool:
        """Queue a message for the client; False when there is no room for it."""
        full = len(self._queue) >= self._limits.queue_packets
        if full or self._queued_bytes + len(message) > self._limits.queue_bytes:
            return False
        self._queue.append(message)
        self._queued_bytes += len(message)
        self._wake.set()
        return True

    def notify(self, message: bytes) -> None:
        """Queue a control message, ahead of datagrams."""
        if len(self._control) < _MAX_CONTROL:
            self._control.append(message)
            self._wake.set()

    def _queue_pending(self) -> None:
        for message in self._connection.messages_to_send():
            self.notify(message)

    async def _send_pending(self) -> None:
        for message in self._connection.messages_to_send():
            await self._websocket.send_bytes(message)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._control or self._queue:
                async with asyncio.timeout(self._limits.write_timeout):
                    await self._write_burst()

    async def _write_burst(self) -> None:
        send, written = self._websocket.send_bytes, 0
        while (self._control or self._queue) and written < _BURST_BYTES:
            if self._control:
                message = self._control.popleft()
            else:
                message = self._queue.popleft()
                self._queued_bytes -= len(message)
            await send(message)
            written += len(message)
        self._shared.metrics.bytes_sent += written

    def _writer_failed(self, _: str, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self._shared.metrics.slow_clients_dropped += 1
            self.drop("too slow in reading")
        elif isinstance(error, (ClientConnectionError, ConnectionError)):
            self.drop("connection lost")
        else:
            self.drop(f"internal error: {type(error).__name__}")
            self._loop.call_exception_handler({"message": "relay session", "exception": error})

    # Time.

    def _run_timer(self) -> None:
        failure = self._connection.handle_timer(self._loop.time())
        if failure is not None:
            self.drop(failure.reason)
            return
        self._queue_pending()
        due = self._connection.get_timer()
        if due is not None:
            self._timer = self._loop.call_at(due, self._run_timer)

    async def _hang_up(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._websocket.close()
        except (TimeoutError, ClientConnectionError, ConnectionError):
            pass
        if self._transport is not None:
            self._transport.abort()


def deliver(notices: list[Notice[RelaySession]]) -> None:
    """Queue what the roster wants its members to be told."""
    for session, message in notices:
        session.notify(message)
