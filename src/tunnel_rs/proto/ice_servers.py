"""Addresses of STUN and TURN servers as users write them (in the manner of RFC 7064, RFC 7065)."""

from dataclasses import dataclass
from enum import StrEnum

from tunnel_rs.values import HostPort, Secret, quoted

STUN_PORT = 3478
TURNS_PORT = 5349

DEFAULT_STUN_SERVERS = (
    HostPort("stun.l.google.com", 19302),
    HostPort("stun1.l.google.com", 19302),
)


class TurnTransport(StrEnum):
    """How a TURN server is spoken to."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class TurnServer:
    """A relay (RFC 8656) with long-term credentials. Its text form hides the password."""

    address: HostPort
    username: str
    password: Secret[str]
    transport: TurnTransport = TurnTransport.UDP

    def __str__(self) -> str:
        scheme = "turns" if self.transport is TurnTransport.TLS else "turn"
        query = "?transport=tcp" if self.transport is TurnTransport.TCP else ""
        return f"{scheme}:{self.username}:***@{self.address}{query}"


def parse_stun_server(text: str) -> HostPort:
    """Read `host`, `host:port` or `stun:host:port`. Raises ValueError."""
    return _address(text.removeprefix("stun:"), STUN_PORT)


def parse_turn_server(text: str) -> TurnServer:
    """Read `turn:user:password@host[:port][?transport=udp|tcp]`, or `turns:` for TLS. The password
    may hold any character; the last @ ends it. Raises ValueError, which never holds a secret."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in ("turn", "turns"):
        raise ValueError("a TURN server is written turn:user:password@host:port")
    credentials, at, place = rest.rpartition("@")
    username, colon, password = credentials.partition(":")
    if not at or not username or not password:
        raise ValueError("the TURN server needs a user and a password, turn:user:password@host")
    where, _, query = place.partition("?")
    port = TURNS_PORT if scheme == "turns" else STUN_PORT
    return TurnServer(_address(where, port), username, Secret(password), _transport(scheme, query))


def _transport(scheme: str, query: str) -> TurnTransport:
    if scheme == "turns":
        if query not in ("", "transport=tcp"):
            raise ValueError("turns: is TLS over TCP; leave out what follows the ?")
        return TurnTransport.TLS
    name, equals, value = query.partition("=")
    if not query:
        return TurnTransport.UDP
    if name != "transport" or not equals or value not in ("udp", "tcp"):
        raise ValueError(f"{quoted('?' + query)}: only ?transport=udp or ?transport=tcp is known")
    return TurnTransport(value)


def _address(text: str, port: int) -> HostPort:
    has_port = "]:" in text if text.startswith("[") else ":" in text
    return HostPort.parse(text if has_port else f"{text}:{port}")
