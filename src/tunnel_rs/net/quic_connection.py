"""One QUIC connection as a `Link`: an engine, its streams, and its timer."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from aioquic.quic import events

from tunnel_rs.errors import LinkClosedError, UnreachableError, WrongPeerError
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.proto.engine import Address, Engine, Train
from tunnel_rs.values import EndpointId

_FINISHED_KEPT = 64
"""Streams the application is done with are remembered while the engine still has them."""


class ConnectionOwner(Protocol):
    """The endpoint, as its connections see it."""

    def schedule_flush(self, connection: "QuicConnection") -> None: ...

    def send_trains(self, trains: list[Train]) -> None: ...

    def add_connection_id(self, connection: "QuicConnection", connection_id: bytes) -> None: ...

    def remove_connection_id(self, connection_id: bytes) -> None: ...

    def forget(self, connection: "QuicConnection") -> None: ...

    def address_text(self, address: Address) -> str: ...


class QuicConnection:
    """See `net.link.Link` for the contract of the public part."""

    fixed_source = None

    def __init__(
        self,
        owner: ConnectionOwner,
        engine: Engine,
        on_connected: Callable[["QuicConnection"], None],
    ) -> None:
        self.engine = engine
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._on_connected = on_connected
        self._streams: dict[int, QuicStream] = {}
        self._incoming: deque[QuicStream] = deque()
        self._accept_waiters: deque[asyncio.Future[QuicStream]] = deque()
        self._open_waiters: deque[asyncio.Future[QuicStream]] = deque()
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._paused: dict[QuicStream, None] = {}
        self._finished: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0  # kept here: what uvloop returns for a due call cannot tell it
        self._closed_by_us: tuple[int, str] | None = None
        self._end: asyncio.Future[Exception] = self._loop.create_future()
        self.handshaken: asyncio.Future[None] = self._loop.create_future()
        self.handshaken.add_done_callback(_retrieve)

    # Link

    @property
    def peer(self) -> EndpointId:
        peer = self.engine.peer
        assert peer is not None, "the handshake is not complete"
        return peer

    @property
    def address(self) -> str:
        return self._owner.address_text(self.engine.address)

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time in seconds."""
        return self.engine.smoothed_rtt

    async def open_stream(self) -> QuicStream:
        if self._end.done():
            raise self._end.result()
        stream = None if self._open_waiters else self._try_open()
        if stream is not None:
            return stream
        waiter: asyncio.Future[QuicStream] = self._loop.create_future()
        self._open_waiters.append(waiter)
        return await waiter

    async def accept_stream(self) -> QuicStream:
        if self._incoming:
            return self._incoming.popleft()
        if self._end.done():
            raise self._end.result()
        waiter: asyncio.Future[QuicStream] = self._loop.create_future()
        self._accept_waiters.append(waiter)
        return await waiter

    def open_window(self) -> None:
        self.engine.open_window()
        self.schedule_flush()

    def close(self, code: int, reason: str) -> None:
        if self._end.done():
            return
        self._closed_by_us = (code, reason)
        self.engine.close(error_code=code, reason_phrase=reason)
        self._ended(LinkClosedError(code, reason, by_application=True))
        self.flush()

    async def drain(self) -> None:
        if self._end.done() or not self.engine.total_unsent:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._drain_waiters.append(waiter)
        await waiter

    async def wait_closed(self) -> Exception:
        return await asyncio.shield(self._end)

    # Streams' side

    def schedule_flush(self) -> None:
        self._owner.schedule_flush(self)

    def pause(self, stream: QuicStream) -> None:
        self._paused[stream] = None

    def _try_open(self) -> QuicStream | None:
        stream_id = self.engine.open_stream()
        if stream_id is None:
            return None
        stream = self._streams[stream_id] = QuicStream(self, stream_id)
        return stream

    # Endpoint's side

    def process_events(self) -> None:
        """Hand on what the engine has understood; stream bytes are joined to one piece a batch."""
        engine = self.engine
        chunks: dict[int, list[bytes]] = {}
        while (event := engine.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                if event.data:
                    chunks.setdefault(event.stream_id, []).append(event.data)
                if event.end_stream:
                    self._deliver(event.stream_id, chunks.pop(event.stream_id, []))
                    if (stream := self._stream(event.stream_id)) is not None:
                        stream.deliver_eof()
            else:
                if isinstance(event, events.StreamReset):
                    self._deliver(event.stream_id, chunks.pop(event.stream_id, []))
                self._handle(event)
        for stream_id, data in chunks.items():
            self._deliver(stream_id, data)
        self._after_batch()

    def _deliver(self, stream_id: int, chunks: list[bytes]) -> None:
        if not chunks:
            return
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        stream = self._stream(stream_id)
        if stream is None:
            self.engine.consumed(stream_id, len(data))
        else:
            stream.deliver(data)

    def _handle(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamReset):
            if (stream := self._stream(event.stream_id)) is not None:
                stream.deliver_reset(event.error_code)
        elif isinstance(event, events.StopSendingReceived):
            if (stream := self._stream(event.stream_id)) is not None:
                stream.deliver_stop(event.error_code)
        elif isinstance(event, events.ConnectionIdIssued):
            self._owner.add_connection_id(self, event.connection_id)
        elif isinstance(event, events.ConnectionIdRetired):
            self._owner.remove_connection_id(event.connection_id)

    def _stream(self, stream_id: int) -> QuicStream | None:
        """The stream of an event; one we do not know yet has been opened by the peer. None when
        the application is done with it, or the link has ended."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream
        if self._end.done() or stream_id in self._finished:
            return None
        if stream_id % 2 == (0 if self.engine.is_client else 1):
            return None  # our own: it has ended
        stream = self._streams[stream_id] = QuicStream(self, stream_id)
        self._offer(stream)
        return stream

    def _offer(self, stream: QuicStream) -> None:
        while self._accept_waiters:
            waiter = self._accept_waiters.popleft()
            if not waiter.done():
                waiter.set_result(stream)
                return
        self._incoming.append(stream)

    def stream_done(self, stream: QuicStream) -> None:
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self._paused.pop(stream, None)
        self._finished.add(stream.stream_id)
        if len(self._finished) > _FINISHED_KEPT:
            self._finished = {i for i in self._finished if self.engine.has_stream(i)}

    def _after_batch(self) -> None:
        engine = self.engine
        if engine.peer is not None and not self.handshaken.done():
            self.handshaken.set_result(None)
            self._on_connected(self)
        if engine.ending is not None and not self._end.done():
            self._ended(self._why(engine.ending))
        if self._paused:
            for stream in [s for s in self._paused if s.resume_if_sent()]:
                self._paused.pop(stream, None)
        while self._open_waiters and (self._open_waiters[0].done() or self._wake_opener()):
            self._open_waiters.popleft()
        if self._drain_waiters and not engine.total_unsent:
            self._wake_drainers()

    def _wake_opener(self) -> bool:
        stream = self._try_open()
        if stream is None:
            return False
        self._open_waiters[0].set_result(stream)
        return True

    def _wake_drainers(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _why(self, ending: events.ConnectionTerminated) -> Exception:
        if self.engine.refused_peer is not None:
            return WrongPeerError(
                f"the machine that answered has another key: {self.engine.refused_peer}"
            )
        if self.engine.peer is None and ending.reason_phrase == "Idle timeout":
            return UnreachableError("no answer")
        return LinkClosedError(
            int(ending.error_code),
            "".join(c if c.isprintable() else "?" for c in ending.reason_phrase),
            by_peer=self.engine.was_closed_by_peer,
            by_application=ending.frame_type is None,
        )

    def _ended(self, error: Exception) -> None:
        """The link is over for everybody who uses it; the engine lives on to say so."""
        self._end.set_result(error)
        if not self.handshaken.done():
            self.handshaken.set_exception(error)
        streams, self._streams = self._streams, {}
        self._paused.clear()
        self._incoming.clear()
        for waiter in (*self._accept_waiters, *self._open_waiters):
            if not waiter.done():
                waiter.set_exception(error)
        self._accept_waiters.clear()
        self._open_waiters.clear()
        self._wake_drainers()
        for stream in streams.values():
            stream.lose(error)

    def flush(self) -> None:
        """Send what may leave now and set the timer."""
        trains = self.engine.trains(self._loop.time())
        if trains:
            self._owner.send_trains(trains)
        self._arm()

    def _arm(self) -> None:
        due = self.engine.get_timer()
        if self._timer is not None:
            if due is not None and self._timer_due <= due:
                return  # fires early, finds nothing to do and arms again: cheaper than replacing
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._on_timer)
            self._timer_due = due

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = self.engine.get_timer()
        if due is not None and due > now:
            self._arm()  # it was armed for something that has been dealt with since
            return
        if due is not None:
            self.engine.handle_timer(now)
            self.process_events()
        self.flush()
        if self.engine.is_terminated:
            self.discard()

    def discard(self) -> None:
        """Drop the state; nothing more is sent or received."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._end.done():
            self._ended(LinkClosedError(0, "the endpoint was closed"))
        self._owner.forget(self)


def _retrieve(future: asyncio.Future[None]) -> None:
    """A failed handshake nobody waits for is no unhandled error."""
    if not future.cancelled():
        future.exception()
