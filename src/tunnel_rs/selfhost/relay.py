"""An iroh-compatible relay server (spec `relay.md`)."""

import asyncio
from dataclasses import replace
from typing import NamedTuple

from aiohttp import web

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.http_listener import ConnectionLimits, Handler, HttpListener
from tunnel_rs.net.interfaces import local_interfaces
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.prometheus import CONTENT_TYPE
from tunnel_rs.proto.relay_frames import MAX_MESSAGE
from tunnel_rs.proto.relay_handshake import presented_token
from tunnel_rs.proto.relay_server import Roster
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.reports import Notice, Reporter, silent
from tunnel_rs.selfhost.access_control import AccessControl
from tunnel_rs.selfhost.qad import QadListener, read_identity
from tunnel_rs.selfhost.relay_metrics import RelayMetrics
from tunnel_rs.selfhost.relay_routes import (
    captive_portal_answer,
    not_found,
    plain_answer,
    requested_version,
    upgrade_refusal,
    with_security_headers,
)
from tunnel_rs.selfhost.relay_session import RelaySession, SharedState
from tunnel_rs.selfhost.relay_settings import RelayServerSettings
from tunnel_rs.selfhost.tls import ServerCertificate
from tunnel_rs.selfhost.urls import certificate_names, server_urls
from tunnel_rs.values import EndpointId, Secret, SocketAddr

_METRICS_CONNECTIONS = 64
_METRICS_DEADLINE = 30.0
_LIMITS_OF_LISTENERS = (
    "accept_conn_limit",
    "accept_conn_burst",
    "max_connections",
    "max_connections_per_address",
    "handshake_timeout",
)


class RelayAddresses(NamedTuple):
    """Where a relay server listens, with the real ports; None for what is off."""

    http: SocketAddr
    https: SocketAddr | None
    metrics: SocketAddr | None
    quic: SocketAddr | None = None


class RelayServer:
    """A relay server; `start` it, and `close` it in the same event loop."""

    def __init__(self, settings: RelayServerSettings, report: Reporter = silent) -> None:
        """Reads the certificate and the access file. Raises ConfigError."""
        self._settings = settings
        self._started_with = settings
        self._report = report
        self.metrics = RelayMetrics()
        tls = settings.tls
        self._certificate = (
            ServerCertificate(tls.manual_cert_path, tls.manual_key_path) if tls else None
        )
        self._quic_identity = (
            read_identity(settings.quic.cert_path, settings.quic.key_path)
            if settings.quic
            else None
        )
        self._access = AccessControl(settings.access, settings.access_file)
        self._roster: Roster[RelaySession] = Roster()
        self._shared = SharedState(self._roster, self.metrics, settings.limits, self._may_enter)
        self._scope = TaskScope("relay server")
        self._relay_listener: HttpListener
        self._listeners: list[HttpListener] = []
        self._metrics_listener: HttpListener | None = None
        self._quic_listener: QadListener | None = None

    @property
    def addresses(self) -> RelayAddresses:
        """Valid once started."""
        http, https = self._listeners[0], self._listeners[1:]
        return RelayAddresses(
            http.bound,
            https[0].bound if https else None,
            self._metrics_listener.bound if self._metrics_listener else None,
            self._quic_listener.bound if self._quic_listener else None,
        )

    @property
    def urls(self) -> tuple[str, ...]:
        """What to give to `--relay-url`, as seen from elsewhere. Valid once started."""
        addresses, tls = self.addresses, self._settings.tls
        if addresses.https is None or tls is None:
            return server_urls("http", addresses.http, (), local_interfaces())
        names = tls.hostname or certificate_names(tls.manual_cert_path.read_bytes())
        return server_urls("https", addresses.https, names, local_interfaces())

    async def start(self) -> None:
        """Listen. Raises LocalError when an address cannot be used; nothing is left open then."""
        self._make_listeners()
        try:
            for listener in self._all_listeners():
                await listener.start()
            self._start_quic()
        except BaseException:
            await self.close()
            raise
        self._scope.spawn(self._watch_access_file(), "access file")
        if self._settings.tls is not None and self._settings.tls.reload_interval is not None:
            self._scope.spawn(self._renew(self._settings.tls.reload_interval), "certificate")

    async def close(self) -> None:
        """End every connection and stop listening. Idempotent."""
        await self._scope.aclose()
        for listener in self._all_listeners():
            listener.stop_accepting()
        for session in list(self._roster):
            session.drop("the relay stops")
        if self._quic_listener is not None:
            self._quic_listener.close()
        for listener in self._all_listeners():
            await listener.close()
        await self._access.close()

    def reload(self) -> None:
        """Read the certificate and the access file again. Raises ConfigError after doing what
        could be done; what could not be read stays as it was."""
        errors = []
        for read in (self._reload_certificate, self._access.reload):
            try:
                read()
            except ConfigError as error:
                errors.append(str(error))
        self._drop_the_disallowed()
        if errors:
            raise ConfigError("; ".join(errors))

    async def apply(self, settings: RelayServerSettings) -> tuple[str, ...]:
        """Use other settings from now on (SIGHUP): access at once, also for those who are
        connected, limits for new clients. Returns the names of those that have changed but need
        a restart. Raises ConfigError, and then nothing changes."""
        access = AccessControl(settings.access, settings.access_file)
        try:
            self._reload_certificate(settings)
        except ConfigError:
            await access.close()
            raise
        before, self._access = self._access, access
        await before.close()
        needs_restart = _needs_restart(self._started_with, settings)
        self._settings = replace(
            self._settings,
            access=settings.access,
            access_file=settings.access_file,
            access_file_interval=settings.access_file_interval,
            limits=settings.limits,
        )
        self._shared = self._shared._replace(limits=settings.limits)
        self._drop_the_disallowed()
        return needs_restart

    def _reload_certificate(self, settings: RelayServerSettings | None = None) -> None:
        tls, quic = (settings or self._settings).tls, (settings or self._settings).quic
        identity = read_identity(quic.cert_path, quic.key_path) if quic else None
        if self._certificate is not None and tls is not None:
            self._certificate.replace(tls.manual_cert_path, tls.manual_key_path)
        if self._quic_listener is not None and identity is not None:
            self._quic_listener.identity = identity

    async def _renew(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                self._reload_certificate()
            except ConfigError as error:
                self._report(Notice("warning", f"{error}; the certificate in use stays"))

    def _start_quic(self) -> None:
        quic = self._settings.quic
        if quic is None or self._quic_identity is None:
            return
        listener = QadListener(
            quic.bind_addr,
            self._quic_identity,
            max_connections=quic.max_connections,
            on_accepted=self._quic_accepted,
            on_refused=self._quic_refused,
        )
        listener.start()
        self._quic_listener = listener

    def _quic_accepted(self) -> None:
        self.metrics.qad_accepts += 1

    def _quic_refused(self) -> None:
        self.metrics.qad_refused += 1

    async def _may_enter(self, endpoint_id: EndpointId, token: Secret[str] | None) -> bool:
        return await self._access.may_enter(endpoint_id, token)

    def _all_listeners(self) -> list[HttpListener]:
        return [*self._listeners, *([self._metrics_listener] if self._metrics_listener else [])]

    def _make_listeners(self) -> None:
        settings, tls = self._settings, self._settings.tls
        limits = self._connection_limits()
        plain = self._serve_captive_portal if tls else self._serve
        self._listeners = [self._listener(settings.http_bind_addr, plain, limits)]
        if tls and self._certificate:
            context = self._certificate.context
            self._listeners.append(
                HttpListener(
                    tls.https_bind_addr,
                    self._serve,
                    limits=limits,
                    deadline=settings.limits.handshake_timeout,
                    tls=context,
                    on_refused=self._refused,
                )
            )
        self._relay_listener = self._listeners[-1]
        if settings.enable_metrics:
            metrics_limits = ConnectionLimits(_METRICS_CONNECTIONS)
            self._metrics_listener = HttpListener(
                settings.metrics_bind_addr,
                self._serve_metrics,
                limits=metrics_limits,
                deadline=_METRICS_DEADLINE,
            )

    def _listener(
        self, address: SocketAddr, handler: Handler, limits: ConnectionLimits
    ) -> HttpListener:
        deadline = self._settings.limits.handshake_timeout
        return HttpListener(
            address, handler, limits=limits, deadline=deadline, on_refused=self._refused
        )

    def _connection_limits(self) -> ConnectionLimits:
        limits, rate = self._settings.limits, None
        if limits.accept_conn_limit is not None:
            now = asyncio.get_running_loop().time()
            rate = TokenBucket(limits.accept_conn_limit, max(1, limits.accept_conn_burst), now)
        return ConnectionLimits(limits.max_connections, limits.max_connections_per_address, rate)

    def _refused(self) -> None:
        self.metrics.connections_refused += 1

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/relay":
            return plain_answer(request)
        if not self._settings.enable_relay:
            return not_found()
        refusal = upgrade_refusal(request)
        return refusal if refusal is not None else await self._serve_relay(request)

    async def _serve_captive_portal(self, request: web.BaseRequest) -> web.StreamResponse:
        return captive_portal_answer(request)

    async def _serve_metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics" or request.method != "GET":
            return not_found()
        text = self.metrics.render(
            connections=len(self._roster),
            endpoints=self._roster.endpoint_count,
            qad_connections=self._quic_listener.connection_count if self._quic_listener else 0,
        )
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _serve_relay(self, request: web.BaseRequest) -> web.StreamResponse:
        version = requested_version(request)
        assert version is not None
        websocket = web.WebSocketResponse(
            protocols=(version.value,), compress=False, max_msg_size=MAX_MESSAGE, timeout=1.0
        )
        with_security_headers(websocket)
        try:
            await websocket.prepare(request)
        except web.HTTPException as refusal:
            return with_security_headers(web.Response(status=refusal.status, text=refusal.text))
        token = presented_token(
            request.headers.getall("Authorization", []), request.rel_url.raw_query_string
        )
        session = RelaySession(websocket, request, version, token, self._shared)
        await session.run(lambda: self._relay_listener.lift_deadline(request))
        who = session.endpoint_id.short if session.endpoint_id else request.remote
        self._report(Notice("debug", f"relay client {who}: {session.end_reason}"))
        return websocket

    async def _watch_access_file(self) -> None:
        while True:
            await asyncio.sleep(self._settings.access_file_interval)
            if not self._access.has_changed():
                continue
            try:
                self._access.reload()
            except ConfigError as error:
                self._report(Notice("warning", f"{error}; the list read before stays in use"))
                continue
            self._report(Notice("info", f"{self._settings.access_file} has been read again"))
            self._drop_the_disallowed()

    def _drop_the_disallowed(self) -> None:
        for session in list(self._roster):
            who = session.endpoint_id
            if who is not None and not self._access.still_allows(who, session.token):
                session.drop("no longer authorized")


def _needs_restart(old: RelayServerSettings, new: RelayServerSettings) -> tuple[str, ...]:
    """What differs and cannot be changed while running, by the names in the file."""
    names = ("enable_relay", "http_bind_addr", "enable_metrics", "metrics_bind_addr")
    found = [name for name in names if getattr(old, name) != getattr(new, name)]
    found += [
        f"limits.{name}"
        for name in _LIMITS_OF_LISTENERS
        if getattr(old.limits, name) != getattr(new.limits, name)
    ]
    if (old.tls is None) != (new.tls is None):
        found.append("tls")
    elif old.tls and new.tls and old.tls.https_bind_addr != new.tls.https_bind_addr:
        found.append("tls.https_bind_addr")
    if (old.quic is None) != (new.quic is None):
        found.append("enable_quic_addr_discovery")
    elif old.quic and new.quic and old.quic.bind_addr != new.quic.bind_addr:
        found.append("tls.quic_bind_addr")
    return tuple(found)
