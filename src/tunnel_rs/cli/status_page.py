"""The status as a page for browsers: `tunnel-rs status --web`.

It is served on loopback under a random path, which only those know who see the output of the
command; what it loads comes from there too, and it may load nothing else.
"""

import asyncio
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from aiohttp import web

from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus
from tunnel_rs.net.http_listener import ConnectionLimits, HttpListener
from tunnel_rs.net.threads import in_thread
from tunnel_rs.reports import Reporter
from tunnel_rs.values import SocketAddr

MAX_CONNECTIONS = 16
DEADLINE = 10.0
"""Seconds a connection may last that does not know the path."""

_FILES: Mapping[str, tuple[str, str]] = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Ask = Callable[[], Sequence[Mapping[str, Any]]]
"""The status of every program that runs. May block."""


class StatusPage:
    """Serves on `address` between `start` and `close`."""

    def __init__(self, address: SocketAddr, ask: Ask) -> None:
        self._ask = ask
        self._secret = secrets.token_urlsafe(24)
        limits = ConnectionLimits(MAX_CONNECTIONS)
        self._listener = HttpListener(address, self._serve, limits=limits, deadline=DEADLINE)

    @property
    def url(self) -> str:
        """What to open, once started."""
        return f"http://{self._listener.bound}/{self._secret}/"

    async def start(self) -> None:
        """Raises LocalError when the address cannot be used."""
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        _, secret, *rest = request.path.split("/", 2)
        known = hmac.compare_digest(secret.encode("utf-8", "replace"), self._secret.encode())
        if not known or not rest or not self._is_for_us(request):
            return _answer(404, b"not found\n")
        if request.method not in ("GET", "HEAD"):
            return _answer(405, b"use GET\n")
        self._listener.lift_deadline(request)
        if rest[0] == "status.json":
            told = json.dumps(await in_thread(self._ask)).encode()
            return _answer(200, told, "application/json")
        if rest[0] in _FILES:
            name, kind = _FILES[rest[0]]
            return _answer(200, (files("tunnel_rs.cli") / "web" / name).read_bytes(), kind)
        return _answer(404, b"not found\n")

    def _is_for_us(self, request: web.BaseRequest) -> bool:
        """Whether the browser thinks it talks to us: a name that leads here (DNS rebinding) makes
        it think otherwise."""
        return request.host in (str(self._listener.bound), f"localhost:{self._listener.bound.port}")


async def serve_page(
    address: SocketAddr, ask: Ask, tell: Callable[[str], None], report: Reporter
) -> ExitStatus:
    """Serve until a signal; `tell` gets the URL. Raises LocalError when the address cannot be
    used."""
    page = StatusPage(address, ask)
    await page.start()
    tell(page.url)
    with StopSignals() as signals:
        forever = asyncio.Event().wait()
        return await run_until_signal(_wait(forever), page.close, signals, report, stop_time=2.0)


async def _wait(forever: Awaitable[object]) -> None:
    await forever


def _answer(
    status: int, body: bytes, kind: str = "text/plain; charset=utf-8"
) -> web.StreamResponse:
    return web.Response(status=status, body=body, headers={**_HEADERS, "Content-Type": kind})
