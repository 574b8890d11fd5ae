"""Serving every link that comes to an endpoint, and closing it."""

import asyncio
import logging
from typing import Protocol

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.link import Link
from tunnel_rs.net.tasks import ScopeFullError, TaskScope

MAX_LINKS = 4096
"""Links served at a time. Those that are not authenticated are limited far below, by the server."""

CLOSE_TIME = 1.0
"""Seconds to tell the peers that we go; past it they find out by themselves."""

_BUSY = 3
"""Application close code for a link above the limit."""

_log = logging.getLogger("tunnel_rs")


class Acceptor(Protocol):
    """Where links come from."""

    async def accept(self) -> Link:
        """Raises LinkClosedError once closed."""


class Servant(Protocol):
    """What serves one link to its end."""

    async def serve(self, link: Link) -> None: ...


class Closable(Protocol):
    """What has to be closed in the end, whatever happened."""

    async def close(self, code: int = 0, reason: str = "done") -> None: ...


async def accept_links(endpoint: Acceptor, server: Servant, links: TaskScope) -> None:
    """Serve every link that comes, each in a task of its own, until the endpoint is closed."""
    while True:
        try:
            link = await endpoint.accept()
        except LinkClosedError:
            return
        try:
            links.spawn(server.serve(link), link.peer.short)
        except ScopeFullError:
            link.close(_BUSY, "busy")


async def close_in_time(endpoint: Closable) -> None:
    """Close, but do not wait for ever."""
    try:
        async with asyncio.timeout(CLOSE_TIME):
            await endpoint.close()
    except TimeoutError:
        _log.debug("closing took longer than %s s", CLOSE_TIME)
