"""DNS over UDP and TCP: the sockets of an authoritative server.

What to answer is a function of the query's bytes. Nothing here grows with what strangers send: a
datagram is answered in the callback that brought it, or dropped; a connection holds one query and
is not read from while its answers are not taken.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from tunnel_rs.proto.source_limits import SourceLimits, source_group

MAX_QUERY = 2048
"""A query is a name of at most 255 bytes and some options; longer is nobody's honest question."""

_BACKLOG = 128

Respond = Callable[[bytes], bytes | None]
"""Answer to a query's bytes, None for silence. Must not raise."""


class UdpDns(asyncio.DatagramProtocol):
    """Answers datagrams, at a bounded rate to each network.

    Over the rate every second query gets `respond_truncated`'s answer, no larger than itself, which
    leads an honest asker to TCP; the others get none (as BIND's response rate limiting).
    """

    def __init__(
        self,
        respond: Respond,
        respond_truncated: Respond,
        limits: SourceLimits,
        on_limited: Callable[[], None],
    ) -> None:
        self._respond = respond
        self._respond_truncated = respond_truncated
        self._limits = limits
        self._on_limited = on_limited
        self._clock = asyncio.get_running_loop().time
        self._over = 0
        self._paused = False
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport
        if transport is None or self._paused or len(data) > MAX_QUERY or addr[1] == 0:
            return
        answer = self._answer(data, source_group(addr[0], ipv4_prefix=24, ipv6_prefix=56))
        if answer is not None:
            transport.sendto(answer, addr)

    def _answer(self, data: bytes, source: str) -> bytes | None:
        if self._limits.allow(source, self._clock()):
            return self._respond(data)
        self._over += 1
        self._on_limited()
        return self._respond_truncated(data) if self._over % 2 else None

    def pause_writing(self) -> None:
        # The socket takes no more: answers are dropped, not queued.
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def error_received(self, exc: Exception) -> None:
        """An ICMP error of an earlier answer: the asker is gone."""


class TcpDns(asyncio.Protocol):
    """One connection: queries with a length prefix of two bytes (RFC 7766)."""

    def __init__(self, server: "TcpDnsServer") -> None:
        self._server = server
        self._buffer = bytearray()
        self._paused = False
        self._source: str | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        source = source_group(peer[0]) if peer else ""
        if not self._server.enter(self, source):
            self._transport.abort()
            return
        self._source = source
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._server.deadline, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._source is None:
            return
        self._buffer += data
        self._answer_queries(self._source)

    def _answer_queries(self, source: str) -> None:
        assert self._transport is not None
        while not self._paused and len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2], "big")
            if size > MAX_QUERY:
                self._transport.abort()
                return
            if len(self._buffer) < 2 + size:
                return
            query = bytes(self._buffer[2 : 2 + size])
            del self._buffer[: 2 + size]
            answer = self._server.answer(query, source)
            if answer is None:
                self._transport.abort()
                return
            self._transport.write(len(answer).to_bytes(2, "big") + answer)

    def eof_received(self) -> bool:
        return False  # what has been answered is still sent, then the connection closes

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and self._source is not None:
            self._answer_queries(self._source)
            if not self._paused and not self._transport.is_closing():
                self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._source is not None:
            self._server.leave(self, self._source)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class TcpDnsServer:
    """Accepts connections: `maximum` in all, `per_source` from one address, each for `deadline`
    seconds. When all places are taken the connection that is open longest makes room."""

    def __init__(
        self,
        respond: Respond,
        limits: SourceLimits,
        *,
        maximum: int = 256,
        per_source: int = 16,
        deadline: float = 30.0,
    ) -> None:
        self.deadline = deadline
        self._respond = respond
        self._limits = limits
        self._maximum = maximum
        self._per_source = per_source
        self._connections: dict[TcpDns, str] = {}
        self._server: asyncio.Server | None = None

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def start(self, listener: socket.socket) -> None:
        """Listen on a bound socket, which then belongs to this server."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: TcpDns(self), sock=listener, backlog=_BACKLOG
        )

    def enter(self, connection: TcpDns, source: str) -> bool:
        """Admit a connection, or not."""
        if sum(1 for other in self._connections.values() if other == source) >= self._per_source:
            return False
        if len(self._connections) >= self._maximum:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.abort()
        self._connections[connection] = source
        return True

    def leave(self, connection: TcpDns, source: str) -> None:
        self._connections.pop(connection, None)

    def answer(self, query: bytes, source: str) -> bytes | None:
        """None: the connection is to end."""
        if not self._limits.allow(source, asyncio.get_running_loop().time()):
            return None
        return self._respond(query)

    async def close(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        # Aborted transports close their sockets in the loop's next turn.
        await asyncio.sleep(0)


class UdpDnsServer:
    """The UDP side on a bound socket."""

    def __init__(
        self,
        respond: Respond,
        respond_truncated: Respond,
        limits: SourceLimits,
        *,
        on_limited: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_limited` is called for each query over the rate."""
        self._make_protocol = lambda: UdpDns(respond, respond_truncated, limits, on_limited)
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, sock: socket.socket) -> None:
        """Answer on a bound socket, which then belongs to this server."""
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            self._make_protocol, sock=sock
        )

    async def close(self) -> None:
        """Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        await asyncio.sleep(0)
