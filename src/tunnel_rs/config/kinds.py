"""How a value is written: on the command line and in the environment (text), and in TOML.

A parser raises ValueError with a text that reads well after "where: " and never holds a secret.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Generic, TypeVar

from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.forward.settings import Network, Tunnel
from tunnel_rs.iroh.discovery_settings import NO_DISCOVERY, parse_pkarr_url
from tunnel_rs.proto.ice_servers import parse_stun_server
from tunnel_rs.proto.identity import decode_secret_key
from tunnel_rs.proto.policy import parse_network
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.tokens import check_token
from tunnel_rs.proto.transport_settings import CongestionController
from tunnel_rs.values import (
    EndpointId,
    HostPort,
    Protocol,
    Secret,
    SocketAddr,
    SourceUrl,
    quoted,
)

NO_RELAYS = "none"
"""The value of `--relay-url` that turns relays off."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_TOML_TYPES: Mapping[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "an array",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """One way to write a value.

    `expected` is what to write, for messages and for the documentation. `from_texts` takes every
    occurrence of a command-line option, at least one; a kind that is not `repeatable` gets one.
    """

    expected: str
    from_texts: Callable[[Sequence[str]], T_co]
    from_toml: Callable[[object], T_co]
    repeatable: bool = False
    switch: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a client listens; `protocol` is what an optional `tcp://` or `udp://` prefix said."""

    address: HostPort
    protocol: Protocol | None = None

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Read `host:port`, `tcp://host:port` or `udp://host:port`. Raises ValueError."""
        scheme, separator, rest = text.partition("://")
        if not separator:
            return cls(HostPort.parse(text, allow_port_zero=True))
        if scheme not in (Protocol.TCP, Protocol.UDP):
            raise ValueError(
                f"{quoted(text)} must be host:port, with tcp:// or udp:// before it at most"
            )
        return cls(HostPort.parse(rest, allow_port_zero=True), Protocol(scheme))

    def __str__(self) -> str:
        return f"{self.protocol}://{self.address}" if self.protocol else str(self.address)


def _toml_type(value: object) -> str:
    return _TOML_TYPES.get(type(value), "a date or time")


def _mismatch(expected: str, value: object) -> ValueError:
    return ValueError(f"expected {expected}, got {_toml_type(value)}")


def text(expected: str, parse: Callable[[str], T], *, secret: bool = False) -> Kind[T]:
    """A string in TOML, read by `parse`."""

    def from_toml(value: object) -> T:
        if not isinstance(value, str):
            raise _mismatch(f"a string ({expected})", value)
        return parse(value)

    return Kind(expected, lambda texts: parse(texts[-1]), from_toml, secret=secret)


def texts(expected: str, parse: Callable[[str], T], *, secret: bool = False) -> Kind[tuple[T, ...]]:
    """An array of strings in TOML, a repeated option on the command line."""

    def from_toml(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _mismatch(f"an array of strings ({expected})", value)
        return tuple(_item(number, item, parse, expected) for number, item in enumerate(value, 1))

    return Kind(
        expected,
        lambda given: tuple(map(parse, given)),
        from_toml,
        repeatable=True,
        secret=secret,
    )


def _item(number: int, value: object, parse: Callable[[str], T], expected: str) -> T:
    if not isinstance(value, str):
        raise _mismatch(f"a string ({expected}) as item {number}", value)
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"item {number}: {error}") from None


def one_or_more(expected: str, parse: Callable[[str], T]) -> Kind[tuple[T, ...]]:
    """One string in TOML, a repeated option on the command line."""
    single = text(expected, parse)
    return Kind(
        expected,
        lambda given: tuple(map(parse, given)),
        lambda value: (single.from_toml(value),),
        repeatable=True,
    )


def integer(low: int, high: int, unit: str = "") -> Kind[int]:
    """A whole number from `low` to `high`."""
    expected = f"a whole number{unit and ' of '}{unit} from {low} to {high}"

    def check(number: int) -> int:
        if not low <= number <= high:
            raise ValueError(f"{number} is not {expected}")
        return number

    def parse(given: str) -> int:
        if not (given.isascii() and given.removeprefix("-").isdigit()) or len(given) > 20:
            raise ValueError(f"{quoted(given)} is not {expected}")
        return check(int(given))

    def from_toml(value: object) -> int:
        if type(value) is not int:
            raise _mismatch(expected, value)
        return check(value)

    return Kind(expected, lambda given: parse(given[-1]), from_toml)


def seconds(low: float, high: float) -> Kind[float]:
    """A number of seconds from `low` to `high`."""
    expected = f"a number of seconds from {low:g} to {high:g}"

    def check(number: float) -> float:
        if not isfinite(number) or not low <= number <= high:
            raise ValueError(f"{number:g} is not {expected}")
        return float(number)

    def parse(given: str) -> float:
        try:
            return check(float(given))
        except ValueError:
            raise ValueError(f"{quoted(given)} is not {expected}") from None

    def from_toml(value: object) -> float:
        if type(value) is not int and type(value) is not float:
            raise _mismatch(expected, value)
        return check(value)

    return Kind(expected, lambda given: parse(given[-1]), from_toml)


def _read_switch(given: str) -> bool:
    if given not in ("true", "false"):
        raise ValueError(f"{quoted(given)} is not true or false")
    return given == "true"


def _switch_from_toml(value: object) -> bool:
    if not isinstance(value, bool):
        raise _mismatch("true or false", value)
    return value


SWITCH = Kind(
    "true or false", lambda given: _read_switch(given[-1]), _switch_from_toml, switch=True
)


def _parse_path(given: str) -> Path:
    if not given or "\0" in given:
        raise ValueError("a file name is needed, this is empty or holds a NUL")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise ValueError(f"{quoted(given)}: the home directory in it is not known") from None


def _parse_congestion_controller(given: str) -> CongestionController:
    spelling = {"new_reno": "newreno"}.get(given, given)
    if spelling == CongestionController.BBR:
        raise ValueError("'bbr' is not available in this version; use 'cubic' or 'newreno'")
    known = [name.value for name in CongestionController if name != CongestionController.BBR]
    if spelling not in known:
        raise ValueError(
            f"{quoted(given)} is not one of {', '.join(known)}{did_you_mean(given, known)}"
        )
    return CongestionController(spelling)


def _parse_dns_server(given: str) -> str:
    return given if given == NO_DISCOVERY else parse_pkarr_url(given)


def _parse_relay(given: str) -> RelayUrl | None:
    return None if given == NO_RELAYS else RelayUrl.parse(given)


def _parse_relay_token(given: str) -> Secret[str]:
    if not given.isascii() or not given.isprintable() or " " in given or not given:
        raise ValueError("an access token has only visible ASCII characters")
    return Secret(given)


def _any_text(_: str) -> bool:
    return True


def _tunnels_from_toml(value: object) -> tuple[Tunnel, ...]:
    if not isinstance(value, list):
        raise _mismatch("an array of tables with source and target", value)
    return tuple(_tunnel(number, entry) for number, entry in enumerate(value, 1))


def _tunnel(number: int, entry: object) -> Tunnel:
    place = f"tunnel {number}"
    if not isinstance(entry, dict):
        raise _mismatch(f"a table with source and target as {place}", entry)
    for key in entry:
        if key not in ("source", "target"):
            hint = did_you_mean(key, ("source", "target"))
            raise ValueError(f"{place}: unknown key {quoted(key)}{hint}")
    for key in ("source", "target"):
        if key not in entry:
            raise ValueError(f"{place}: {key} is missing")
    try:
        source = SOURCE.from_toml(entry["source"])
    except ValueError as error:
        raise ValueError(f"{place}, source: {error}") from None
    try:
        target = pair(source, LISTEN_ADDRESS.from_toml(entry["target"]))
    except ValueError as error:
        raise ValueError(f"{place}, target: {error}") from None
    return target


def pair(source: SourceUrl, target: ListenAddress) -> Tunnel:
    """Join what to reach and where to listen. Raises ValueError when their protocols differ."""
    if target.protocol not in (None, source.protocol):
        raise ValueError(f"{target} and the source {source} differ in protocol; make them the same")
    return Tunnel(source, target.address)


def _no_texts(_: Sequence[str]) -> tuple[Tunnel, ...]:
    raise ValueError("tunnels are written in a file; use --source and --target here")


FILE = text("a file name", _parse_path)
SECRET_KEY = text("the base64 text of a 32-byte key", decode_secret_key, secret=True)
TOKEN = text("a token of 18 characters", check_token, secret=True)
TOKENS = texts("a token of 18 characters", check_token, secret=True)
ENDPOINT_ID = text("64 hex digits or 52 base32 characters", EndpointId.parse)
CLIENT_IDS = texts("64 hex digits or 52 base32 characters", EndpointId.parse)
SOURCE = text("tcp://host:port or udp://host:port", SourceUrl.parse)
SOURCES = one_or_more("tcp://host:port or udp://host:port", SourceUrl.parse)
LISTEN_ADDRESS = text("host:port", ListenAddress.parse)
LISTEN_ADDRESSES = one_or_more("host:port", ListenAddress.parse)
HOST_PORT = text("host:port", lambda given: HostPort.parse(given, allow_port_zero=True))
NETWORKS: Kind[tuple[Network, ...]] = texts("an IPv4 or IPv6 network", parse_network)
BIND_ADDRESS = text("ip:port", lambda given: SocketAddr.parse(given, allow_port_zero=True))
PEER_ADDRESSES = texts("ip:port", SocketAddr.parse)
STUN_SERVERS = texts("host:port", parse_stun_server)
CONGESTION_CONTROLLER = text("cubic or newreno", _parse_congestion_controller)
DNS_SERVER = text("a URL like https://host/pkarr, or none", _parse_dns_server)
RELAYS = texts("https://host[:port], or none", _parse_relay)
RELAY_TOKEN = text("visible ASCII characters", _parse_relay_token, secret=True)
FORCED = text("any text", _any_text)
TUNNELS = Kind("tables with source and target", _no_texts, _tunnels_from_toml, repeatable=True)
