"""The WebSocket to a relay: TLS, proxy, access token, and what can go wrong in words
(spec `relay.md` section 1)."""

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.marked_http import connector
from tunnel_rs.net.proxy import environment_proxy
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.relay_client import DIAL_TIMEOUT, Failed
from tunnel_rs.proto.relay_frames import MAX_MESSAGE
from tunnel_rs.proto.relay_handshake import SUBPROTOCOL_OFFER, printable
from tunnel_rs.values import Secret

_CONNECT_TIMEOUT = 4.0
"""Seconds for TCP and TLS to one address, so that a dead one leaves time for the next."""
_CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class RelayClientSettings:
    """How relays are reached."""

    ca_file: Path | None = None
    """PEM file of certificate authorities trusted besides the system's."""

    token: Secret[str] | None = None
    """Access token for every relay whose URL carries none."""

    offer: str = SUBPROTOCOL_OFFER
    """WebSocket subprotocols offered, newest first; anything else is for tests of old relays."""

    mark: int | None = None
    """Mark of our own packets; see `EndpointSettings`."""


class RelayWebSocket(aiohttp.ClientWebSocketResponse):
    """A client WebSocket that knows the subprotocol the relay chose.

    aiohttp only knows it for offers that it wrote itself, and it would write ours without the
    blank that old relays need.
    """

    def __init__(
        self, reader: Any, writer: Any, protocol: str | None, response: Any, *args: Any, **kw: Any
    ) -> None:
        super().__init__(reader, writer, protocol, response, *args, **kw)
        self.chosen_protocol: str | None = response.headers.get("Sec-WebSocket-Protocol")


def relay_session(settings: RelayClientSettings) -> aiohttp.ClientSession:
    """The HTTP session all relay clients of an endpoint share; to be closed by who made it.

    Raises ConfigError when the CA file cannot be used.
    """
    return aiohttp.ClientSession(
        connector=connector(
            settings.mark,
            ssl=_tls_context(settings.ca_file),
            limit=0,
            happy_eyeballs_delay=0.25,
            ttl_dns_cache=10,
        ),
        ws_response_class=RelayWebSocket,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
    )


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or "not PEM certificates"
            raise ConfigError(f"relay_ca_file {ca_file}: {reason}") from None
    return context


def why(error: Exception) -> str:
    """Why dialling failed, in one line."""
    if isinstance(error, TimeoutError):
        return f"no answer within {DIAL_TIMEOUT:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f"its certificate is not trusted: {getattr(cause, 'verify_message', cause)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.os_error.errno
        return os.strerror(code) if code and code > 0 else printable(str(error.os_error))
    if isinstance(error, aiohttp.ClientResponseError):
        return f"answered HTTP status {error.status} instead of opening a WebSocket"
    return printable(str(error)) or type(error).__name__


async def dial(
    relay: RelayUrl, session: aiohttp.ClientSession, settings: RelayClientSettings
) -> RelayWebSocket:
    """Open the WebSocket. Raises aiohttp.ClientError, ConfigError, OSError or ValueError, which
    `why` turns into words."""
    token = relay.token or settings.token
    headers = {"Sec-WebSocket-Protocol": settings.offer}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.reveal()}"
    proxy = environment_proxy(relay.endpoint)
    websocket = await session.ws_connect(
        relay.endpoint,
        headers=headers,
        max_msg_size=MAX_MESSAGE,
        compress=0,
        timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT),
        proxy=proxy.url if proxy else None,
        proxy_headers=proxy.headers if proxy else None,
    )
    assert isinstance(websocket, RelayWebSocket)
    return websocket


class Ended(Exception):
    """The connection is over, for a reason that is known."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.reason)
        self.failure = failure


async def next_message(websocket: RelayWebSocket) -> bytes:
    """The next binary message; text is ignored. Raises Ended when there will be no more."""
    while True:
        message = await websocket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is not aiohttp.WSMsgType.TEXT:
            break
    error = websocket.exception()
    reason = f": {printable(str(error))}" if error is not None and str(error) else ""
    raise Ended(Failed(f"the relay closed the connection{reason}"))


async def hang_up(websocket: RelayWebSocket) -> None:
    """Close politely, but do not wait for a relay that is stuck."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await websocket.close()
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
