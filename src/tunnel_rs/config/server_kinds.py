"""How values in the files of the self-hosted servers are written; see `kinds` for the rules."""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import isfinite

from tunnel_rs.config import kinds
from tunnel_rs.config.kinds import Kind
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.values import EndpointId, Secret, check_host, quoted

_UNITS: Mapping[str, float] = {
    "ms": 0.001,
    "msec": 0.001,
    "s": 1,
    "sec": 1,
    "second": 1,
    "seconds": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hr": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86_400,
    "day": 86_400,
    "days": 86_400,
    "w": 604_800,
    "week": 604_800,
    "weeks": 604_800,
}
_PART = re.compile(r"(\d{1,12})\s*([a-z]+)\s*")
_MAX_TOKEN = 1024
_MAX_LISTED = 10_000


def number(low: float, high: float, unit: str) -> Kind[float]:
    """A number, whole or not, from `low` to `high`."""
    expected = f"a number of {unit} from {low:g} to {high:g}"

    def check(given: float) -> float:
        if not isfinite(given) or not low <= given <= high:
            raise ValueError(f"{given:g} is not {expected}")
        return float(given)

    def from_toml(value: object) -> float:
        if type(value) is not int and type(value) is not float:
            raise ValueError(f"expected {expected}")
        return check(value)

    return Kind(expected, lambda texts: check(float(texts[-1])), from_toml)


def duration(low: float, high: float) -> Kind[float]:
    """Seconds: a number, or text such as `90s`, `7d` or `1h 30m`, from `low` to `high` seconds."""
    expected = f"seconds, or text like '90s' or '7d', from {low:g} to {high:g} s"

    def check(seconds: float) -> float:
        if not isfinite(seconds) or not low <= seconds <= high:
            raise ValueError(f"{seconds:g} s is not from {low:g} to {high:g} s")
        return float(seconds)

    def from_toml(value: object) -> float:
        if isinstance(value, str):
            return check(parse_duration(value))
        if type(value) is not int and type(value) is not float:
            raise ValueError(f"expected {expected}")
        return check(value)

    return Kind(expected, lambda texts: check(parse_duration(texts[-1])), from_toml)


def parse_duration(text: str) -> float:
    """Seconds of `7d`, `1h 30m`, `100ms`. Raises ValueError."""
    rest, seconds = text.strip(), 0.0
    if not rest or len(rest) > 100:
        raise ValueError(f"{quoted(text)} is not a duration like '90s' or '7d'")
    while rest:
        found = _PART.match(rest)
        if found is None or found[2] not in _UNITS:
            raise ValueError(f"{quoted(text)} is not a duration like '90s' or '7d'")
        seconds += int(found[1]) * _UNITS[found[2]]
        rest = rest[found.end() :]
    return seconds


def choice(*words: str) -> Kind[str]:
    """One of some words."""
    expected = " or ".join(words)

    def parse(given: str) -> str:
        if given not in words:
            raise ValueError(f"{quoted(given)} is not {expected}{did_you_mean(given, words)}")
        return given

    return kinds.text(expected, parse)


def bounded(kind: Kind[tuple[kinds.T, ...]]) -> Kind[tuple[kinds.T, ...]]:
    """A list of at most 10,000 items."""

    def from_toml(value: object) -> tuple[kinds.T, ...]:
        if isinstance(value, list) and len(value) > _MAX_LISTED:
            raise ValueError(f"{len(value)} items; {_MAX_LISTED:,} is the limit")
        return kind.from_toml(value)

    return Kind(kind.expected, kind.from_texts, from_toml, repeatable=True, secret=kind.secret)


def one_or_list(expected: str, parse: Callable[[str], kinds.T]) -> Kind[tuple[kinds.T, ...]]:
    """A string or an array of strings."""
    single, several = kinds.text(expected, parse), kinds.texts(expected, parse)

    def from_toml(value: object) -> tuple[kinds.T, ...]:
        return (single.from_toml(value),) if isinstance(value, str) else several.from_toml(value)

    return Kind(expected, several.from_texts, from_toml, repeatable=True)


def _parse_token(given: str) -> Secret[str]:
    if not given or len(given) > _MAX_TOKEN or not given.isascii() or not given.isprintable():
        raise ValueError("a token is 1 to 1024 visible ASCII characters")
    return Secret(given)


def _parse_host(given: str) -> str:
    check_host(given)
    return given


def _parse_url(given: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[!-~]*)?", given) or not given.isascii():
        raise ValueError(f"{quoted(given)} is not a URL like https://host/path")
    return given


def _parse_ipv4(given: str) -> IPv4Address:
    address = ip_address(given)
    if not isinstance(address, IPv4Address):
        raise ValueError(f"{given} is not an IPv4 address")
    return address


def _parse_ipv6(given: str) -> IPv6Address:
    address = ip_address(given)
    if not isinstance(address, IPv6Address):
        raise ValueError(f"{given} is not an IPv6 address")
    return address


def _parse_ip(given: str) -> IPv4Address | IPv6Address:
    return ip_address(given)


ENDPOINT_IDS = bounded(kinds.texts("64 hex digits or 52 base32 characters", EndpointId.parse))
SHARED_TOKEN = kinds.text("a token", _parse_token, secret=True)
SHARED_TOKENS = bounded(kinds.texts("a token", _parse_token, secret=True))
HOST_NAMES = one_or_list("a host name", _parse_host)
URL = kinds.text("an http or https URL", _parse_url)
IP = kinds.text("an IP address", _parse_ip)
IPV4 = kinds.text("an IPv4 address", _parse_ipv4)
IPV6 = kinds.text("an IPv6 address", _parse_ipv6)
TEXT = kinds.text("text", str)
TEXTS = kinds.texts("text", str)
PORT = kinds.integer(0, 65_535)
