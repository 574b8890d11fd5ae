"""The HTTP side of a discovery server: pkarr PUT and GET, DNS over HTTPS, health
(spec `discovery.md` sections 3 and 4)."""

import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import RequestPayloadError

import tunnel_rs
from tunnel_rs.errors import LocalError, ProtocolError
from tunnel_rs.proto.dns_wire import Query, Response, encode_response
from tunnel_rs.proto.dns_zone import MAX_TCP_MESSAGE
from tunnel_rs.proto.pkarr import MAX_PAYLOAD, SignedPacket, endpoint_id_from_z32
from tunnel_rs.proto.source_limits import SourceLimits, source_group
from tunnel_rs.selfhost import doh
from tunnel_rs.selfhost.dns_metrics import DnsMetrics
from tunnel_rs.selfhost.dns_settings import PutRateLimit
from tunnel_rs.values import EndpointId

PAYLOAD_TYPE = "application/x-pkarr-signed-packet"
_PKARR_PREFIX = "/pkarr/"
_CORS = {"Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET,POST,PUT",
    "Access-Control-Allow-Headers": "accept,content-type",
    "Access-Control-Max-Age": "86400",
}

Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]


class HttpError(Exception):
    """An answer that is not the one hoped for."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def response(self) -> web.Response:
        body = json.dumps({"status": str(self.status), "detail": self.detail})
        return web.Response(
            status=self.status,
            text=body,
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in self.headers.items()},
        )


class DiscoveryHttp:
    """Handles the requests of all listeners."""

    def __init__(
        self,
        *,
        answer: Callable[[Query], Response],
        lookup: Callable[[EndpointId], SignedPacket | None],
        publish: Callable[[SignedPacket], None],
        put_rate_limit: PutRateLimit,
        put_limits: SourceLimits,
        query_limits: SourceLimits,
        clock: Callable[[], float],
        metrics: DnsMetrics,
    ) -> None:
        """`clock`: seconds, monotonic. `lookup` and `publish` may raise LocalError."""
        self._answer = answer
        self._lookup = lookup
        self._publish = publish
        self._put_rate_limit = put_rate_limit
        self._put_limits = put_limits
        self._query_limits = query_limits
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        self._metrics.http_requests += 1
        try:
            response = await self._route(request)
        except HttpError as error:
            response = error.response()
        except LocalError:
            response = HttpError(500, "the record store failed").response()
        except (RequestPayloadError, BadHttpMessage, ConnectionError):
            response = HttpError(400, "the request's body is broken off").response()
        response.headers.update(_CORS)
        return response

    async def _route(self, request: web.BaseRequest) -> web.Response:
        handlers = self._handlers(request)
        if handlers is None:
            raise HttpError(404, "not found")
        if request.method == "OPTIONS":
            return web.Response(headers=_PREFLIGHT)
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise HttpError(405, "method not allowed", Allow=",".join(handlers))
        return await handler(request)

    def _handlers(self, request: web.BaseRequest) -> dict[str, Handler] | None:
        if request.path.startswith(_PKARR_PREFIX):
            return {"GET": self._get_packet, "PUT": self._put_packet}
        match request.path:
            case "/dns-query":
                return {"GET": self._get_query, "POST": self._post_query}
            case "/healthz":
                return {"GET": _healthz}
            case "/healthcheck":
                return {"GET": _healthcheck}
            case "/":
                return {"GET": _greeting}
            case _:
                return None

    async def _put_packet(self, request: web.BaseRequest) -> web.Response:
        source = client_source(request, smart=self._put_rate_limit is PutRateLimit.SMART)
        if self._put_rate_limit is not PutRateLimit.DISABLED and not self._put_limits.allow(
            source, self._clock()
        ):
            self._metrics.pkarr_publish_ratelimited += 1
            raise HttpError(429, "too many requests", Retry_After="1")
        try:
            endpoint_id = _endpoint_id(request)
            packet = SignedPacket.from_payload(endpoint_id, await _body(request, MAX_PAYLOAD))
        except HttpError:
            self._metrics.pkarr_publish_error += 1
            raise
        except ProtocolError as error:
            self._metrics.pkarr_publish_error += 1
            raise HttpError(400, str(error)) from None
        self._publish(packet)
        return web.Response(status=204)

    async def _get_packet(self, request: web.BaseRequest) -> web.Response:
        self._limit_queries(request)
        self._metrics.pkarr_lookups += 1
        packet = self._lookup(_endpoint_id(request))
        if packet is None:
            raise HttpError(404, "no record of this endpoint")
        return web.Response(body=packet.payload, content_type=PAYLOAD_TYPE)

    async def _get_query(self, request: web.BaseRequest) -> web.Response:
        default = doh.Form.MESSAGE if "dns" in request.query else doh.Form.JSON
        form = _answer_form(request, default)
        try:
            query = doh.query_from_parameters(request.query)
        except ValueError as error:
            raise HttpError(400, str(error)) from None
        return self._respond(request, query, form)

    async def _post_query(self, request: web.BaseRequest) -> web.Response:
        if request.content_type != doh.MESSAGE_TYPE:
            raise HttpError(415, f"the body must be {doh.MESSAGE_TYPE}")
        form = _answer_form(request, doh.Form.MESSAGE)
        try:
            query = doh.query_from_message(await _body(request, doh.MAX_MESSAGE))
        except ValueError as error:
            raise HttpError(400, str(error)) from None
        return self._respond(request, query, form)

    def _respond(self, request: web.BaseRequest, query: Query, form: doh.Form) -> web.Response:
        self._limit_queries(request)
        self._metrics.dns_requests_https += 1
        answer = self._answer(query)
        if form is doh.Form.JSON:
            body = doh.json_body(query, answer)
        else:
            body = encode_response(query, answer, MAX_TCP_MESSAGE)
        response = web.Response(body=body, content_type=form.value)
        if (seconds := doh.cache_seconds(answer)) is not None:
            response.headers["Cache-Control"] = f"s-maxage={seconds}"
        return response

    def _limit_queries(self, request: web.BaseRequest) -> None:
        source = client_source(request, smart=self._put_rate_limit is PutRateLimit.SMART)
        if not self._query_limits.allow(source, self._clock()):
            self._metrics.dns_requests_limited += 1
            raise HttpError(429, "too many requests", Retry_After="1")


def _answer_form(request: web.BaseRequest, default: doh.Form) -> doh.Form:
    form = doh.answer_form(request.headers.get("Accept"), default)
    if form is None:
        raise HttpError(406, f"the answer is {doh.MESSAGE_TYPE} or {doh.JSON_TYPE}")
    return form


def _endpoint_id(request: web.BaseRequest) -> EndpointId:
    try:
        return endpoint_id_from_z32(request.path.removeprefix(_PKARR_PREFIX))
    except ValueError as error:
        raise HttpError(400, f"invalid key: {error}") from None


async def _body(request: web.BaseRequest, limit: int) -> bytes:
    """The body, 400 when it is longer than `limit`; the rest is then not read."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise HttpError(400, f"more than {limit} bytes", Connection="close")
    return bytes(body)


def client_source(request: web.BaseRequest, *, smart: bool) -> str:
    """The network a request is counted under.

    `smart` looks at what the reverse proxy in front of us has added: the last entry, because the
    ones before it are the client's own claims.
    """
    named = _forwarded_for(request) if smart else None
    return source_group(named or request.remote or "")


def _forwarded_for(request: web.BaseRequest) -> str | None:
    entries = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    forwarded = request.forwarded
    candidates = (
        entries[-1],
        request.headers.get("X-Real-IP", ""),
        forwarded[-1].get("for", "") if forwarded else "",
    )
    for candidate in candidates:
        text = candidate.strip().strip('"')
        if text.startswith("["):
            text = text[1:].partition("]")[0]
        try:
            return str(ip_address(text))
        except ValueError:
            continue
    return None


async def _healthz(_: web.BaseRequest) -> web.Response:
    body = {"status": "ok", "version": tunnel_rs.__version__, "git_hash": ""}
    return web.Response(text=json.dumps(body), content_type="application/json")


async def _healthcheck(_: web.BaseRequest) -> web.Response:
    return web.Response(text="OK")


async def _greeting(_: web.BaseRequest) -> web.Response:
    return web.Response(text="Hi!")
