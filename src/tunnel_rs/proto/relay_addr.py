"""Where a peer is reached through a relay: the relay's URL and the peer's id."""

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tunnel_rs.values import EndpointId, HostPort, Secret

_DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 2048


class RelayAddr(NamedTuple):
    """A datagram address behind a relay. `url` is in the normal form of `RelayUrl.text`."""

    url: str
    endpoint_id: EndpointId

    def __str__(self) -> str:
        return f"{self.endpoint_id.short} via {self.url}"


class RelayUrl(NamedTuple):
    """A relay as a user names it.

    `text` is its identity: scheme, lower-case host, port unless it is the default, path; the
    access token, given as `?token=`, is kept apart so that it is never shown or published.
    """

    text: str
    token: Secret[str] | None = None

    @classmethod
    def parse(cls, text: str) -> "RelayUrl":
        """Read `https://host[:port][/][?token=T]` or the same with http. Raises ValueError, whose
        text does not repeat the token."""
        shown = text.partition("?")[0]
        if len(text) > MAX_URL:
            raise ValueError(f"a relay URL of {len(text)} characters; {MAX_URL} is the limit")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(f"{shown!r} is not a URL") from None
        _check_parts(parts, shown)
        host = parts.hostname or ""
        default = _DEFAULT_PORTS[parts.scheme]
        HostPort.parse(
            f"[{host}]:{port or default}" if ":" in host else f"{host}:{port or default}"
        )
        bracketed = f"[{host}]" if ":" in host else host
        place = bracketed if port in (None, default) else f"{bracketed}:{port}"
        return cls(f"{parts.scheme}://{place}{parts.path or '/'}", _token(parts, shown))

    @property
    def is_encrypted(self) -> bool:
        return self.text.startswith("https:")

    @property
    def endpoint(self) -> str:
        """Where the WebSocket is opened: the path is always replaced."""
        return self._origin + "/relay"

    @property
    def ping_url(self) -> str:
        """What is fetched to measure the latency."""
        return self._origin + "/ping"

    @property
    def _origin(self) -> str:
        parts = urlsplit(self.text)
        return f"{parts.scheme}://{parts.netloc}"

    def __str__(self) -> str:
        return self.text


def _check_parts(parts: SplitResult, shown: str) -> None:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{shown!r} must start with https:// or http://")
    if not parts.hostname:
        raise ValueError(f"{shown!r} has no host")
    if "@" in parts.netloc:
        raise ValueError("a relay URL holds no user name or password; use ?token= for a token")
    if parts.fragment:
        raise ValueError(f"{shown!r} ends in a fragment (#...); leave it out")
    if parts.port == 0:
        raise ValueError(f"{shown!r}: port 0 cannot be connected to")


def _token(parts: SplitResult, shown: str) -> Secret[str] | None:
    fields = parse_qsl(parts.query, keep_blank_values=True)
    if not fields:
        return None
    if len(fields) > 1 or fields[0][0] != "token" or not fields[0][1]:
        raise ValueError(f"{shown!r}: the only parameter a relay URL may have is one token=")
    return Secret(fields[0][1])
