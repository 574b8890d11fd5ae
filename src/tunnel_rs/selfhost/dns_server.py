"""A discovery server compatible with iroh-dns-server: endpoints publish signed records over HTTP,
others find them over DNS or HTTP (spec `discovery.md`)."""

import asyncio
import socket
import time
from collections.abc import Callable

from aiohttp import web

from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.net.bind import bind, local_address
from tunnel_rs.net.dns_listener import TcpDnsServer, UdpDnsServer
from tunnel_rs.net.http_listener import ConnectionLimits, Handler, HttpListener
from tunnel_rs.net.interfaces import local_interfaces
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.proto.dns_wire import Query, Response, ResponseCode
from tunnel_rs.proto.dns_zone import Zone, truncated_response
from tunnel_rs.proto.pkarr import SignedPacket
from tunnel_rs.proto.prometheus import CONTENT_TYPE
from tunnel_rs.proto.source_limits import SourceLimits
from tunnel_rs.reports import Notice, Reporter, silent
from tunnel_rs.selfhost.discovery_http import DiscoveryHttp
from tunnel_rs.selfhost.dns_metrics import DnsMetrics
from tunnel_rs.selfhost.dns_settings import DnsServerSettings, DnsSettings
from tunnel_rs.selfhost.tls import ServerCertificate
from tunnel_rs.selfhost.urls import certificate_names, server_urls
from tunnel_rs.selfhost.zone_store import ZoneStore
from tunnel_rs.values import EndpointId, HostPort, SocketAddr


def unix_microseconds() -> int:
    """The wall clock, microseconds since 1970."""
    return time.time_ns() // 1000


class DnsServer:
    """Construct, `await start()`, read the addresses, `await close()`."""

    def __init__(
        self,
        settings: DnsServerSettings,
        *,
        report: Reporter = silent,
        clock: Callable[[], int] = unix_microseconds,
    ) -> None:
        """Raises ConfigError for settings that cannot be served."""
        if settings.http is None and settings.https is None and settings.dns is None:
            raise ConfigError("dns-server: neither http, https nor dns is to be served")
        self._settings = settings
        self._report = report
        self._clock = clock
        self.metrics = DnsMetrics()
        self._zone = self._make_zone(settings.dns or DnsSettings())
        self._certificate: ServerCertificate | None = None
        self._store: ZoneStore | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._http: list[HttpListener] = []
        self._udp: UdpDnsServer | None = None
        self._tcp: TcpDnsServer | None = None
        self.http_address: SocketAddr | None = None
        self.https_address: SocketAddr | None = None
        self.dns_address: SocketAddr | None = None
        self.metrics_address: SocketAddr | None = None

    def _make_zone(self, settings: DnsSettings) -> Zone:
        try:
            return Zone(settings.zone(), self._look_up, self._count_answer)
        except ValueError as error:
            raise ConfigError(f"dns-server, section [dns]: {error}") from None

    @property
    def pkarr_url(self) -> str | None:
        """What to give to `--dns-server`, as seen from this machine."""
        if self.http_address is None:
            return None
        return f"http://{self.http_address}/pkarr"

    @property
    def pkarr_urls(self) -> tuple[str, ...]:
        """What to give to `--dns-server`, as seen from elsewhere. Valid once started."""
        interfaces, https = local_interfaces(), self._settings.https
        urls: tuple[str, ...] = ()
        if self.https_address is not None and https is not None:
            names = https.domains or certificate_names(https.cert_path.read_bytes())
            urls = server_urls("https", self.https_address, names, interfaces)
        elif self.http_address is not None:
            urls = server_urls("http", self.http_address, (), interfaces)
        return tuple(f"{url}pkarr" for url in urls)

    async def start(self) -> None:
        """Open the store and listen. Raises LocalError or ConfigError, with nothing left open."""
        settings = self._settings
        if settings.https is not None:
            self._certificate = ServerCertificate(settings.https.cert_path, settings.https.key_path)
        self._store = ZoneStore(
            settings.data_dir, self._clock, max_records=settings.zone_store.max_records
        )
        try:
            await self._listen()
        except BaseException:
            await self.close()
            raise
        self._evict()

    async def _listen(self) -> None:
        settings = self._settings
        handler = self._make_handler()
        limits = ConnectionLimits(
            settings.max_http_connections, settings.max_connections_per_source
        )
        if settings.http is not None:
            self.http_address = await self._listen_http(settings.http, handler, limits)
        if settings.https is not None:
            tls = self._certificate
            self.https_address = await self._listen_http(settings.https.bind, handler, limits, tls)
        if settings.metrics is not None:
            own_limits = ConnectionLimits(16)
            self.metrics_address = await self._listen_http(
                settings.metrics, self._show_metrics, own_limits
            )
        if settings.dns is not None:
            await self._listen_dns(settings.dns)

    def _make_handler(self) -> DiscoveryHttp:
        settings = self._settings
        dns = settings.dns or DnsSettings()
        return DiscoveryHttp(
            answer=self._zone.answer,
            lookup=self._look_up,
            publish=self._publish,
            put_rate_limit=settings.pkarr_put_rate_limit,
            put_limits=SourceLimits(settings.puts_per_second, settings.put_burst),
            query_limits=SourceLimits(dns.tcp_queries_per_second, 2 * dns.tcp_queries_per_second),
            clock=asyncio.get_running_loop().time,
            metrics=self.metrics,
        )

    async def _listen_http(
        self,
        address: SocketAddr,
        handler: Handler,
        limits: ConnectionLimits,
        certificate: ServerCertificate | None = None,
    ) -> SocketAddr:
        listener = HttpListener(
            address,
            handler,
            limits=limits,
            deadline=self._settings.http_deadline,
            tls=certificate.context if certificate is not None else None,
            on_refused=self._count_refused,
        )
        await listener.start()
        self._http.append(listener)
        return listener.bound

    def _count_refused(self) -> None:
        self.metrics.http_connections_refused += 1

    async def _listen_dns(self, settings: DnsSettings) -> None:
        tcp_rate = settings.tcp_queries_per_second
        udp_rate = settings.responses_per_second
        self._tcp = TcpDnsServer(
            self._respond_tcp,
            SourceLimits(tcp_rate, 2 * tcp_rate),
            maximum=settings.max_tcp_connections,
            per_source=self._settings.max_connections_per_source,
            deadline=self._settings.http_deadline,
        )
        self._udp = UdpDnsServer(
            self._respond_udp,
            self._respond_truncated,
            SourceLimits(udp_rate, 2 * udp_rate),
            on_limited=self._count_limited,
        )
        resolve = SystemResolver()
        where = HostPort(settings.bind.ip, settings.bind.port)
        (listener,) = await bind(where, socket.SOCK_STREAM, resolve)
        await self._tcp.start(listener)
        self.dns_address = local_address(listener)
        where = HostPort(where.host, self.dns_address.port)
        (datagrams,) = await bind(where, socket.SOCK_DGRAM, resolve)
        await self._udp.start(datagrams)

    def _respond_udp(self, message: bytes) -> bytes | None:
        self.metrics.dns_requests_udp += 1
        return self._zone.respond(message, over_udp=True)

    def _respond_tcp(self, message: bytes) -> bytes | None:
        self.metrics.dns_requests_tcp += 1
        return self._zone.respond(message, over_udp=False)

    def _respond_truncated(self, message: bytes) -> bytes | None:
        query = self._zone.read(message)
        return truncated_response(query) if isinstance(query, Query) else None

    def _count_limited(self) -> None:
        self.metrics.dns_requests_limited += 1

    def _count_answer(self, response: Response) -> None:
        if response.code is ResponseCode.NOERROR:
            self.metrics.dns_lookup_success += bool(response.answers)
            self.metrics.dns_lookup_notfound += not response.answers
        elif response.code is ResponseCode.NXDOMAIN:
            self.metrics.dns_lookup_notfound += 1
        else:
            self.metrics.dns_lookup_error += 1

    def _look_up(self, endpoint_id: EndpointId) -> SignedPacket | None:
        if self._store is None:
            raise LocalError("the record store is closed")
        return self._store.get(endpoint_id)

    def _publish(self, packet: SignedPacket) -> None:
        store = self._store
        if store is None:
            raise LocalError("the record store is closed")
        try:
            kept = store.put(packet)
        except LocalError as error:
            self.metrics.pkarr_publish_error += 1
            self._store_failed(error)
            raise
        self.metrics.pkarr_publish_update += kept
        self.metrics.pkarr_publish_noop += not kept
        if store.pending >= self._settings.zone_store.max_batch_size:
            self._commit()
        elif store.pending:
            self._call_later("commit", self._settings.zone_store.max_batch_time, self._commit)

    def _commit(self) -> None:
        self._cancel_timer("commit")
        if self._store is None:
            return
        try:
            self._store.commit()
        except LocalError as error:
            self._store_failed(error)
            self._call_later("commit", self._settings.zone_store.max_batch_time, self._commit)

    def _evict(self) -> None:
        self._cancel_timer("evict")
        settings = self._settings.zone_store
        if self._store is None:
            return
        try:
            self.metrics.store_packets_expired += self._store.evict(settings.eviction)
        except LocalError as error:
            self._store_failed(error)
        self._call_later("evict", settings.eviction_interval, self._evict)

    def _store_failed(self, error: LocalError) -> None:
        self.metrics.store_errors += 1
        self._report(Notice("warning", str(error)))

    def _call_later(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        if name not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[name] = loop.call_later(delay, callback)

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    async def _show_metrics(self, request: web.BaseRequest) -> web.Response:
        if request.path != "/metrics":
            return web.Response(status=404, text="Not Found")
        records = len(self._store) if self._store is not None else 0
        text = self.metrics.render(records=records)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    def reload_certificate(self) -> None:
        """Read the TLS files again, for new connections. Raises ConfigError; then the old
        certificate stays in use."""
        if self._certificate is not None:
            self._certificate.reload()

    async def close(self) -> None:
        """Stop serving, end all connections, write what is pending. Idempotent."""
        for name in list(self._timers):
            self._cancel_timer(name)
        for server in (self._udp, self._tcp):
            if server is not None:
                await server.close()
        for listener in self._http:
            await listener.close()
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except LocalError as error:
                self._store_failed(error)
