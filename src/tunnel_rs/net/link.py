"""The face that features forward bytes over: a link to one authenticated peer, and its streams.

`net.quic` provides it; `forward` (and later `vpn`) know nothing else about the transport.

Setting up is awaited, payload is pushed: a stream calls its receiver from inside the event loop's
read callback, and the receiver writes on at once. Nothing is queued between them. Pressure travels
backwards: `pause_writing`/`resume_writing` for what we send, `consumed` for what we receive.
"""

from collections.abc import Sequence
from typing import Protocol

from tunnel_rs.reports import PathStatus
from tunnel_rs.values import EndpointId, SourceUrl

Buffer = bytes | bytearray | memoryview


class StreamReceiver(Protocol):
    """What a stream calls. All calls are synchronous and must not block or raise."""

    def data_received(self, data: bytes) -> None:
        """In-order bytes, never empty. The receiver calls `ByteStream.consumed(n)`, now or later,
        once for all n bytes it has passed on: only that opens the peer's window again."""

    def eof_received(self) -> None:
        """The peer finished its direction; no more data will come. Ours stays open."""

    def reset_received(self, code: int) -> None:
        """The peer aborted its direction; data in flight is gone. Ours stays open."""

    def stop_received(self, code: int) -> None:
        """The peer no longer reads; our direction has been aborted, further writes are dropped."""

    def pause_writing(self) -> None:
        """Too much is unsent. Stop writing (a write in the meantime is kept, not lost)."""

    def resume_writing(self) -> None:
        """Enough has been sent; write again."""

    def datagrams_received(self, payloads: list[bytes]) -> None:
        """What the peer gave to `ByteStream.send_datagrams`: some of it, in any order. Who does
        not override this drops it."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        """Last call. None when both directions had ended in order (EOF, reset or stop), else the
        `LinkClosedError` that cut the stream off."""


class ByteStream(Protocol):
    """One bidirectional stream."""

    @property
    def stream_id(self) -> int: ...

    @property
    def unsent(self) -> int:
        """Bytes written and not yet acknowledged by the peer."""

    def set_receiver(self, receiver: StreamReceiver) -> None:
        """Hand events to `receiver` from now on. Events that came before the first receiver was
        set are delivered to it from inside this call, in order. May be called again to hand the
        stream on; the new receiver gets what has not been delivered yet."""

    def write(self, data: Buffer) -> None:
        """Queue bytes; they are copied before this returns. Dropped silently after
        `stop_received` or `connection_lost`; after `write_eof` or `reset` a RuntimeError."""

    def write_eof(self) -> None:
        """Finish our direction after all written bytes. A second call does nothing."""

    def reset(self, code: int) -> None:
        """Abort our direction at once; unsent bytes are discarded."""

    def stop(self, code: int) -> None:
        """Tell the peer we no longer read; what still arrives is discarded and counted consumed."""

    def consumed(self, n: int) -> None:
        """Open the peer's window by n bytes that were delivered through `data_received`."""

    @property
    def max_datagram(self) -> int:
        """Most bytes that one datagram beside this stream may carry now; it follows the path. 0
        when link or peer carries none."""

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        """Send each of `payloads` (at most `max_datagram` bytes) once, beside the stream: they may
        be lost and overtake each other, and what the path cannot take is dropped. Returns how many
        were dropped at once, older ones perhaps."""


class Link(Protocol):
    """An encrypted, authenticated connection to one peer."""

    @property
    def peer(self) -> EndpointId:
        """The key the handshake proved."""

    @property
    def fixed_source(self) -> SourceUrl | None:
        """The one source all streams of this link lead to, without a request on each (the
        original's ICE modes); None when each stream begins with a request."""

    @property
    def address(self) -> str:
        """Where the peer is reached now, for people: `192.0.2.7:4444`, a relay URL."""

    async def open_stream(self) -> ByteStream:
        """Open a bidirectional stream; its id is reserved at once. Waits while the peer's stream
        limit is reached. Raises LinkClosedError."""

    async def accept_stream(self) -> ByteStream:
        """Next stream the peer opened, in order. Raises LinkClosedError."""

    @property
    def paths(self) -> tuple[PathStatus, ...]:
        """All ways packets take to the peer now, never none."""

    async def ping(self) -> float:
        """Ask the peer and return the seconds until its answer. Raises LinkClosedError. The time
        limit is the caller's."""

    def open_window(self) -> None:
        """Grant the full receive window: call once the peer is authenticated. A link accepted from
        a peer starts with a small one, so that strangers cannot make us hold much."""

    def close(self, code: int, reason: str) -> None:
        """End the link with an application close. Streams get `connection_lost`. Idempotent.
        Written bytes that are not acknowledged yet are discarded: see `drain`."""

    async def drain(self) -> None:
        """Wait until everything written on all streams is acknowledged, or the link has ended."""

    async def wait_closed(self) -> Exception:
        """Wait for the end of the link and return why it ended (a LinkClosedError)."""
