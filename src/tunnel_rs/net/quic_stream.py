"""One QUIC stream as a `ByteStream`: pushes what arrives, takes what is written."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from tunnel_rs.net.link import Buffer, StreamReceiver
from tunnel_rs.proto.engine import Engine

MIN_UNSENT = 65_536
"""A stream may always have this much unsent, however busy its siblings are."""

Call = Callable[[StreamReceiver], object]


class StreamOwner(Protocol):
    """The connection, as its streams see it."""

    @property
    def engine(self) -> Engine: ...

    def schedule_flush(self) -> None:
        """Something is there to send; once per turn of the loop it goes out."""

    def data_written(self, n: int) -> None:
        """There are `n` more bytes to send."""

    def pause(self, stream: "QuicStream") -> None:
        """`stream` has paused its writer; call its `resume_if_sent` when data is acknowledged."""

    def stream_done(self, stream: "QuicStream") -> None:
        """`stream` is over; forget it."""


class QuicStream:
    """See `net.link.ByteStream` for the contract."""

    __slots__ = (
        "_backlog",
        "_eof_written",
        "_owner",
        "_paused",
        "_receiver",
        "_receiving_ended",
        "_stop_received",
        "_stopped",
        "_write_reset",
        "lost",
        "stream_id",
    )

    def __init__(self, owner: StreamOwner, stream_id: int) -> None:
        self.stream_id = stream_id
        self._owner = owner
        self._receiver: StreamReceiver | None = None
        self._backlog: deque[bytes | Call] = deque()
        """What no receiver has been told yet: data, and calls to make behind it."""
        self._receiving_ended = False
        self._eof_written = False
        self._write_reset = False
        self._stop_received = False
        self._stopped = False
        self._paused = False
        self.lost: tuple[Exception | None] | None = None
        """Set once the stream is over: the argument of `connection_lost`."""

    def __repr__(self) -> str:
        return f"QuicStream({self.stream_id})"

    # ByteStream

    @property
    def unsent(self) -> int:
        return self._owner.engine.unsent(self.stream_id)

    def set_receiver(self, receiver: StreamReceiver) -> None:
        self._receiver = receiver
        # Told first: what is in the backlog may make the receiver write, or be its last call.
        if self._paused and self.lost is None:
            receiver.pause_writing()
        while self._backlog and self._receiver is receiver:
            event = self._backlog.popleft()
            if isinstance(event, bytes):
                receiver.data_received(event)
            else:
                event(receiver)
        self._let_go_when_over()

    def write(self, data: Buffer) -> None:
        if self._eof_written or self._write_reset:
            raise RuntimeError("the sending direction has ended")
        if self._stop_received or self.lost is not None or not data:
            return
        self._owner.engine.write(self.stream_id, data, False)
        self._owner.data_written(len(data))
        if not self._paused and self._is_full():
            self._paused = True
            self._owner.pause(self)
            if self._receiver is not None:
                self._receiver.pause_writing()

    def write_eof(self) -> None:
        if self._eof_written or self._write_reset:
            return
        self._eof_written = True
        if not self._stop_received and self.lost is None:
            self._owner.engine.write(self.stream_id, b"", True)
            self._owner.schedule_flush()
        self._finish_if_done()

    def reset(self, code: int) -> None:
        if self._write_reset or self.lost is not None:
            return
        self._write_reset = True
        self._owner.engine.reset(self.stream_id, code)
        self._owner.schedule_flush()
        self._finish_if_done()

    def stop(self, code: int) -> None:
        if self._stopped or self.lost is not None:
            return
        self._stopped = True
        for event in self._backlog:
            if isinstance(event, bytes):
                self._owner.engine.consumed(self.stream_id, len(event))
        self._backlog = deque(event for event in self._backlog if not isinstance(event, bytes))
        if not self._receiving_ended:
            self._owner.engine.stop(self.stream_id, code)
        self._owner.schedule_flush()
        self._finish_if_done()

    def consumed(self, n: int) -> None:
        if self.lost is None or self.lost[0] is None:
            if self._owner.engine.consumed(self.stream_id, n):
                self._owner.schedule_flush()

    @property
    def max_datagram(self) -> int:
        if self.lost is not None:
            return 0
        return self._owner.engine.largest_datagram_payload(self.stream_id)

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        if self.lost is not None:
            return len(payloads)
        dropped = self._owner.engine.send_datagrams(self.stream_id, payloads)
        self._owner.schedule_flush()
        return dropped

    # The connection's side

    def deliver_datagrams(self, payloads: list[bytes]) -> None:
        """What came beside the stream; nothing of it waits for a receiver."""
        if self._receiver is not None and not self._stopped:
            self._receiver.datagrams_received(payloads)

    def deliver(self, data: bytes) -> None:
        """In-order bytes from the peer."""
        if self._stopped:
            self._owner.engine.consumed(self.stream_id, len(data))
        elif self._receiver is None or self._backlog:
            self._backlog.append(data)
        else:
            self._receiver.data_received(data)

    def deliver_eof(self) -> None:
        self._receiving_ended = True
        self._tell(self._tell_eof)
        self._finish_if_done()

    def _tell_eof(self, receiver: StreamReceiver) -> None:
        if not self._stopped:
            receiver.eof_received()

    def deliver_reset(self, code: int) -> None:
        self._receiving_ended = True

        def tell(receiver: StreamReceiver) -> None:
            if not self._stopped:
                receiver.reset_received(code)

        self._tell(tell)
        self._finish_if_done()

    def deliver_stop(self, code: int) -> None:
        if self._write_reset or self._stop_received or self.lost is not None:
            return
        self._stop_received = True
        self._tell(lambda receiver: receiver.stop_received(code))
        self._finish_if_done()

    def lose(self, error: Exception | None) -> None:
        """The stream is over; nothing more will be delivered."""
        if self.lost is None:
            self.lost = (error,)
            self._owner.stream_done(self)
            self._tell(lambda receiver: receiver.connection_lost(error))
            self._let_go_when_over()

    def _let_go_when_over(self) -> None:
        """A receiver that has been told everything is let go: the two point at each other, and
        would wait for the garbage collector with all they hold."""
        if self.lost is not None and not self._backlog:
            self._receiver = None

    def _tell(self, call: Call) -> None:
        """Make a call now, or behind all that waits for a receiver."""
        if self._receiver is None or self._backlog:
            self._backlog.append(call)
        else:
            call(self._receiver)

    def resume_if_sent(self) -> bool:
        """Resume the writer when enough has been acknowledged; True when it was."""
        if self.lost is None and self._is_full(fraction=2):
            return False
        self._paused = False
        if self._receiver is not None and self.lost is None:
            self._receiver.resume_writing()
        return True

    @property
    def is_done(self) -> bool:
        """Both directions have ended in order."""
        received = self._receiving_ended or self._stopped
        sent = self._eof_written or self._write_reset or self._stop_received
        return received and sent

    def _finish_if_done(self) -> None:
        if self.is_done:
            self.lose(None)

    def _is_full(self, *, fraction: int = 1) -> bool:
        unsent = self._owner.engine.unsent(self.stream_id)
        if unsent <= MIN_UNSENT // fraction:
            return False
        engine = self._owner.engine
        return (
            unsent > max(1 << 20, engine.send_target) // fraction
            or engine.total_unsent > engine.send_window // fraction
        )
