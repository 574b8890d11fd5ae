"""An HTTP server on aiohttp that bounds how many connections there are and how long a connection
may go without becoming what it came for."""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tunnel_rs.errors import LocalError
from tunnel_rs.net.bind import listen_advice
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import SocketAddr

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BACKLOG = 1024
_TLS_TIMEOUT = 10.0
_MAX_HEADER = 4096
_LINGER = 1.0

_log = logging.getLogger(__name__)
# aiohttp logs a traceback for every request that is no HTTP: strangers could fill a disk.
_log.addFilter(lambda record: not (record.exc_info and _is_bad_request(record.exc_info[1])))


def _is_bad_request(error: BaseException | None) -> bool:
    return isinstance(error, HttpProcessingError)


def source_network(ip: str) -> str:
    """What counts as one client: an IPv4 address or an IPv6 /64 network."""
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, 64), strict=False).network_address)


class ConnectionLimits:
    """Says whether one more connection is accepted; shared by the listeners of a server."""

    def __init__(
        self, maximum: int, per_source: int | None = None, rate: TokenBucket | None = None
    ) -> None:
        self._maximum = maximum
        self._per_source = per_source
        self._rate = rate
        self._open = 0
        self._by_source: Counter[str] = Counter()

    def enter(self, source: str, now: float) -> bool:
        """Count a connection in; False, and nothing counted, when it is one too many."""
        if self._open >= self._maximum:
            return False
        if self._per_source is not None and self._by_source[source] >= self._per_source:
            return False
        if self._rate is not None and not self._rate.try_spend(1, now):
            return False
        self._open += 1
        self._by_source[source] += 1
        return True

    def leave(self, source: str) -> None:
        self._open -= 1
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]


class _BoundedServer(web.Server):
    """Refuses connections above the limits and ends those that take too long."""

    def __init__(
        self,
        handler: Handler,
        limits: ConnectionLimits,
        deadline: float,
        refused: Callable[[], None],
    ) -> None:
        super().__init__(
            handler,
            logger=_log,
            access_log=None,
            keepalive_timeout=deadline,
            lingering_time=_LINGER,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            auto_decompress=False,
        )
        self._limits = limits
        self._deadline = deadline
        self._refused = refused
        self._admitted: dict[object, tuple[str, asyncio.TimerHandle]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        source = source_network(peer[0]) if peer else ""
        loop = asyncio.get_running_loop()
        if not self._limits.enter(source, loop.time()):
            self._refused()
            transport.abort()
            return
        timer = loop.call_later(self._deadline, transport.abort)
        self._admitted[handler] = (source, timer)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        admitted = self._admitted.pop(handler, None)
        if admitted is not None:
            admitted[1].cancel()
            self._limits.leave(admitted[0])

    def lift_deadline(self, handler: object) -> None:
        admitted = self._admitted.get(handler)
        if admitted is not None:
            admitted[1].cancel()


class HttpListener:
    """One listening address."""

    def __init__(
        self,
        address: SocketAddr,
        handler: Handler,
        *,
        limits: ConnectionLimits,
        deadline: float,
        tls: ssl.SSLContext | None = None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """`deadline`: seconds a connection may last; a handler may lift it."""
        self._address = address
        self._tls = tls
        self._http = _BoundedServer(handler, limits, deadline, on_refused)
        self._server: asyncio.Server | None = None
        self.bound = address
        """Where it listens; the real port once started."""

    async def start(self) -> None:
        """Raises LocalError when the address cannot be used."""
        loop = asyncio.get_running_loop()
        try:
            listener = self._socket()
            self._server = await loop.create_server(
                self._http,
                sock=listener,
                ssl=self._tls,
                ssl_handshake_timeout=_TLS_TIMEOUT if self._tls else None,
                backlog=_BACKLOG,
            )
        except OSError as error:
            raise LocalError(f"cannot listen on {self._address}: {listen_advice(error)}") from None
        self.bound = SocketAddr(self._address.ip, listener.getsockname()[1])

    def lift_deadline(self, request: web.BaseRequest) -> None:
        """The connection of this request has become what it came for; it may stay."""
        self._http.lift_deadline(request.protocol)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End every connection. Idempotent."""
        self.stop_accepting()
        self._http.pre_shutdown()
        await self._http.shutdown(_LINGER)

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if self._address.is_ipv6 else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # `::` means every address, IPv4 too, whatever this system's default is.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((self._address.ip, self._address.port))
        except OSError:
            listener.close()
            raise
        return listener
