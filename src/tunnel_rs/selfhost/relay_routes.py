"""What a relay answers over HTTP besides the relay protocol itself (spec `relay.md` section 5)."""

import re

from aiohttp import web

from tunnel_rs import __version__
from tunnel_rs.proto.relay_handshake import RelayVersion, choose_version

_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,63}")
_INDEX = (
    "<!doctype html><html><head><title>iroh relay</title></head>"
    "<body><h1>iroh relay</h1><p>A relay for endpoints of the iroh network, run with tunnel-rs."
    "</p></body></html>\n"
)
_SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "Content-Security-Policy": "default-src 'none'; form-action 'none'; frame-ancestors 'none'",
}
_METHODS = ("GET", "HEAD")


def with_security_headers(response: web.StreamResponse) -> web.StreamResponse:
    response.headers.update(_SECURITY_HEADERS)
    return response


def _text(status: int, text: str, content_type: str = "text/plain") -> web.StreamResponse:
    response = web.Response(status=status, text=text, content_type=content_type)
    return with_security_headers(response)


def not_found() -> web.StreamResponse:
    return _text(404, "Not Found")


def plain_answer(request: web.BaseRequest) -> web.StreamResponse:
    """The answer to anything but `/relay`."""
    if request.method not in _METHODS:
        return not_found()
    path = request.path
    if path in ("/", "/index.html"):
        return _text(200, _INDEX, "text/html")
    if path == "/ping":
        response = _text(200, "")
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response
    if path == "/robots.txt":
        return _text(200, "User-agent: *\nDisallow: /\n")
    if path == "/healthz":
        response = web.json_response(
            {"status": "ok", "version": __version__, "git_hash": "unknown"}
        )
        return with_security_headers(response)
    if path == "/generate_204":
        return captive_portal_answer(request)
    return not_found()


def captive_portal_answer(request: web.BaseRequest) -> web.StreamResponse:
    """`/generate_204`: shows a client that nobody on the way answers in our place."""
    if request.method not in _METHODS or request.path != "/generate_204":
        return not_found()
    response = with_security_headers(web.Response(status=204))
    challenge = request.headers.get("X-Iroh-Challenge", "")
    if _CHALLENGE.fullmatch(challenge):
        response.headers["X-Iroh-Response"] = f"response {challenge}"
    return response


def upgrade_refusal(request: web.BaseRequest) -> web.StreamResponse | None:
    """Why a request for `/relay` cannot become a relay connection; None when it can."""
    headers = request.headers
    if request.method != "GET":
        return not_found()
    if headers.get("Upgrade") != "websocket":
        return _text(400, "missing or unknown upgrade header")
    if "Sec-WebSocket-Key" not in headers:
        return _text(400, "missing websocket key")
    if headers.get("Sec-WebSocket-Version") != "13":
        response = _text(400, "unsupported websocket version")
        response.headers["Sec-WebSocket-Version"] = "13"
        return response
    if requested_version(request) is None:
        return _text(400, "no supported relay protocol version offered")
    return None


def requested_version(request: web.BaseRequest) -> RelayVersion | None:
    return choose_version(request.headers.get("Sec-WebSocket-Protocol", ""))
