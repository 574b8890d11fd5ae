"""The STUN message a mapped address is asked with: Binding (RFC 8489 sections 5, 6 and 14). No I/O.

No authentication and no fingerprint: public servers want neither for Binding. The transaction id
is what ties an answer to a request.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

from tunnel_rs.errors import ProtocolError
from tunnel_rs.values import SocketAddr

DEFAULT_PORT = 3478
TRANSACTION_ID_SIZE = 12
FIRST_TIMEOUT, TRIES = 0.5, 4
"""Seconds until the first repeat, doubled with each, and how often to ask (RFC 8489 section 6.2.1,
cut short: a person waits)."""

_HEADER = struct.Struct(">HHI12s")
_ATTRIBUTE = struct.Struct(">HH")
_COOKIE = 0x2112A442
_REQUEST, _RESPONSE, _ERROR = 0x0001, 0x0101, 0x0111
_MAPPED_ADDRESS, _XOR_MAPPED_ADDRESS, _ERROR_CODE = 0x0001, 0x0020, 0x0009
_IPV4, _IPV6 = 1, 2
_MAX_ATTRIBUTES = 32


def encode_request(transaction_id: bytes) -> bytes:
    """A Binding request; `transaction_id` is 12 random bytes."""
    return _HEADER.pack(_REQUEST, 0, _COOKIE, transaction_id)


def transaction_of(message: bytes | memoryview) -> bytes | None:
    """The transaction id of an answer; None for what is no STUN answer."""
    if len(message) < _HEADER.size:
        return None
    kind, length, cookie, transaction_id = _HEADER.unpack_from(message)
    if kind not in (_RESPONSE, _ERROR) or cookie != _COOKIE:
        return None
    if length % 4 or length != len(message) - _HEADER.size:
        return None
    return bytes(transaction_id)


def decode_answer(message: bytes | memoryview) -> SocketAddr:
    """The address the request came from, out of an answer that `transaction_of` has recognised.

    Raises ProtocolError for an error answer, and one without a readable address.
    """
    (kind,) = struct.unpack_from(">H", message)
    attributes = _attributes(bytes(message))
    if kind == _ERROR:
        raise ProtocolError(f"the STUN server refused: {_error_code(attributes)}")
    if _XOR_MAPPED_ADDRESS in attributes:
        return _address(attributes[_XOR_MAPPED_ADDRESS], bytes(message[4:20]))
    if _MAPPED_ADDRESS in attributes:
        return _address(attributes[_MAPPED_ADDRESS], bytes(16))
    raise ProtocolError("the STUN server's answer has no address")


def _attributes(message: bytes) -> dict[int, bytes]:
    """The first attribute of each type; values are padded to four bytes."""
    found: dict[int, bytes] = {}
    position = _HEADER.size
    for _ in range(_MAX_ATTRIBUTES):
        if position + _ATTRIBUTE.size > len(message):
            break
        kind, length = _ATTRIBUTE.unpack_from(message, position)
        position += _ATTRIBUTE.size
        if position + length > len(message):
            raise ProtocolError("the STUN server's answer is cut off")
        found.setdefault(kind, message[position : position + length])
        position += length + -length % 4
    return found


def _error_code(attributes: dict[int, bytes]) -> int | str:
    value = attributes.get(_ERROR_CODE, b"")
    return (value[2] & 7) * 100 + value[3] if len(value) >= 4 else "no code"


def _address(value: bytes, mask: bytes) -> SocketAddr:
    """`mask` is magic cookie and transaction id (section 14.2), or zeros."""
    if len(value) < 4:
        raise ProtocolError("the STUN server's address is cut off")
    family = value[1]
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(mask[:2], "big")
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    if family == _IPV4 and len(value) == 8:
        return SocketAddr(str(IPv4Address(packed)), port)
    if family == _IPV6 and len(value) == 20:
        ip = IPv6Address(packed)
        return SocketAddr(str(ip.ipv4_mapped or ip), port)
    raise ProtocolError("the STUN server's address is of no known family")
