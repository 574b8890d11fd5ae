"""The messages at the head of a stream: one each way, awaited; then the stream is handed on.

What is in the messages is the caller's affair. Streams that carry payload after them: `hand_over`
passes on what came too early. Others: `finish` ends them.
"""

import asyncio
from typing import Protocol

from tunnel_rs.errors import LinkClosedError, ProtocolError, StreamResetError
from tunnel_rs.net.link import ByteStream, StreamReceiver
from tunnel_rs.proto.messages import MessageDecoder

STREAM_DONE = 0
"""Stop and reset code of streams that end because nothing more is wanted on them."""


class Decoder(Protocol):
    """What cuts the head off a stream: `messages.MessageDecoder`, or what stands in for it."""

    def feed(self, data: bytes) -> None: ...

    def next_message(self) -> bytes | None: ...

    def take_rest(self) -> bytes: ...

    @property
    def at_boundary(self) -> bool: ...


class Exchange(StreamReceiver):
    """Sends one message and receives one message on `stream`, in either order.

    What a peer can make it hold is one message and what its window lets through behind it.
    """

    def __init__(self, stream: ByteStream, decoder: Decoder | None = None) -> None:
        self.stream = stream
        self._decoder: Decoder = MessageDecoder() if decoder is None else decoder
        self._message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._message.add_done_callback(_retrieve)  # nobody may ask after a refusal
        self._early = bytearray()  # payload that came behind the message
        self._unconsumed = 0
        self._eof = False
        self._reset: int | None = None
        self._stopped: int | None = None
        self._paused = False
        self._lost = False
        self._error: Exception | None = None
        self._finished = False
        stream.set_receiver(self)

    def send_encoded(self, message: bytes) -> None:
        """Send a message with its length prefix."""
        self.stream.write(message)

    async def receive(self) -> bytes:
        """The body of the peer's message. Raises ProtocolError (too long, or cut off by EOF),
        StreamResetError or LinkClosedError. The time limit is the caller's."""
        return await asyncio.shield(self._message)

    def hand_over(self, receiver: StreamReceiver) -> None:
        """Give the stream to `receiver`, with all that happened on it behind the message."""
        self._consume_but(len(self._early))
        early, self._early = bytes(self._early), bytearray()
        if early:
            receiver.data_received(early)
        if self._paused:
            receiver.pause_writing()
        if self._stopped is not None:
            receiver.stop_received(self._stopped)
        if self._reset is not None:
            receiver.reset_received(self._reset)
        elif self._eof:
            receiver.eof_received()
        if self._lost:
            receiver.connection_lost(self._error)
        self.stream.set_receiver(receiver)

    def finish_encoded(self, message: bytes = b"", *, stop: bool = True) -> None:
        """Send `message` (with its length prefix) and EOF, and read no more. Idempotent. Without
        `stop` the peer is told so only if it sends more, not when its EOF is merely late."""
        if self._finished:
            return
        self._finished = True
        self._early.clear()
        self._consume_but(0)
        if not self._lost:
            if message:
                self.send_encoded(message)
            self.stream.write_eof()
            if stop and not self._eof and self._reset is None:
                self.stream.stop(STREAM_DONE)

    def abandon(self) -> None:
        """Reset our direction and read no more: the exchange is broken off. Idempotent."""
        if not self._finished and not self._lost:
            self.stream.reset(STREAM_DONE)
            self.stream.stop(STREAM_DONE)
        self._finished = True
        self._consume_but(0)

    # What the stream calls.

    def data_received(self, data: bytes) -> None:
        self._unconsumed += len(data)
        if self._finished:
            self._consume_but(0)
            self.stream.stop(STREAM_DONE)
        elif self._message.done():
            self._early += data
        else:
            self._feed(data)

    def eof_received(self) -> None:
        self._eof = True
        if self._decoder.at_boundary:
            self._fail(ProtocolError("the peer ended the stream without a message"))
        else:
            self._fail(ProtocolError("the peer ended the stream in the middle of a message"))

    def reset_received(self, code: int) -> None:
        self._reset = code
        self._fail(StreamResetError(code))

    def stop_received(self, code: int) -> None:
        self._stopped = code

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._error = error
        self._fail(error or LinkClosedError(0, "the stream has ended"))

    def _feed(self, data: bytes) -> None:
        try:
            self._decoder.feed(data)
            body = self._decoder.next_message()
        except ProtocolError as error:
            self._fail(error)
            body = None
        if body is not None:
            self._early += self._decoder.take_rest()
            self._message.set_result(body)
        # Bytes of an unfinished message are counted at once: a message may be longer than the
        # window. Payload that came early is the next receiver's to count.
        self._consume_but(len(self._early))

    def _consume_but(self, kept: int) -> None:
        n = self._unconsumed - kept
        self._unconsumed = kept
        if n:
            self.stream.consumed(n)

    def _fail(self, error: Exception) -> None:
        if not self._message.done():
            self._message.set_exception(error)


def _retrieve(message: asyncio.Future[bytes]) -> None:
    if not message.cancelled():
        message.exception()
