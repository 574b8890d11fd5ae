"""One QUIC connection as a `Link`: an engine, its streams, and its timer."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode

from tunnel_rs.errors import LinkClosedError, UnreachableError, WrongPeerError
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.net.waiters import serve_first, wait_in_line
from tunnel_rs.proto.engine import DATAGRAM_SIZE, Address, Train
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.multipath_frames import PathError
from tunnel_rs.proto.path_state import PathAbandoned, PathsChanged, PathState, PeerMoved
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.reports import PathStatus
from tunnel_rs.values import EndpointId

MAX_UNACCEPTED_STREAMS = 1024
"""Streams that wait for `accept_stream`. A peer can end streams before they are accepted and open
more; beyond this the newest are reset."""

_REFUSED = 0
_MAX_REASON = 256
"""Characters of a peer's reason that we show."""


class ConnectionOwner(Protocol):
    """The endpoint, as its connections see it."""

    @property
    def in_batch(self) -> bool: ...

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
        engine: MultipathEngine,
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
        self._drain_waiters: dict[asyncio.Future[None], None] = {}
        self._paused: dict[QuicStream, None] = {}
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._next_ping = 0  # the engine's own keep-alive has this number
        self._next_incoming = 1 if engine.is_client else 0
        """Id of the next stream the peer opens; what is below and unknown has ended."""
        self._timer: asyncio.TimerHandle | None = None
        self._has_heard = False
        """The peer has said something since a lone question last left."""
        self._timer_due = 0.0  # kept here: what uvloop returns for a due call cannot tell it
        self._discarded = False
        self._paths_changed = False
        self._end: asyncio.Future[Exception] = self._loop.create_future()
        self.on_paths_changed: Callable[[], None] = lambda: None
        """Called when something of `engine.paths` is another than before."""
        self.on_path_failed: Callable[[Address], None] = lambda _: None
        """Called when the path to an address has been given up as nothing passed."""
        self.on_peer_moved: Callable[[], None] = lambda: None
        """Called when the peer has told of an address that is new; `on_paths_changed` follows."""
        self.on_unanswered: Callable[[], None] = lambda: None
        """Called when the peer owes an answer and a timer has run out, and when the way to it is
        known to be lost."""
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
        return self.text_of(self.engine.address)

    def text_of(self, address: Address) -> str:
        """An address of the peer's, for people."""
        return self._owner.address_text(address)

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time in seconds."""
        return self.engine.smoothed_rtt

    @property
    def paths(self) -> tuple[PathStatus, ...]:
        return tuple(map(self._status_of, self.engine.paths(self._loop.time())))

    def _status_of(self, path: PathState) -> PathStatus:
        kind = "relay" if isinstance(path.address, RelayAddr) else "direct"
        rtt = path.rtt if path.rtt is not None else path.smoothed_rtt
        return PathStatus(self.text_of(path.address), kind, rtt, path.is_data)

    async def ping(self) -> float:
        self._check_open()
        number = self._next_ping = self._next_ping + 1
        answer = self._pings[number] = self._loop.create_future()
        began = self._loop.time()
        self.engine.send_ping(number)
        self.schedule_flush()
        try:
            await answer
        finally:
            del self._pings[number]
        return self._loop.time() - began

    async def open_stream(self) -> QuicStream:
        self._check_open()
        stream = None if self._open_waiters else self._try_open()
        if stream is not None:
            return stream
        return await wait_in_line(self._open_waiters, self._take_back)

    def _take_back(self, stream: QuicStream) -> None:
        """Nobody wants the stream that has just been opened."""
        stream.reset(_REFUSED)
        stream.stop(_REFUSED)

    async def accept_stream(self) -> QuicStream:
        if self._incoming:
            return self._incoming.popleft()
        self._check_open()
        return await wait_in_line(self._accept_waiters, self._incoming.appendleft)

    def _check_open(self) -> None:
        if self._end.done():
            # Without the frames of who else got it.
            raise self._end.result().with_traceback(None)

    def open_window(self) -> None:
        self.engine.open_window()
        self.schedule_flush()

    def close(self, code: int, reason: str) -> None:
        if self._end.done():
            return
        self.engine.close(error_code=code, reason_phrase=reason)
        self._ended(LinkClosedError(code, reason, by_application=True))
        self.flush()

    async def drain(self) -> None:
        if self._end.done() or self.engine.is_drained:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._drain_waiters[waiter] = None
        try:
            await waiter
        finally:
            self._drain_waiters.pop(waiter, None)

    async def wait_closed(self) -> Exception:
        return await asyncio.shield(self._end)

    # Streams' side

    def schedule_flush(self) -> None:
        if not self._discarded:
            self._owner.schedule_flush(self)

    def data_written(self, n: int) -> None:
        """A lone question leaves at once: all is acknowledged, or the peer has said something since
        the last one and less than a packet is in flight. Else, and while a batch is read, what is
        written in one turn of the loop leaves together."""
        others = self.engine.total_unsent - n
        is_lone = not others or (self._has_heard and others < DATAGRAM_SIZE)
        if is_lone and not self._owner.in_batch:
            self._has_heard = False
            self._send(self.engine.urgent_trains)
        self.schedule_flush()

    def pause(self, stream: QuicStream) -> None:
        self._paused[stream] = None

    def _try_open(self) -> QuicStream | None:
        stream_id = self.engine.open_stream()
        if stream_id is None:
            return None
        stream = self._streams[stream_id] = QuicStream(self, stream_id)
        return stream

    # Endpoint's side

    def receive(self, train: memoryview, segment_size: int, address: Address, now: float) -> None:
        """Take in a train; `process_events` makes its effects visible."""
        try:
            self.engine.receive(train, segment_size, address, now)
        except Exception as exc:
            self._break(exc)

    def process_events(self) -> None:
        """Hand on what the engine has understood; stream bytes are joined to one piece a batch."""
        if self._discarded:
            return
        try:
            self._process_events()
        except Exception as exc:
            self._break(exc)

    def _break(self, exc: Exception) -> None:
        """A mistake in our own code ends this link, and no other."""
        self._loop.call_exception_handler({"message": f"{self!r} is broken", "exception": exc})
        if not self._end.done():
            self._ended(LinkClosedError(QuicErrorCode.INTERNAL_ERROR, "internal error"))
        self.discard()

    def _process_events(self) -> None:
        engine = self.engine
        self._has_heard = True
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
        for stream_id, payloads in engine.take_datagrams().items():
            if (accompanied := self._streams.get(stream_id)) is not None:
                accompanied.deliver_datagrams(payloads)
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
        elif isinstance(event, PathsChanged | PathAbandoned | PeerMoved):
            self._handle_paths(event)
        elif isinstance(event, events.PingAcknowledged):
            if (ping := self._pings.get(event.uid)) is not None and not ping.done():
                ping.set_result(None)
        elif isinstance(event, events.ConnectionIdIssued):
            self._owner.add_connection_id(self, event.connection_id)
        elif isinstance(event, events.ConnectionIdRetired):
            self._owner.remove_connection_id(event.connection_id)

    def _handle_paths(self, event: PathsChanged | PathAbandoned | PeerMoved) -> None:
        if isinstance(event, PathAbandoned):
            if event.code == PathError.PATH_UNSTABLE_OR_POOR:
                self.on_path_failed(event.address)
            return
        self._paths_changed = True
        if isinstance(event, PeerMoved):
            self.on_peer_moved()

    def _stream(self, stream_id: int) -> QuicStream | None:
        """The stream of an event. None when the application is done with it, or the link has
        ended."""
        if self._is_new(stream_id) and not self._end.done():
            # The peer has opened it, and all before it (RFC 9000 section 2.1).
            for opened in range(self._next_incoming, stream_id + 1, 4):
                self._opened_by_peer(opened)
            self._next_incoming = stream_id + 4
        return self._streams.get(stream_id)

    def _is_new(self, stream_id: int) -> bool:
        return stream_id >= self._next_incoming and stream_id % 4 == self._next_incoming % 4

    def _opened_by_peer(self, stream_id: int) -> None:
        if len(self._incoming) >= MAX_UNACCEPTED_STREAMS:
            self.engine.reset(stream_id, _REFUSED)
            self.engine.stop(stream_id, _REFUSED)
            return
        stream = self._streams[stream_id] = QuicStream(self, stream_id)
        if not serve_first(self._accept_waiters, stream):
            self._incoming.append(stream)

    def stream_done(self, stream: QuicStream) -> None:
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self._paused.pop(stream, None)

    def _after_batch(self) -> None:
        engine = self.engine
        if self._paths_changed:
            self._paths_changed = False
            self.on_paths_changed()
        if engine.peer is not None and not self.handshaken.done():
            self.handshaken.set_result(None)
            self._on_connected(self)
        if engine.ending is not None and not self._end.done():
            self._ended(self._why(engine.ending))
        if self._paused:
            self._resume_writers()
        if self._open_waiters and not self._end.done():
            self._serve_openers()
        if self._drain_waiters and engine.is_drained:
            self._wake_drainers()

    def _resume_writers(self) -> None:
        """Who is resumed may write at once, and be paused again."""
        paused, self._paused = self._paused, {}
        for stream in paused:
            if not stream.resume_if_sent():
                self._paused[stream] = None

    def _serve_openers(self) -> None:
        while any(not waiter.done() for waiter in self._open_waiters):
            stream = self._try_open()
            if stream is None:
                return
            serve_first(self._open_waiters, stream)

    def _wake_drainers(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _why(self, ending: events.ConnectionTerminated) -> Exception:
        if self.engine.refused_peer is not None:
            return WrongPeerError(
                f"the machine that answered has another key: {self.engine.refused_peer}"
            )
        if self.engine.peer is None and self.engine.timed_out:
            return UnreachableError("no answer")
        reason = ending.reason_phrase[:_MAX_REASON]
        return LinkClosedError(
            int(ending.error_code),
            "".join(c if c.isprintable() else "?" for c in reason),
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
        for ping in self._pings.values():
            if not ping.done():
                ping.set_exception(error)
        self._accept_waiters.clear()
        self._open_waiters.clear()
        self._wake_drainers()
        for stream in streams.values():
            stream.lose(error)

    def flush_after_receiving(self) -> None:
        """As `flush`, but without a look when it would find nothing."""
        if self.engine.has_only_heard:
            self._set_timer()
        else:
            self.flush()

    def flush(self) -> None:
        """Send what may leave now and set the timer; forget the connection when it is over."""
        self._send(self.engine.trains)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._discarded:
            return
        try:
            self._arm()
        except Exception as exc:
            self._break(exc)
        if self.engine.is_terminated:
            self.discard()

    def _send(self, trains: Callable[[float], list[Train]]) -> None:
        if self._discarded:
            return
        try:
            found = trains(self._loop.time())
            if found:
                self._owner.send_trains(found)
        except Exception as exc:
            self._break(exc)

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
            try:
                self.engine.handle_timer(now)
            except Exception as exc:
                self._break(exc)
            self.process_events()
            if self.engine.silent_for(now):
                self.on_unanswered()
        self.flush()

    def discard(self) -> None:
        """Drop the state; nothing more is sent or received. Idempotent."""
        if self._discarded:
            return
        self._discarded = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._end.done():
            self._ended(LinkClosedError(0, "the endpoint was closed"))
        self.engine.release()
        self._owner.forget(self)


def _retrieve(future: asyncio.Future[None]) -> None:
    """A failed handshake nobody waits for is no unhandled error."""
    if not future.cancelled():
        future.exception()
