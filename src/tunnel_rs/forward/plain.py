"""Streams of the original's ICE modes: no request, one source for the whole link (spec `ice.md`
section 1.7). TCP streams begin with one byte of no meaning; all UDP shares one stream."""

import asyncio
from collections.abc import Sequence
from typing import Final

from tunnel_rs.errors import LinkClosedError, TargetError
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.net.link import Buffer, ByteStream, Link, StreamReceiver
from tunnel_rs.proto.udp_frames import DatagramDecoder, encode_datagram
from tunnel_rs.values import Protocol, SourceUrl

MARKER = b"\0"
"""First byte of a TCP stream, from the client; makes the stream visible to the server."""


class PlainDialogue(Dialogue):
    """The head of a plain stream, with the face of a dialogue: nothing is said, `receive` returns
    once the head has come, and a refusal is the end of the stream."""

    def __init__(self, stream: ByteStream, head: int = 0) -> None:
        super().__init__(stream, HeadDecoder(head))

    def send_encoded(self, message: bytes) -> None:
        """There are no words for it."""


class HeadDecoder:
    """Skips the first `length` bytes; has the face of `messages.MessageDecoder`."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._buffer = bytearray()

    def feed(self, data: Buffer) -> None:
        self._buffer += data

    def next_message(self) -> bytes | None:
        """Empty, once the head is there."""
        return None if len(self._buffer) < self._length else b""

    def take_rest(self) -> bytes:
        rest = bytes(self._buffer[self._length :])
        self._buffer.clear()
        return rest

    @property
    def at_boundary(self) -> bool:
        return not self._buffer


def accept_plain(stream: ByteStream, source: SourceUrl) -> PlainDialogue:
    """Server side: a stream that the client of a link with a fixed source has opened."""
    return PlainDialogue(stream, len(MARKER) if source.protocol is Protocol.TCP else 0)


class PlainStreams:
    """Client side: the streams of one link with a fixed source."""

    def __init__(self, link: Link, source: SourceUrl) -> None:
        self._link = link
        self._source: Final = source
        self._shared: SharedUdpStream | None = None
        self._opening = asyncio.Lock()

    async def request(self, source: SourceUrl) -> Dialogue:
        """A stream for `source`; `hand_over` it to a receiver. Raises TargetError for another
        source than the link's, and LinkClosedError."""
        if source != self._source:
            raise TargetError(
                f"the other side is an older program and carries {self._source} only, not {source}"
            )
        if source.protocol is Protocol.UDP:
            return PlainDialogue(await self._share())
        stream = await self._link.open_stream()
        stream.write(MARKER)
        return PlainDialogue(stream)

    async def _share(self) -> ByteStream:
        async with self._opening:
            if self._shared is None or self._shared.ended:
                self._shared = SharedUdpStream(await self._link.open_stream())
        return self._shared.share()


class SharedUdpStream(StreamReceiver):
    """The one stream all UDP flows of a client share; what comes back belongs to the flow that
    sent last, for nothing in the protocol tells."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.ended = False
        self._decoder = DatagramDecoder()
        self._shares: dict[Share, None] = {}
        self._last: Share | None = None
        stream.set_receiver(self)

    def share(self) -> "Share":
        """A view for one more flow."""
        share = Share(self)
        self._shares[share] = None
        return share

    def send(self, share: "Share", data: Buffer) -> None:
        self._last = share
        if not self.ended:
            self.stream.write(data)

    def drop(self, share: "Share") -> None:
        self._shares.pop(share, None)
        if self._last is share:
            self._last = None

    # What the stream calls.

    def data_received(self, data: bytes) -> None:
        for datagram in self._decoder.feed(data):
            if self._last is not None and self._last.receiver is not None:
                self._last.receiver.data_received(encode_datagram(datagram))
        self.stream.consumed(len(data))

    def eof_received(self) -> None:
        self._end(LinkClosedError(0, "the other side ended the UDP stream"))

    def reset_received(self, code: int) -> None:
        self._end(LinkClosedError(0, "the other side reset the UDP stream"))

    def stop_received(self, code: int) -> None:
        self._end(LinkClosedError(0, "the other side stopped the UDP stream"))

    def pause_writing(self) -> None:
        for share in self._shares:
            share.paused(True)

    def resume_writing(self) -> None:
        for share in self._shares:
            share.paused(False)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or LinkClosedError(0, "the UDP stream has ended"))

    def _end(self, error: Exception) -> None:
        if self.ended:
            return
        self.ended = True
        self.stream.reset(0)
        self.stream.stop(0)
        shares, self._shares = self._shares, {}
        for share in shares:
            share.lost(error)


class Share(ByteStream):
    """What one flow sees of the shared stream. Ending it leaves the others alone."""

    def __init__(self, owner: SharedUdpStream) -> None:
        self.receiver: StreamReceiver | None = None
        self._owner = owner

    @property
    def stream_id(self) -> int:
        return self._owner.stream.stream_id

    @property
    def unsent(self) -> int:
        return self._owner.stream.unsent

    def set_receiver(self, receiver: StreamReceiver) -> None:
        self.receiver = receiver

    def write(self, data: Buffer) -> None:
        self._owner.send(self, data)

    def write_eof(self) -> None:
        self._owner.drop(self)

    def reset(self, code: int) -> None:
        self._owner.drop(self)

    def stop(self, code: int) -> None:
        self._owner.drop(self)

    def consumed(self, n: int) -> None:
        """The owner has counted it already."""

    @property
    def max_datagram(self) -> int:
        return 0

    def send_datagrams(self, payloads: Sequence[bytes]) -> int:
        return len(payloads)

    def paused(self, yes: bool) -> None:
        if self.receiver is not None:
            if yes:
                self.receiver.pause_writing()
            else:
                self.receiver.resume_writing()

    def lost(self, error: Exception) -> None:
        if self.receiver is not None:
            self.receiver.connection_lost(error)
