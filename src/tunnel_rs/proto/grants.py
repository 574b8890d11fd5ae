"""What the holder of a token or key may do, and for how long: options behind it on its line.

    iabcdefghijklmnopg  name=alice expires=2027-01-31 tcp=10.0.0.0/8:22,*:443 udp=none
    iZ9-_.Z9-_.Z9-_.ZU  name=backup max-sessions=4 bandwidth=20mbit

A grant narrows what the server allows and never widens it. No error here quotes what may be a
token by mistake: two on one line are the likeliest one.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address

from tunnel_rs.proto.policy import Network, parse_network
from tunnel_rs.values import Protocol, quoted

MAX_NAME = 64
MAX_RULES = 256
"""Networks of one grant: each is looked at for each request."""

MAX_SESSIONS = 100_000
MIN_BANDWIDTH, MAX_BANDWIDTH = 1_000, 125_000_000_000
"""Bytes a second: 8 kbit/s to 1 Tbit/s."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(kbit|mbit|gbit)", re.IGNORECASE | re.ASCII)
_BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_OPTION = re.compile(r"[a-z_-]{1,15}", re.IGNORECASE | re.ASCII)
"""What is safe to quote: shorter than a token."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Addresses of `network` (None: all) at ports from `first` to `last`."""

    network: Network | None
    first: int = 1
    last: int = 65_535

    def covers(self, ip: str, port: int) -> bool:
        """`ip` is an address in canonical text, an IPv4-mapped one as IPv4."""
        if not self.first <= port <= self.last:
            return False
        return self.network is None or ip_address(ip) in self.network


Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """None means: no limit beside the server's own."""

    name: str = ""
    """For people, in logs and in the audit log."""

    expires: float | None = None
    """Seconds since 1970 from which on it is worth nothing."""

    tcp: Rules | None = None
    udp: Rules | None = None
    max_sessions: int | None = None
    """Over all connections of all who show it."""

    bandwidth: float | None = None
    """Bytes a second, each way, over all sessions of all who show it."""

    def rules(self, protocol: Protocol) -> Rules | None:
        return self.tcp if protocol is Protocol.TCP else self.udp

    def permitted(self, protocol: Protocol, ips: Iterable[str], port: int) -> list[str]:
        """Those of `ips`, which the server allows, that this grant allows too."""
        rules = self.rules(protocol)
        if rules is None:
            return list(ips)
        return [ip for ip in ips if any(rule.covers(ip, port) for rule in rules)]

    def has_expired(self, wall: float) -> bool:
        """`wall` is in seconds since 1970."""
        return self.expires is not None and wall >= self.expires


UNLIMITED = Grant()


def parse_grant(words: Sequence[str]) -> Grant:
    """The options behind a token or key. Raises ValueError saying what is wrong with which."""
    found: dict[str, object] = {}
    for word in words:
        key, value = _split(word)
        field, parse = _READERS[key]
        if field in found:
            raise ValueError(f"{key} is given twice; keep one of them")
        if not value:
            raise ValueError(f"{key} has no value; write {_EXAMPLES[key]}")
        try:
            found[field] = parse(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    if "tcp" in found or "udp" in found:
        # Who lists what may be reached means that the rest may not.
        found = {"tcp": (), "udp": (), **found}
    return Grant(**found)  # type: ignore[arg-type]


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    known = ", ".join(_READERS)
    if not equals:
        what = quoted(key) if _OPTION.fullmatch(key) else "something"
        if key in _READERS:
            raise ValueError(f"{key} has no value; write {_EXAMPLES[key]}, without blanks")
        raise ValueError(
            f"{what} where an option is expected; write one token a line, then options like "
            f"{_EXAMPLES['name']} ({known}), and comments behind #"
        )
    if key in _READERS:
        return key, value
    spelling = key.lower().replace("_", "-")
    if spelling in _READERS and _OPTION.fullmatch(key):
        raise ValueError(f"unknown option {quoted(key)}; did you mean {spelling}?")
    what = f"unknown option {quoted(key)}" if _OPTION.fullmatch(key) else "an unknown option"
    raise ValueError(f"{what}; there are {known}")


def _parse_name(text: str) -> str:
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise ValueError(
            f"a name has 1 to {MAX_NAME} letters, digits and . _ - @ +, and begins with one of the "
            "first two"
        )
    return text


def _parse_expiry(text: str) -> float:
    """The end of a day, UTC, or a moment with its offset."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            end = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return (end + timedelta(days=1)).timestamp()
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{quoted(text)} is not a date like 2027-01-31 (the last day, UTC) or a time like "
            "2027-01-31T18:00Z"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"{quoted(text)} has no time zone; add Z for UTC, or an offset: +02:00")
    return moment.timestamp()


def _parse_rules(text: str) -> Rules:
    if text == "none":
        return ()
    entries = text.split(",")
    if len(entries) > MAX_RULES:
        raise ValueError(f"{len(entries)} networks; {MAX_RULES} is the limit")
    return tuple(map(_parse_rule, entries))


def _parse_rule(text: str) -> Rule:
    """`network`, `network:port`, `network:port-port`; `*` is every network, IPv6 networks with a
    port stand in brackets."""
    if not text:
        raise ValueError("an entry is empty; write networks with one comma between them, no blanks")
    network, ports = text, ""
    if text.startswith("["):
        network, bracket, ports = text[1:].partition("]:")
        if not bracket or ":" not in network:
            raise ValueError(f"{quoted(text)}: write an IPv6 network with ports as [fd00::/8]:443")
    elif text.count(":") == 1:
        network, _, ports = text.partition(":")
        if not ports:
            raise ValueError(f"{quoted(text)}: the port behind the colon is missing")
    first, last = _parse_ports(ports) if ports else (1, 65_535)
    return Rule(None if network == "*" else parse_network(network), first, last)


def _parse_ports(text: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(text)
    if found is None:
        raise ValueError(f"{quoted(text)} is no port, nor ports like 8000-8099")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f"ports {quoted(text)} are not from 1 to 65535, the lower one first")
    return first, last


def _parse_max_sessions(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_SESSIONS:
        raise ValueError(f"{quoted(text)} is not a whole number from 1 to {MAX_SESSIONS}")
    return int(text)


def _parse_bandwidth(text: str) -> float:
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{quoted(text)} is not a number of bits a second with its unit: 500kbit, 20mbit, 1gbit"
        )
    rate = float(found[1]) * _BITS[found[2].lower()] / 8
    if not MIN_BANDWIDTH <= rate <= MAX_BANDWIDTH:
        raise ValueError(f"{quoted(text)} is not from 8kbit to 1000gbit")
    return rate


_READERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "name": ("name", _parse_name),
    "expires": ("expires", _parse_expiry),
    "tcp": ("tcp", _parse_rules),
    "udp": ("udp", _parse_rules),
    "max-sessions": ("max_sessions", _parse_max_sessions),
    "bandwidth": ("bandwidth", _parse_bandwidth),
}
_EXAMPLES: Mapping[str, str] = {
    "name": "name=alice",
    "expires": "expires=2027-01-31",
    "tcp": "tcp=10.0.0.0/8:22",
    "udp": "udp=none",
    "max-sessions": "max-sessions=10",
    "bandwidth": "bandwidth=20mbit",
}


def unreachable_rule(rules: Rules | None, allowed: Sequence[Network]) -> Rule | None:
    """A rule that allows nothing, as none of the server's networks overlaps it; None when each
    may have an effect."""
    for rule in rules or ():
        if rule.network is not None and not any(_overlap(rule.network, net) for net in allowed):
            return rule
    return None


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)
