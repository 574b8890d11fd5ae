"""Join a local byte stream (a TCP connection, stdin and stdout) and a stream of a link.

Two objects point at each other and move bytes inside the event loop's callbacks: no task, no
queue. How endings are carried:

    local EOF            -> EOF                     EOF          -> local EOF (shutdown)
    local RST            -> reset + stop            reset        -> local RST
    local no longer open -> reset + stop            link lost    -> local RST
                                                    stop         -> RST once the peer's own bytes
                                                                    and EOF have been passed on

A stop alone says that the peer reads no more, but what it has sent may still be in flight, so what
the local side sends meanwhile is discarded, as a kernel does after `shutdown(SHUT_RD)`.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from tunnel_rs.net.link import ByteStream, StreamReceiver
from tunnel_rs.net.tcp import linger_zero
from tunnel_rs.values import Buffer

RECEIVE_BUFFER_SIZE = 256 * 1024
WRITE_HIGH_WATER = 256 * 1024
"""Bytes the local side may lag behind before the peer's window stops opening."""

FLUSH_PATIENCE = 60.0
"""Seconds without progress after which a finished connection that does not take its last bytes is
given up."""

CONNECTION_RESET = 1
"""Our stream reset and stop code. The protocol gives codes no meaning."""

_per_thread = threading.local()


def shared_receive_buffer() -> memoryview:
    """The buffer all connections of this thread (so of one event loop) receive into. It is valid
    until the callback that was given it returns."""
    buffer: memoryview | None = getattr(_per_thread, "buffer", None)
    if buffer is None:
        buffer = _per_thread.buffer = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
    return buffer


@dataclass(frozen=True, slots=True)
class SpliceEnd:
    """How it went. `sent` bytes were read from the local side, `received` written to it; `reason`
    is empty after EOF in both directions."""

    sent: int
    received: int
    reason: str


class LocalSide(Protocol):
    """What a splice needs of its local end. No call may block or raise."""

    def write(self, data: bytes) -> None: ...

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, *, reset: bool) -> None:
        """Both directions have ended: flush, then end; with a reset if that can be told."""

    def abort(self) -> None:
        """End at once with a reset. Bytes not written yet are discarded."""


Attach = Callable[[StreamReceiver], None]
"""Makes a receiver the one that a stream calls: `ByteStream.set_receiver`, or what hands over the
bytes that came with a dialogue first."""


async def join_tcp(
    sock: socket.socket, stream: ByteStream, attach: Attach, on_end: Callable[[SpliceEnd], None]
) -> "Splice":
    """Join a connected TCP socket, which the splice then owns, and a stream.

    Raises OSError, with the socket closed and `on_end` not called, when there is nothing to join.
    """
    loop = asyncio.get_running_loop()
    side = TcpSide(stream, attach, on_end)
    splice = side.splice  # by the time we go on, the connection may have come and gone
    try:
        await loop.create_connection(lambda: side, sock=sock)
    except OSError:
        sock.close()
        raise
    return splice


class Splice(StreamReceiver):
    """The stream's end of a splice, and the state of both directions.

    The local side reports through the `local_*` methods. `on_end` is called once, when the local
    side is closed; the stream may then still deliver what was written to it.
    """

    def __init__(
        self, stream: ByteStream, local: LocalSide, on_end: Callable[[SpliceEnd], None]
    ) -> None:
        self.sent = 0
        self.received = 0
        self._stream = stream
        self._local = local
        self._on_end: Callable[[SpliceEnd], None] | None = on_end
        self._outgoing = True  # local -> stream has not ended
        self._incoming = True  # stream -> local has not ended
        self._stopped = False
        self._paused = False
        self._local_is_full = False
        self._unconsumed = 0
        self._reason = ""

    def abort(self, reason: str) -> None:
        """End both directions at once with resets. Does nothing once the splice has ended."""
        if self._on_end is None:
            return
        self._fail(reason)
        self._abort_stream(CONNECTION_RESET)
        self._local.abort()

    # What the stream calls.

    def data_received(self, data: bytes) -> None:
        if not self._incoming:
            self._stream.consumed(len(data))
            return
        self.received += len(data)
        self._local.write(data)
        if self._local_is_full:
            self._unconsumed += len(data)
        else:
            self._stream.consumed(len(data))

    def eof_received(self) -> None:
        if self._incoming:
            self._incoming = False
            self._local.write_eof()
            self._close_when_done()

    def reset_received(self, code: int) -> None:
        if not self._incoming:
            return
        self._fail("the peer reset the connection")
        self._incoming = False
        self._abort_stream(code)
        self._local.abort()

    def stop_received(self, code: int) -> None:
        if not self._outgoing:
            return
        self._fail("the peer stopped reading")
        self._outgoing = False
        self._stopped = True
        self._local.resume_reading()  # to discard, and to notice the end
        self._close_when_done()

    def pause_writing(self) -> None:
        self._paused = True
        if self._outgoing:
            self._local.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._local.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self._on_end is not None:
            self._fail(str(error))
            self._outgoing = self._incoming = False
            self._local.abort()

    # What the local side calls.

    def local_data(self, data: Buffer) -> None:
        """Bytes to send; they are copied before this returns."""
        if not self._outgoing:
            return
        self.sent += len(data)
        if self._paused:
            # Some event loops deliver once more after `pause_reading`. The stream keeps it.
            self._local.pause_reading()
        self._stream.write(data)

    def local_eof(self) -> None:
        if self._outgoing:
            self._outgoing = False
            self._stream.write_eof()
        self._close_when_done()

    def local_full(self) -> None:
        """The local side holds more than it should: keep the peer's window closed."""
        self._local_is_full = True

    def local_drained(self) -> None:
        self._local_is_full = False
        self._release()

    def local_lost(self, error: Exception | None) -> None:
        """The local side is closed. The last call."""
        if error is not None:
            self._fail(_words(error))
        elif self._outgoing or self._incoming:
            self._fail("the local connection was closed")
        self._abort_stream(CONNECTION_RESET)
        self._release()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(SpliceEnd(self.sent, self.received, self._reason))

    def _abort_stream(self, code: int) -> None:
        if self._outgoing:
            self._outgoing = False
            self._stream.reset(code)
        if self._incoming:
            self._incoming = False
            self._stream.stop(code)

    def _close_when_done(self) -> None:
        if not self._outgoing and not self._incoming:
            self._local.close(reset=self._stopped)

    def _release(self) -> None:
        """Give back the window of what has been passed on (or dropped with the local side)."""
        n, self._unconsumed = self._unconsumed, 0
        if n:
            self._stream.consumed(n)

    def _fail(self, reason: str) -> None:
        self._reason = self._reason or reason


class TcpSide(asyncio.BufferedProtocol):
    """The TCP end of a splice, with the receive buffer that all connections share."""

    def __init__(
        self, stream: ByteStream, attach: Attach, on_end: Callable[[SpliceEnd], None]
    ) -> None:
        self.splice = Splice(stream, self, on_end)
        self._attach = attach
        self._buffer = shared_receive_buffer()
        self._transport: asyncio.Transport
        self._flush_timer: asyncio.TimerHandle | None = None

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._attach(self.splice)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.splice.local_data(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        self.splice.local_eof()
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        self.splice.local_full()

    def resume_writing(self) -> None:
        self.splice.local_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        splice = self.splice
        del self.splice, self._attach  # they lead back here
        splice.local_lost(exc)

    # LocalSide

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self, *, reset: bool) -> None:
        if self._transport.is_closing():
            return
        if reset:
            self._reset_on_close()
        self._transport.close()
        self._watch_flush(self._transport.get_write_buffer_size())

    def abort(self) -> None:
        self._reset_on_close()
        self._transport.abort()

    def _reset_on_close(self) -> None:
        sock = self._transport.get_extra_info("socket")
        try:
            linger_zero(sock)
        except OSError:
            pass  # the connection is gone already

    def _watch_flush(self, left: int) -> None:
        """Abort when `FLUSH_PATIENCE` passes and none of the last `left` bytes is taken."""

        def look() -> None:
            still_left = self._transport.get_write_buffer_size()
            if still_left >= left:
                self.abort()
            else:
                self._watch_flush(still_left)

        if left:
            loop = asyncio.get_running_loop()
            self._flush_timer = loop.call_later(FLUSH_PATIENCE, look)


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the local connection was reset"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"the local connection failed: {text.lower()}"
