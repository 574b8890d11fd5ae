"""PUT and GET of signed packets (spec `discovery.md` section 3)."""

import os
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from tunnel_rs.errors import ConfigError, ProtocolError, UnreachableError
from tunnel_rs.net.marked_http import connector
from tunnel_rs.net.proxy import environment_proxy
from tunnel_rs.proto.pkarr import MAX_PAYLOAD, SignedPacket
from tunnel_rs.values import EndpointId

REQUEST_TIMEOUT = 10.0
_MAX_DETAIL = 200


class PkarrClient:
    """Talks to one pkarr relay, through the HTTP proxy of the environment if there is one.

    Make it inside the event loop and close it (or use it as an async context manager).
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: Path | None = None,
        mark: int | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        """`base_url` as `parse_pkarr_url` gives it; `mark`: see `EndpointSettings`. Raises
        ConfigError for a bad CA file."""
        self.base_url = base_url
        self._timeout = timeout
        self._session = aiohttp.ClientSession(
            connector=connector(mark, ssl=_tls_context(ca_file), limit=8),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=timeout),
            auto_decompress=False,
        )

    async def put(self, packet: SignedPacket) -> None:
        """Publish. Raises UnreachableError saying why it was not accepted, ConfigError for a proxy
        that makes no sense."""
        await self._exchange("PUT", packet.endpoint_id, packet.payload)

    async def get(self, endpoint_id: EndpointId) -> SignedPacket | None:
        """The verified packet of an endpoint, None if the server has none. Raises UnreachableError,
        ProtocolError for an answer that the endpoint has not signed, ConfigError as `put`."""
        payload = await self._exchange("GET", endpoint_id, None)
        return None if payload is None else SignedPacket.from_payload(endpoint_id, payload)

    async def _exchange(
        self, method: str, endpoint_id: EndpointId, body: bytes | None
    ) -> bytes | None:
        url = f"{self.base_url}/{endpoint_id.z32}"
        proxy = environment_proxy(url)
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
            ) as response:
                if method == "GET" and response.status == 404:
                    return None
                if not 200 <= response.status < 300:
                    raise UnreachableError(f"{self.base_url}: {await _refusal(response)}")
                return await _read_payload(response) if method == "GET" else b""
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnreachableError(f"{self.base_url}: {self._why(error)}") from None

    def _why(self, error: Exception) -> str:
        """Why there was no answer, in one line."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            cause = error.certificate_error
            return f"its certificate is not trusted: {getattr(cause, 'verify_message', cause)}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "its name cannot be resolved"
        if isinstance(error, aiohttp.ClientConnectorError):
            code = error.os_error.errno
            return os.strerror(code) if code and code > 0 else _printable(str(error.os_error))
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return f"the proxy refused with HTTP status {error.status}"
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return "it closed the connection without an answer"
        return _printable(str(error)) or type(error).__name__

    async def close(self) -> None:
        """Idempotent."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its first `limit` + 1 bytes when there are more."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            response.close()
            break
    return bytes(body[: limit + 1])


async def _read_payload(response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ProtocolError("pkarr server: an encoded answer that was not asked for")
    return await _read_limited(response, MAX_PAYLOAD)


async def _refusal(response: aiohttp.ClientResponse) -> str:
    status = f"HTTP status {response.status}"
    if response.status in (301, 302, 303, 307, 308):
        where = _printable(response.headers.get("Location", ""))
        return f"{status}, redirected to {where!r}; name that URL instead"
    detail = _printable((await _read_limited(response, _MAX_DETAIL)).decode("utf-8", "replace"))
    return f"{status} {detail}".rstrip()


def _printable(text: str) -> str:
    """A stranger's text as it may be shown: one line, bounded, no control characters."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_DETAIL]).strip()


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise ConfigError(f"discovery CA file {ca_file}: no PEM certificates in it") from None
        except OSError as error:
            raise ConfigError(f"discovery CA file {ca_file}: {error.strerror}") from None
    return context
