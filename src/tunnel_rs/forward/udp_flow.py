"""The datagrams of one local peer and one target: frames on a stream of their own, or beside it.

Datagrams that are read together go out in one write. Nothing is queued without bound: while the
stream is paused datagrams are dropped, as a router does, and before it is open a few are kept.

When both sides have agreed on it, datagrams travel as such (RFC 9221) and a lost one does not hold
up those behind it. The stream then carries only those that are too long for it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from tunnel_rs.forward.dialogue import STREAM_DONE
from tunnel_rs.net.datagrams import Batch, DatagramSocket
from tunnel_rs.net.link import ByteStream, StreamReceiver
from tunnel_rs.net.splice import Attach, SpliceEnd
from tunnel_rs.proto.udp_frames import DatagramDecoder, encode_datagram

MAX_EARLY = 64
MAX_EARLY_BYTES = 128 * 1024
"""Datagrams, and bytes of them, kept until the stream is open."""


def join_udp(
    sock: socket.socket, on_end: Callable[[SpliceEnd], None], *, idle_timeout: float
) -> "UdpFlow":
    """The flow of a connected UDP socket, which it then owns. Call `attach` next."""

    def ended(end: SpliceEnd) -> None:
        datagrams.close()
        on_end(end)

    def received(batch: Batch) -> None:
        flow.send([payload for payload, _ in batch])

    datagrams = DatagramSocket(sock, received)
    flow = UdpFlow(datagrams.send, ended, idle_timeout=idle_timeout)
    return flow


class UdpFlow(StreamReceiver):
    """Local datagrams go in by `send`, the peer's come out by `deliver`, one call each.

    It ends after `idle_timeout` seconds without traffic, with the stream, or by `close` and
    `abort`; `on_end` is then called, once.
    """

    def __init__(
        self,
        deliver: Callable[[bytes], object],
        on_end: Callable[[SpliceEnd], None],
        *,
        idle_timeout: float,
    ) -> None:
        self.sent = 0
        self.received = 0
        self.dropped = 0
        """Local datagrams that found the stream paused, or not open yet and too many, or more
        before them than the path takes."""
        self._deliver = deliver
        self._on_end = on_end
        self._idle_timeout = idle_timeout
        self._loop = asyncio.get_running_loop()
        self._last_traffic = self._loop.time()
        self._idle_timer = self._loop.call_later(idle_timeout, self._look)
        self._stream: ByteStream | None = None
        self._decoder = DatagramDecoder()
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._paused = False
        self._beside = False
        self._incoming = True
        self._ended = False

    def attach(self, stream: ByteStream, attach: Attach, *, beside: bool = False) -> None:
        """The stream is open: what waited goes out, what it brings is delivered. `beside`: the
        peer takes datagrams beside the stream."""
        if self._ended:
            stream.reset(STREAM_DONE)
            stream.stop(STREAM_DONE)
            return
        self._stream = stream
        self._beside = beside
        early, self._early = self._early, []
        attach(self)
        if early and not self._ended:
            self._write(early)

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Pass on local datagrams; they share one write."""
        self._last_traffic = self._loop.time()
        if self._ended:
            self.dropped += len(datagrams)
        elif self._stream is None:
            self._keep(datagrams)
        else:
            self._write(datagrams)

    def close(self) -> None:
        """End in order, after what has been written."""
        self._end("", reset=False)

    def abort(self, reason: str) -> None:
        self._end(reason, reset=True)

    # What the stream calls.

    def data_received(self, data: bytes) -> None:
        self._last_traffic = self._loop.time()
        if not self._ended:
            for datagram in self._decoder.feed(data):
                self.received += len(datagram)
                self._deliver(datagram)
        if self._stream is not None:
            self._stream.consumed(len(data))

    def datagrams_received(self, payloads: list[bytes]) -> None:
        self._last_traffic = self._loop.time()
        if self._ended:
            return
        deliver = self._deliver
        for payload in payloads:
            deliver(payload)
        self.received += sum(map(len, payloads))

    def eof_received(self) -> None:
        self._incoming = False
        cut = "" if self._decoder.at_boundary else "the peer ended in the middle of a datagram"
        self._end(cut, reset=False)

    def reset_received(self, code: int) -> None:
        self._incoming = False
        self.abort("the peer reset the flow")

    def stop_received(self, code: int) -> None:
        self._end("", reset=False)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self._stream = None
        self._end("" if error is None else str(error), reset=True)

    def _write(self, datagrams: Sequence[bytes]) -> None:
        assert self._stream is not None
        if self._beside:
            datagrams = self._send_beside(self._stream, datagrams)
        if self._paused:
            self.dropped += len(datagrams)
        elif datagrams:
            self.sent += sum(map(len, datagrams))
            self._stream.write(b"".join(map(encode_datagram, datagrams)))

    def _send_beside(self, stream: ByteStream, datagrams: Sequence[bytes]) -> Sequence[bytes]:
        """Send those that are short enough; returns the others."""
        limit = stream.max_datagram
        long = [datagram for datagram in datagrams if len(datagram) > limit]
        short = [each for each in datagrams if len(each) <= limit] if long else datagrams
        if short:
            self.sent += sum(map(len, short))
            self.dropped += stream.send_datagrams(short)
        return long

    def _keep(self, datagrams: Sequence[bytes]) -> None:
        for datagram in datagrams:
            if len(self._early) >= MAX_EARLY or self._early_bytes + len(datagram) > MAX_EARLY_BYTES:
                self.dropped += 1
                continue
            self._early.append(datagram)
            self._early_bytes += len(datagram)

    def _look(self) -> None:
        """The idle timer runs out at the earliest moment the flow could be idle for long enough,
        so traffic need not touch it."""
        idle_at = self._last_traffic + self._idle_timeout
        if self._loop.time() < idle_at:
            self._idle_timer = self._loop.call_at(idle_at, self._look)
        else:
            self.close()

    def _end(self, reason: str, *, reset: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._early.clear()
        self._idle_timer.cancel()
        if (stream := self._stream) is not None:
            if reset:
                stream.reset(STREAM_DONE)
            else:
                stream.write_eof()
            if self._incoming:
                stream.stop(STREAM_DONE)
        on_end = self._on_end
        del self._deliver, self._on_end  # they lead back here
        on_end(SpliceEnd(self.sent, self.received, reason))
