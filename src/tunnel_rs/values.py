"""Frozen values that every layer speaks of."""

import base64
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

Buffer = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview has items of one byte."""

_MAX_QUOTED = 64

_HEX_DIGITS = frozenset("0123456789abcdef")
_BASE_32_DIGITS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_Z_BASE_32 = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "ybndrfg8ejkmcpqxot1uwisza345h769")

# Curve25519's field and Edwards constant (RFC 8032 section 5.1).
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P

T = TypeVar("T", str, bytes)


def quoted(text: str) -> str:
    """`text` in quotes for an error message: one line, without control characters, and cut, as
    it may come from a peer."""
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "...")


class Secret(Generic[T]):
    """Wraps a token or key so that no repr, log line or traceback shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(other._value == self._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


def _is_curve_point(key: bytes) -> bool:
    """Whether 32 bytes decode to a point of Ed25519 (RFC 8032 section 5.1.3)."""
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if y >= _P:
        return False
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    square = u * pow(v, -1, _P) % _P
    if square == 0:
        return not key[31] & 0x80
    return pow(square, (_P - 1) // 2, _P) == 1


def _from_hex(text: str) -> bytes:
    if _HEX_DIGITS.issuperset(text):
        return bytes.fromhex(text)
    hint = "; write it in lower case" if _HEX_DIGITS.issuperset(text.lower()) else ""
    raise ValueError(f"64 characters that are not lower-case hex digits{hint}")


def _from_base32(text: str) -> bytes:
    if len(text) != 52:
        raise ValueError(
            f"an EndpointId has 64 hex digits or 52 base32 characters, this has {len(text)}"
        )
    # Before upper(): it turns some characters that are not ASCII into letters that are.
    if not text.isascii() or not _BASE_32_DIGITS.issuperset(text.upper()):
        raise ValueError("52 characters that are not base32 (a-z, 2-7)")
    key = base64.b32decode(text.upper() + "====")
    if base64.b32encode(key).decode().rstrip("=") != text.upper():
        raise ValueError("base32 with stray bits at the end; copy it again")
    return key


@dataclass(frozen=True, slots=True, order=True)
class EndpointId:
    """A peer's Ed25519 public key, 32 bytes (spec `discovery.md` section 1)."""

    key: bytes

    @classmethod
    def parse(cls, text: str) -> "EndpointId":
        """Read 64 lower-case hex digits or 52 characters of base32. Raises ValueError."""
        key = _from_hex(text) if len(text) == 64 else _from_base32(text)
        if not _is_curve_point(key):
            raise ValueError("not a public key (no point of the curve); copy it again")
        return cls(key)

    @property
    def base32(self) -> str:
        return base64.b32encode(self.key).decode().rstrip("=").lower()

    @property
    def z32(self) -> str:
        """z-base-32, as used in pkarr URLs and DNS labels only."""
        return base64.b32encode(self.key).decode().rstrip("=").translate(_Z_BASE_32)

    @property
    def short(self) -> str:
        """First 5 bytes, for log lines."""
        return self.key[:5].hex()

    def __str__(self) -> str:
        return self.key.hex()


class Protocol(StrEnum):
    """What a tunnel carries."""

    TCP = "tcp"
    UDP = "udp"


def _parse_port(text: str, *, allow_zero: bool) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5:
        raise ValueError(f"port {quoted(text)} is not a number")
    port = int(text)
    if port > 65535 or (port == 0 and not allow_zero):
        raise ValueError(f"port {port} is outside {0 if allow_zero else 1}-65535")
    return port


def _is_host_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    # Resolvers take these for IPv4 addresses in one of the old forms: 127.1, 0x7f000001.
    if labels[-1].isdigit() or labels[-1].lower().startswith("0x"):
        return False
    return len(host) <= 253 and all(
        0 < len(label) <= 63
        and label.isascii()
        and all(c.isalnum() or c in "-_" for c in label)
        and not label.startswith("-")
        for label in labels
    )


def check_host(host: str) -> None:
    """Raise ValueError unless `host` is an IP literal without scope id, or a host name."""
    if "%" in host:
        raise ValueError("a scope id (the part after %) is not accepted")
    try:
        ip_address(host)
    except ValueError:
        if not _is_host_name(host):
            raise ValueError(f"{quoted(host)} is neither a host name nor an IP address") from None


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host name or IP literal (no brackets) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, allow_port_zero: bool = False) -> "HostPort":
        """Read `host:port` or `[v6]:port`. Raises ValueError."""
        if text.startswith("["):
            host, bracket, port = text[1:].partition("]:")
            if not bracket or ":" not in host:
                raise ValueError(f"{quoted(text)} is not of the form [IPv6 address]:port")
        else:
            host, colon, port = text.rpartition(":")
            if not colon:
                raise ValueError(f"{quoted(text)} has no port; write host:port")
            if ":" in host:
                raise ValueError(f"{quoted(text)}: put an IPv6 address in brackets, [address]:port")
        if not host:
            raise ValueError(f"{quoted(text)} has no host; write host:port")
        check_host(host)
        return cls(host, _parse_port(port, allow_zero=allow_port_zero))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """What a client asks the server to connect to: `tcp://host:port` or `udp://host:port`."""

    protocol: Protocol
    address: HostPort

    @classmethod
    def parse(cls, text: str) -> "SourceUrl":
        """Read `tcp://host:port` or `udp://host:port`. Raises ValueError."""
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in (Protocol.TCP, Protocol.UDP):
            raise ValueError(f"{quoted(text)} must start with tcp:// or udp://")
        if any(c in rest for c in "/?#@"):
            raise ValueError(f"{quoted(text)} holds more than a host and a port")
        return cls(Protocol(scheme), HostPort.parse(rest))

    def __str__(self) -> str:
        return f"{self.protocol}://{self.address}"


@dataclass(frozen=True, slots=True, order=True)
class SocketAddr:
    """An IP address in canonical text and a port: where datagrams go to or come from."""

    ip: str
    port: int

    @classmethod
    def parse(cls, text: str, *, allow_port_zero: bool = False) -> "SocketAddr":
        """Read `ip:port` or `[v6]:port`; names are refused. Raises ValueError."""
        where = HostPort.parse(text, allow_port_zero=allow_port_zero)
        try:
            address = ip_address(where.host)
        except ValueError:
            raise ValueError(f"{quoted(where.host)} is a name; an IP address is needed") from None
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), where.port)

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.ip

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.is_ipv6 else f"{self.ip}:{self.port}"
