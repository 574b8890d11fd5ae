"""A stream that carries no more bytes a second than it may.

Only streams with a limit are wrapped, so that others pay nothing. Nothing is dropped: outgoing
bytes that may not leave yet make the writer pause, incoming ones are held, and as they are not
consumed the peer's window stays closed. What is held is bounded by what the writer writes once and
by the window the peer was granted.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from tunnel_rs.net.link import ByteStream, StreamReceiver
from tunnel_rs.net.splice import Attach
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import Buffer

PIECE = 16_384
"""Bytes that are passed on at a time, so that streams which share a limit take turns."""

BURST = 0.25
"""Seconds' worth that may pass at once after a pause, but a piece at least."""


def burst_of(rate: float) -> float:
    return max(rate * BURST, PIECE)


class Trickle:
    """Passes bytes on in their order, no faster than `bucket` allows."""

    def __init__(
        self, bucket: TokenBucket, emit: Callable[[bytes], None], idle: Callable[[], None]
    ) -> None:
        """`idle` is called when bytes may pass at once again, after some had to wait."""
        self._bucket = bucket
        self._emit = emit
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._held: deque[memoryview] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.pending = 0
        """Bytes that wait."""

    @property
    def is_waiting(self) -> bool:
        """Whether what is pushed now would have to wait."""
        return self._timer is not None

    def push(self, data: Buffer) -> None:
        """Bytes to pass on; they are copied."""
        if data:
            self._held.append(memoryview(bytes(data)))
            self.pending += len(data)
            if self._timer is None:
                self._run()

    def clear(self) -> int:
        """Drop what waits; returns how much that was."""
        dropped, self.pending = self.pending, 0
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return dropped

    def _run(self) -> None:
        while self._held:
            piece = self._held[0][:PIECE]
            if len(piece) == len(self._held[0]):
                self._held.popleft()
            else:
                self._held[0] = self._held[0][PIECE:]
            self.pending -= len(piece)
            # Before it is passed on: whoever gets it may push more, or clear.
            delay = self._bucket.spend(len(piece), self._loop.time())
            if delay > 0:
                self._timer = self._loop.call_later(delay, self._resume)
            self._emit(bytes(piece))
            if self._timer is not None:
                return

    def _resume(self) -> None:
        self._timer = None
        self._run()
        if self._timer is None:
            self._idle()


class ThrottledStream(StreamReceiver):
    """Stands between a stream and its receiver; see `net.link.ByteStream` for the contract."""

    def __init__(
        self, stream: ByteStream, attach: Attach, outgoing: TokenBucket, incoming: TokenBucket
    ) -> None:
        """`attach` hands the stream to us once somebody receives; each bucket may be shared."""
        self._stream = stream
        self._attach = attach
        self._receiver: StreamReceiver
        self._out = Trickle(outgoing, stream.write, self._writable)
        self._in = Trickle(incoming, self._deliver, self._caught_up)
        self._eof_written = False
        self._stream_paused = False
        self._told_paused = False
        self._eof_held = False
        self._end_held = False
        """An EOF, and the end of the stream, that are told once all that is held was delivered."""

    # ByteStream

    @property
    def stream_id(self) -> int:
        return self._stream.stream_id

    @property
    def unsent(self) -> int:
        return self._stream.unsent + self._out.pending

    def set_receiver(self, receiver: StreamReceiver) -> None:
        self._receiver = receiver
        self._attach(self)

    def write(self, data: Buffer) -> None:
        if self._eof_written:
            raise RuntimeError("the sending direction has ended")
        self._out.push(data)
        self._tell_pressure()

    def write_eof(self) -> None:
        if not self._eof_written:
            self._eof_written = True
            if not self._out.pending:
                self._stream.write_eof()

    def reset(self, code: int) -> None:
        self._out.clear()
        self._stream.reset(code)

    def stop(self, code: int) -> None:
        self._discard()
        self._stream.stop(code)

    def consumed(self, n: int) -> None:
        self._stream.consumed(n)

    @property
    def max_datagram(self) -> int:
        return 0  # they would not wait

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        return len(payloads)

    # StreamReceiver

    def data_received(self, data: bytes) -> None:
        self._in.push(data)

    def eof_received(self) -> None:
        if self._in.pending:
            self._eof_held = True
        else:
            self._receiver.eof_received()

    def reset_received(self, code: int) -> None:
        self._discard()
        self._receiver.reset_received(code)

    def stop_received(self, code: int) -> None:
        self._out.clear()
        self._receiver.stop_received(code)

    def pause_writing(self) -> None:
        self._stream_paused = True
        self._tell_pressure()

    def resume_writing(self) -> None:
        self._stream_paused = False
        self._tell_pressure()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._in.pending:
            self._end_held = True
            return
        self._out.clear()
        self._discard()
        self._receiver.connection_lost(error)

    def _discard(self) -> None:
        """Forget the incoming bytes that are held; they count as consumed."""
        self._eof_held = False
        if dropped := self._in.clear():
            self._stream.consumed(dropped)
        self._tell_end()

    def _deliver(self, data: bytes) -> None:
        self._receiver.data_received(data)
        if self._eof_held and not self._in.pending:
            self._eof_held = False
            self._receiver.eof_received()
        self._tell_end()

    def _tell_end(self) -> None:
        if self._end_held and not self._in.pending:
            self._end_held = False
            self._receiver.connection_lost(None)

    def _caught_up(self) -> None:
        """Nothing to do: what comes next passes at once."""

    def _writable(self) -> None:
        self._tell_pressure()

    def _tell_pressure(self) -> None:
        paused = self._stream_paused or self._out.is_waiting
        if self._eof_written and not self._out.pending:
            self._stream.write_eof()
        if paused is self._told_paused:
            return
        self._told_paused = paused
        if paused:
            self._receiver.pause_writing()
        else:
            self._receiver.resume_writing()
