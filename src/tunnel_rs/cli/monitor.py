"""A small HTTP server for monitoring: /metrics, /healthz and /readyz."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from tunnel_rs.cli.metrics import metrics
from tunnel_rs.net.http_listener import ConnectionLimits, HttpListener
from tunnel_rs.proto.prometheus import CONTENT_TYPE
from tunnel_rs.reports import ProgramStatus
from tunnel_rs.values import SocketAddr

MAX_CONNECTIONS = 32
DEADLINE = 30.0
"""Seconds a connection may last."""


class Monitor:
    """Serves on `address` between `start` and `close`."""

    def __init__(self, address: SocketAddr, status: Callable[[], ProgramStatus]) -> None:
        self._status = status
        limits = ConnectionLimits(MAX_CONNECTIONS)
        self._listener = HttpListener(address, self._serve, limits=limits, deadline=DEADLINE)

    @property
    def address(self) -> SocketAddr:
        """Where it listens; the real port once started."""
        return self._listener.bound

    async def start(self) -> None:
        """Raises LocalError when the address cannot be used."""
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0)  # a program that is alive turns its event loop
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="use GET\n")
        if request.path == "/metrics":
            body = metrics(self._status()).encode()
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
        if request.path == "/healthz":
            return web.Response(text="alive\n")
        if request.path == "/readyz":
            return self._readiness()
        return web.Response(status=404, text="there are /metrics, /healthz and /readyz\n")

    def _readiness(self) -> web.Response:
        status = self._status()
        text = f"{status.state}: {status.reason}" if status.reason else status.state
        return web.Response(status=200 if status.state == "ready" else 503, text=f"{text}\n")
