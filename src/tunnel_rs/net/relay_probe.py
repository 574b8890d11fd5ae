"""How far away a relay is (spec `relay.md` section 4)."""

import asyncio

import aiohttp

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.proxy import environment_proxy
from tunnel_rs.proto.relay_addr import RelayUrl

PROBE_TIMEOUT = 3.0
_TRIES = 3


async def measure(relay: RelayUrl, session: aiohttp.ClientSession) -> float | None:
    """Seconds a small request to the relay takes, the best of a few; None without an answer.

    `session`: from `relay_session` or a face. The first request also opens the connection, so the
    later ones are what counts.
    """
    best: float | None = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            for _ in range(_TRIES):
                latency = await _ask(relay, session)
                best = latency if best is None else min(best, latency)
    except (aiohttp.ClientError, ConfigError, TimeoutError, OSError, ValueError):
        pass
    return best


async def _ask(relay: RelayUrl, session: aiohttp.ClientSession) -> float:
    proxy = environment_proxy(relay.ping_url)
    time = asyncio.get_running_loop().time
    began = time()
    async with session.get(
        relay.ping_url,
        allow_redirects=False,
        proxy=proxy.url if proxy else None,
        proxy_headers=proxy.headers if proxy else None,
    ) as answer:
        if not 200 <= answer.status < 300:
            raise aiohttp.ClientError(f"HTTP status {answer.status}")
        return time() - began
