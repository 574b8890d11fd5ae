"""Two `Link`s joined in memory, with the windows, marks and endings of the real thing.

Delivery goes through `loop.call_soon`, so nothing arrives inside the call that sent it. A stream
becomes visible to the peer with its first bytes, EOF or reset, as in QUIC. Calls that the face
forbids (consuming more than was delivered, writing after EOF) raise here.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.link import StreamReceiver
from tunnel_rs.reports import PathStatus
from tunnel_rs.values import Buffer, EndpointId, SourceUrl

SERVER_ID = EndpointId(
    bytes.fromhex("66be7e332c7a453332bd9d0a7f7db055f5c5ef1a06ada66d98b39fb6810c473a")
)
CLIENT_ID = EndpointId(
    bytes.fromhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
)


@dataclass
class Sizes:
    """Bytes. `high_water` is where `pause_writing` is called; it resumes at half of it."""

    window: int = 256 * 1024
    initial_window: int = 32 * 1024
    high_water: int = 64 * 1024
    stream_limit: int = 4096
    max_datagram: int = 0
    """0: no datagrams beside streams."""


class _Channel:
    """One direction of a stream: what `sender` wrote, on its way to `reader`."""

    def __init__(self, sender: "MemoryStream", credit: int) -> None:
        self.sender = sender
        self.reader: MemoryStream | None = None
        self.credit = credit
        self.unsent = bytearray()
        self.finished = False  # write_eof was called
        self.done = False  # EOF was delivered, or the direction was aborted
        self.paused = False
        self._scheduled = False

    def write(self, data: Buffer) -> None:
        if self.done and self.sender.link.error is None and not self.sender.stopped:
            raise RuntimeError("write after reset")
        if self.done:
            return
        if self.finished:
            raise RuntimeError("write after write_eof")
        self.unsent += data
        if len(self.unsent) > self.sender.link.sizes.high_water and not self.paused:
            self.paused = True
            self.sender.event(lambda receiver: receiver.pause_writing())
        self.schedule()

    def schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def abort(self) -> None:
        self.unsent.clear()
        self.done = True

    def _flush(self) -> None:
        self._scheduled = False
        if self.done:
            return
        reader = self.sender.announced()
        chunk = bytes(self.unsent[: self.credit])
        if chunk:
            del self.unsent[: len(chunk)]
            self.credit -= len(chunk)
            reader.arrived(chunk)
        if self.finished and not self.unsent and not self.done:
            self.done = True
            reader.eof_arrived()
            self.sender.check_ended()
        if self.paused and not self.done:
            if len(self.unsent) <= self.sender.link.sizes.high_water // 2:
                self.paused = False
                self.sender.event(lambda receiver: receiver.resume_writing())
        self.sender.link.progress()


class MemoryStream:
    """One end of a stream. See `tunnel_rs.net.link.ByteStream`."""

    def __init__(self, link: "MemoryLink", stream_id: int, credit: int) -> None:
        self.link = link
        self.stream_id = stream_id
        self.outgoing = _Channel(self, credit)
        self.stopped = False
        """The peer reads no more."""
        self.writes: list[int] = []
        """Sizes of all writes."""
        self.datagrams: list[bytes] = []
        """All that went beside the stream."""
        self.unconsumed = 0
        """Bytes delivered to a receiver and not yet consumed."""
        self._receiver: StreamReceiver | None = None
        self._waiting: deque[Callable[[StreamReceiver], None]] = deque()
        self._incoming_done = False
        self._discarding = False
        self._ended = False
        self.twin: MemoryStream | None = None

    @property
    def unsent(self) -> int:
        return len(self.outgoing.unsent)

    def set_receiver(self, receiver: StreamReceiver) -> None:
        self._receiver = receiver
        while self._waiting and self._receiver is receiver:
            self._waiting.popleft()(receiver)

    def write(self, data: Buffer) -> None:
        self.writes.append(len(data))
        self.outgoing.write(data)

    def write_eof(self) -> None:
        if not self.outgoing.done and not self.outgoing.finished:
            self.outgoing.finished = True
            self.outgoing.schedule()

    def reset(self, code: int) -> None:
        if self.outgoing.done or self.link.error is not None:
            return
        self.outgoing.abort()
        twin = self.announced()
        self._later(lambda: twin.reset_arrived(code))
        self.check_ended()

    def stop(self, code: int) -> None:
        if self._incoming_done or self.link.error is not None:
            return
        self._discarding = self._incoming_done = True
        twin = self.announced()
        self._later(lambda: twin.stop_arrived(code))
        self.check_ended()

    def consumed(self, n: int) -> None:
        if not 0 <= n <= self.unconsumed:
            raise RuntimeError(f"consumed {n} of {self.unconsumed} delivered bytes")
        self.unconsumed -= n
        if self.twin is not None:
            self.twin.grant(n)

    @property
    def max_datagram(self) -> int:
        return 0 if self._ended else self.link.sizes.max_datagram

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        assert all(len(payload) <= self.max_datagram for payload in payloads)
        twin = self.announced()
        self._later(lambda: twin.datagrams_arrived(list(payloads)))
        self.datagrams += payloads
        return 0

    # What the other end does to this one.

    def datagrams_arrived(self, payloads: list[bytes]) -> None:
        if self._receiver is not None and not self._ended and not self._discarding:
            self._receiver.datagrams_received(payloads)

    def announced(self) -> "MemoryStream":
        """The other end, made visible to the peer if it was not."""
        if self.twin is None:
            self.link.show(self)
        assert self.twin is not None
        return self.twin

    def grant(self, n: int) -> None:
        self.outgoing.credit += n
        if self.outgoing.unsent:
            self.outgoing.schedule()

    def arrived(self, data: bytes) -> None:
        if self._discarding or self._ended:
            return

        def deliver(receiver: StreamReceiver) -> None:
            self.unconsumed += len(data)
            receiver.data_received(data)

        self.event(deliver)

    def eof_arrived(self) -> None:
        if not self._incoming_done:
            self._incoming_done = True
            self.event(lambda receiver: receiver.eof_received())
            self.check_ended()

    def reset_arrived(self, code: int) -> None:
        if not self._incoming_done:
            self._incoming_done = True
            self.event(lambda receiver: receiver.reset_received(code))
            self.check_ended()

    def stop_arrived(self, code: int) -> None:
        if not self.outgoing.done:
            self.outgoing.abort()
            self.stopped = True
            self.event(lambda receiver: receiver.stop_received(code))
            self.check_ended()

    def check_ended(self) -> None:
        if self.outgoing.done and self._incoming_done:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self.outgoing.abort()
            self.link.forget(self)
            self._later(lambda: self.event(lambda receiver: receiver.connection_lost(error)))

    def event(self, call: Callable[[StreamReceiver], None]) -> None:
        if self._receiver is None or self._waiting:
            self._waiting.append(call)
        else:
            call(self._receiver)

    def _later(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)


class MemoryLink:
    """One end of a link. See `tunnel_rs.net.link.Link`. Make two with `link_pair`."""

    def __init__(self, peer: EndpointId, address: str, sizes: Sizes, first_id: int) -> None:
        self.peer = peer
        self.address = address
        self.fixed_source: SourceUrl | None = None
        self.sizes = sizes
        self.error: LinkClosedError | None = None
        self.streams: dict[int, MemoryStream] = {}
        """Streams of this end that have not ended."""
        self.other: MemoryLink
        self.receive_window = sizes.window
        self._next_id = first_id
        self._accepted: asyncio.Queue[MemoryStream] = asyncio.Queue()
        self._changed = asyncio.Event()

    @property
    def paths(self) -> tuple[PathStatus, ...]:
        return (PathStatus(self.address, "direct", 0.001),)

    async def ping(self) -> float:
        self._check()
        await asyncio.sleep(0)
        return 0.001

    async def open_stream(self) -> MemoryStream:
        while len(self.streams) >= self.sizes.stream_limit and self.error is None:
            await self._change()
        self._check()
        stream = MemoryStream(self, self._next_id, self.other.receive_window)
        self._next_id += 4
        self.streams[stream.stream_id] = stream
        return stream

    async def accept_stream(self) -> MemoryStream:
        while self._accepted.empty():
            self._check()
            await self._change()
        self._check()
        return self._accepted.get_nowait()

    def open_window(self) -> None:
        grown = self.sizes.window - self.receive_window
        self.receive_window = self.sizes.window
        for stream in self.streams.values():
            if stream.twin is not None:
                stream.twin.grant(grown)

    def close(self, code: int, reason: str) -> None:
        if self.error is None:
            self._end(LinkClosedError(code, reason, by_application=True))
            theirs = LinkClosedError(code, reason, by_application=True, by_peer=True)
            asyncio.get_running_loop().call_soon(self.other._end, theirs)

    async def drain(self) -> None:
        while self.error is None and any(stream.unsent for stream in self.streams.values()):
            await self._change()

    async def wait_closed(self) -> Exception:
        while self.error is None:
            await self._change()
        return self.error

    def lose(self, reason: str = "no answer for 300 s") -> None:
        """The network between the two is gone."""
        for end in (self, self.other):
            end._end(LinkClosedError(0, reason))

    def show(self, stream: MemoryStream) -> None:
        """Make `stream` visible to the peer."""
        twin = MemoryStream(self.other, stream.stream_id, self.receive_window)
        stream.twin, twin.twin = twin, stream
        self.other.streams[twin.stream_id] = twin
        self.other._accepted.put_nowait(twin)
        self.other.progress()

    def forget(self, stream: MemoryStream) -> None:
        self.streams.pop(stream.stream_id, None)
        self.progress()

    def progress(self) -> None:
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _end(self, error: LinkClosedError) -> None:
        if self.error is None:
            self.error = error
            for stream in list(self.streams.values()):
                stream.end(error)
            self.progress()


def link_pair(
    sizes: Sizes | None = None, *, address: str = "192.0.2.9:4242"
) -> tuple[MemoryLink, MemoryLink]:
    """The client's end and the server's end of a new link. The server sees the client at
    `address`, and grants only `initial_window` until it calls `open_window`."""
    sizes = sizes or Sizes()
    client = MemoryLink(SERVER_ID, "192.0.2.1:4433", sizes, 0)
    server = MemoryLink(CLIENT_ID, address, sizes, 1)
    client.other, server.other = server, client
    server.receive_window = sizes.initial_window
    return client, server
