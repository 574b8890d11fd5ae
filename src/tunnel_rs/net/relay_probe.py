"""How far away a relay is (spec `relay.md` section 4)."""

import asyncio
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.proxy import environment_proxy
from tunnel_rs.net.relay_websocket import why
from tunnel_rs.proto.relay_addr import RelayUrl

PROBE_TIMEOUT = 3.0
_TRIES = 3


class RelayProbe(NamedTuple):
    """What a relay answered to a few small requests."""

    latency: float | None
    """Seconds, the best of a few; None without an answer."""

    problem: str
    """Why there was no (further) answer, in words; empty when all went well."""

    date: float | None = None
    """The relay's clock as its latest answer told it, in seconds since 1970."""


async def measure(relay: RelayUrl, session: aiohttp.ClientSession) -> float | None:
    """Seconds a small request to the relay takes, the best of a few; None without an answer.

    `session`: from `relay_session` or a face. The first request also opens the connection, so the
    later ones are what counts.
    """
    return (await probe(relay, session)).latency


async def probe(relay: RelayUrl, session: aiohttp.ClientSession) -> RelayProbe:
    """As `measure`, with the reason of a failure."""
    best: float | None = None
    date: float | None = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            for _ in range(_TRIES):
                latency, date = await _ask(relay, session)
                best = latency if best is None else min(best, latency)
    except TimeoutError:
        return RelayProbe(best, f"no answer within {PROBE_TIMEOUT:g} s", date)
    except (aiohttp.ClientError, ConfigError, OSError, ValueError) as error:
        return RelayProbe(best, why(error), date)
    return RelayProbe(best, "", date)


async def _ask(relay: RelayUrl, session: aiohttp.ClientSession) -> tuple[float, float | None]:
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
        return time() - began, _date(answer.headers.get("Date"))


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError, TypeError):
        return None
