"""One QUIC stream as a `ByteStream`: pushes what arrives, takes what is written."""

from typing import Protocol

from tunnel_rs.net.link import Buffer, StreamReceiver
from tunnel_rs.proto.engine import Engine

MIN_UNSENT = 65_536
"""A stream may always have this much unsent, however busy its siblings are."""


class StreamOwner(Protocol):
    """The connection, as its streams see it."""

    @property
    def engine(self) -> Engine: ...

    def schedule_flush(self) -> None:
        """Something is there to send; once per turn of the loop it goes out."""

    def pause(self, stream: "QuicStream") -> None:
        """`stream` has paused its writer; call its `resume_if_sent` when data is acknowledged."""

    def stream_done(self, stream: "QuicStream") -> None:
        """`stream` is over; forget it."""


class QuicStream:
    """See `net.link.ByteStream` for the contract."""

    __slots__ = (
        "_backlog",
        "_eof_received",
        "_eof_written",
        "_owner",
        "_paused",
        "_receiver",
        "_reset_received",
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
        self._backlog: list[bytes] = []
        self._eof_received = False
        self._eof_written = False
        self._write_reset = False
        self._reset_received: int | None = None
        self._stop_received: int | None = None
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
        first = self._receiver is None
        self._receiver = receiver
        backlog, self._backlog = self._backlog, []
        for data in backlog:
            receiver.data_received(data)
        if self._paused:
            receiver.pause_writing()
        if not first:
            return
        if self._eof_received:
            receiver.eof_received()
        if self._reset_received is not None:
            receiver.reset_received(self._reset_received)
        if self._stop_received is not None:
            receiver.stop_received(self._stop_received)
        if self.lost is not None:
            receiver.connection_lost(self.lost[0])

    def write(self, data: Buffer) -> None:
        if self._eof_written or self._write_reset:
            raise RuntimeError("the sending direction has ended")
        if self._stop_received is not None or self.lost is not None or not data:
            return
        self._owner.engine.write(self.stream_id, data, False)
        self._owner.schedule_flush()
        if not self._paused and self._is_full():
            self._paused = True
            self._owner.pause(self)
            if self._receiver is not None:
                self._receiver.pause_writing()

    def write_eof(self) -> None:
        if self._eof_written or self._write_reset:
            return
        self._eof_written = True
        if self._stop_received is None and self.lost is None:
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
        for data in self._backlog:
            self._owner.engine.consumed(self.stream_id, len(data))
        self._backlog.clear()
        if not self._eof_received and self._reset_received is None:
            self._owner.engine.stop(self.stream_id, code)
        self._owner.schedule_flush()
        self._finish_if_done()

    def consumed(self, n: int) -> None:
        if self.lost is None or self.lost[0] is None:
            self._owner.engine.consumed(self.stream_id, n)
            self._owner.schedule_flush()

    # The connection's side

    def deliver(self, data: bytes) -> None:
        """In-order bytes from the peer."""
        if self._stopped:
            self._owner.engine.consumed(self.stream_id, len(data))
        elif self._receiver is None:
            self._backlog.append(data)
        else:
            self._receiver.data_received(data)

    def deliver_eof(self) -> None:
        self._eof_received = True
        if self._receiver is not None and not self._stopped:
            self._receiver.eof_received()
        self._finish_if_done()

    def deliver_reset(self, code: int) -> None:
        self._reset_received = code
        if self._receiver is not None and not self._stopped:
            self._receiver.reset_received(code)
        self._finish_if_done()

    def deliver_stop(self, code: int) -> None:
        self._stop_received = code
        if self._receiver is not None:
            self._receiver.stop_received(code)
        self._finish_if_done()

    def lose(self, error: Exception | None) -> None:
        """The stream is over; nothing more will be delivered."""
        if self.lost is None:
            self.lost = (error,)
            self._owner.stream_done(self)
            if self._receiver is not None:
                self._receiver.connection_lost(error)

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
        received = self._eof_received or self._stopped or self._reset_received is not None
        sent = self._eof_written or self._write_reset or self._stop_received is not None
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
