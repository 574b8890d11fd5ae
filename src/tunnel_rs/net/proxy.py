"""HTTP proxies named by the environment (`https_proxy`, `http_proxy`, `no_proxy`).

aiohttp's own `trust_env` is not used: it would also take credentials from ~/.netrc and send them
to relays, and it fails when a request carries an Authorization header besides.
"""

import base64
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from tunnel_rs.errors import ConfigError


class HttpProxy(NamedTuple):
    """A proxy to go through. `headers` may hold its password: never show them."""

    url: str
    headers: dict[str, str]


def environment_proxy(url: str) -> HttpProxy | None:
    """The proxy for an http or https URL, None for a direct connection. Raises ConfigError."""
    parts = urlsplit(url)
    text = getproxies().get(parts.scheme)
    if not text or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    variable = f"{parts.scheme}_proxy"
    try:
        proxy = urlsplit(text if "://" in text else f"http://{text}")
        host, port = proxy.hostname, proxy.port
    except ValueError:
        raise ConfigError(f"{variable} in the environment is not a URL") from None
    if proxy.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{variable} in the environment must be http://host:port")
    place = f"[{host}]" if ":" in host else host
    return HttpProxy(
        f"{proxy.scheme}://{place}:{port or (443 if proxy.scheme == 'https' else 80)}",
        _credentials(proxy.username, proxy.password),
    )


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode()}
