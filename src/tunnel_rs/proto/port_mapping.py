"""Asking a router for a port, or for a pinhole in its IPv6 firewall: PCP (RFC 6887) and NAT-PMP
(RFC 6886). No I/O.

Both are spoken on UDP port 5351 of the router, in messages of fixed size. A `MappingRequest`
says what we want; `decode_pcp` and `decode_nat_pmp` read what came back. Only MAP for UDP is
spoken, and of NAT-PMP the question for the external address.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tunnel_rs.errors import ProtocolError
from tunnel_rs.values import SocketAddr

PORT = 5351
NONCE_SIZE = 12
LIFETIME = 7200
"""Seconds asked for; what RFC 6886 section 3.3 recommends."""

SHORTEST_LIFETIME, LONGEST_LIFETIME = 120, 86_400
"""Seconds. Outside of these a router's word is not taken: it would have us ask all the time, or
hardly ever."""

RETRY_WAITS: tuple[float, ...] = (0.25, 0.5, 1.0)
"""Seconds to wait for an answer to each try (RFC 6886 section 3.1, cut short: a router is near)."""

_PCP_REQUEST = struct.Struct(">BBxxI16s")
_PCP_RESPONSE = struct.Struct(">BBxBII12x")
_PCP_MAP = struct.Struct(">12sBxxxHH16s")
_PMP_MAP = struct.Struct(">BBHHHI")
_PMP_MAPPED = struct.Struct(">BBHIHHI")
_PMP_ADDRESS = struct.Struct(">BBHI4s")
_PCP, _PMP = 2, 0
_MAP, _ANSWER = 1, 0x80
_PMP_EXTERNAL, _PMP_UDP = 0, 1
_UDP = 17
_UNSUPPORTED_VERSION = 1
_MAX_PCP = 1100

_PCP_WORDS = {
    1: "it speaks another version",
    2: "it does not allow it",
    3: "it cannot read the request",
    4: "it does not do that",
    7: "it has an error of its network",
    8: "it has no room for more",
    9: "it does not know UDP",
    10: "too many of our mappings",
    11: "the external address cannot be had",
    12: "a NAT is between it and us",
    13: "too many peers",
}
_PMP_WORDS = {
    1: "it speaks another version",
    2: "it does not allow it",
    3: "it has no network",
    4: "it has no room for more",
    5: "it does not do that",
}


class OtherVersionError(ProtocolError):
    """The router does not speak this protocol; it may speak the other."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a router has granted: `external` leads to our port for `lifetime` seconds more.
    `epoch` is the router's uptime in seconds; when it goes back, its mappings are gone."""

    external: SocketAddr
    lifetime: int
    epoch: int


@dataclass(frozen=True, slots=True)
class MappingRequest:
    """`source`: our address towards the router, with the port to be reached. `nonce`: 12 random
    bytes, the same for all requests about one mapping. `wanted`: the external port to suggest, 0
    for any. `lifetime` 0 takes the mapping back."""

    source: SocketAddr
    nonce: bytes
    wanted: int = 0
    lifetime: int = LIFETIME

    def pcp(self) -> bytes:
        any_ip = _packed("::" if self.source.is_ipv6 else "0.0.0.0")
        wanted = self.wanted if self.lifetime else 0
        return _PCP_REQUEST.pack(_PCP, _MAP, self.lifetime, _packed(self.source.ip)) + (
            _PCP_MAP.pack(self.nonce, _UDP, self.source.port, wanted, any_ip)
        )

    def nat_pmp(self) -> bytes:
        wanted = self.wanted if self.lifetime else 0
        return _PMP_MAP.pack(_PMP, _PMP_UDP, 0, self.source.port, wanted, self.lifetime)


def encode_address_question() -> bytes:
    """NAT-PMP's question for the external address."""
    return bytes((_PMP, _PMP_EXTERNAL))


def decode_pcp(message: bytes, request: MappingRequest) -> Lease | None:
    """The answer to a PCP request; None for what is no answer to this one. Raises
    OtherVersionError, and ProtocolError when it was refused."""
    if len(message) >= 4 and message[0] == _PMP and message[1] & _ANSWER:
        raise OtherVersionError("the router speaks NAT-PMP, not PCP")
    size = _PCP_RESPONSE.size + _PCP_MAP.size
    if len(message) < _PCP_RESPONSE.size or len(message) > _MAX_PCP or len(message) % 4:
        return None
    version, kind, result, lifetime, epoch = _PCP_RESPONSE.unpack_from(message)
    if kind != _MAP | _ANSWER:
        return None
    if result == _UNSUPPORTED_VERSION or version != _PCP:
        raise OtherVersionError(f"the router speaks PCP version {version}")
    if len(message) < size:
        return None
    nonce, protocol, internal, port, ip = _PCP_MAP.unpack_from(message, _PCP_RESPONSE.size)
    if (nonce, protocol, internal) != (request.nonce, _UDP, request.source.port):
        return None
    if result:
        raise ProtocolError(f"the router refused a port (PCP): {_word(_PCP_WORDS, result)}")
    external = IPv6Address(ip)
    found = external if request.source.is_ipv6 else external.ipv4_mapped
    return _lease(found, port, lifetime, epoch, request)


def decode_nat_pmp(
    message: bytes, request: MappingRequest, external: IPv4Address | None
) -> Lease | None:
    """The answer to a NAT-PMP mapping request, with the external address asked for before. None
    for what is no answer to this one. Raises as `decode_pcp`."""
    if len(message) < 4 or message[1] != _PMP_UDP | _ANSWER:
        return None
    _check_pmp(message)
    if len(message) != _PMP_MAPPED.size:
        return None
    _, _, _, epoch, internal, port, lifetime = _PMP_MAPPED.unpack(message)
    if internal != request.source.port:
        return None
    return _lease(external, port, lifetime, epoch, request)


def decode_address(message: bytes) -> IPv4Address | None:
    """The answer to `encode_address_question`, or None. Raises as `decode_pcp`."""
    if len(message) < 4 or message[1] != _PMP_EXTERNAL | _ANSWER:
        return None
    _check_pmp(message)
    if len(message) != _PMP_ADDRESS.size:
        return None
    return IPv4Address(_PMP_ADDRESS.unpack(message)[4])


def _check_pmp(message: bytes) -> None:
    version, _, result = struct.unpack_from(">BBH", message)
    if version != _PMP or result == _UNSUPPORTED_VERSION:
        raise OtherVersionError("the router does not speak NAT-PMP")
    if result:
        raise ProtocolError(f"the router refused a port (NAT-PMP): {_word(_PMP_WORDS, result)}")


def _lease(
    ip: IPv4Address | IPv6Address | None,
    port: int,
    lifetime: int,
    epoch: int,
    request: MappingRequest,
) -> Lease:
    if request.lifetime == 0:
        return Lease(SocketAddr("::" if request.source.is_ipv6 else "0.0.0.0", 0), 0, epoch)
    if ip is None or not leads_outside(ip) or not port or not lifetime:
        raise ProtocolError("the router's external address is not one of the internet")
    bounded = max(SHORTEST_LIFETIME, min(lifetime, LONGEST_LIFETIME))
    return Lease(SocketAddr(str(ip), port), bounded, epoch)


def leads_outside(ip: IPv4Address | IPv6Address) -> bool:
    """Whether hosts beyond the router may reach this: not when the router is behind a NAT too."""
    if isinstance(ip, IPv6Address):
        # 2000::/3 is what is given out to the internet.
        return ip.packed[0] >> 5 == 1
    first, second = ip.packed[:2]
    private = (
        first in (0, 10, 127)
        or first >= 224
        or (first, second) in ((192, 168), (169, 254))
        or (first == 172 and 16 <= second < 32)
        or (first == 100 and 64 <= second < 128)
    )
    return not private


def _word(words: dict[int, str], result: int) -> str:
    return words.get(result, f"code {result}")


def _packed(ip: str) -> bytes:
    return IPv6Address(ip if ":" in ip else f"::ffff:{ip}").packed
