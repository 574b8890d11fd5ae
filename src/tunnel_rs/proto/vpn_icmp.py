"""Types and codes of ICMP errors in the other family (RFC 7915 sections 4.2 and 5.2)."""

from typing import NamedTuple

IPV6_MIN_MTU = 1280
HEADER_DIFFERENCE = 20
"""An IPv6 header is so much longer than an IPv4 one."""


class IcmpError(NamedTuple):
    """Type, code, and the 4 bytes behind the checksum as a number."""

    type: int
    code: int
    rest: int


_UNREACHABLE_6 = {
    **dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12), (1, 0)),
    2: (4, 1),
    3: (1, 4),
    **dict.fromkeys((9, 10, 13, 15), (1, 1)),
}
_UNREACHABLE_4 = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}

_POINTER_6 = {0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, **dict.fromkeys(range(12, 16), 8)}
_POINTER_6.update(dict.fromkeys(range(16, 20), 24))
_POINTER_4 = {0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8}
_POINTER_4.update(dict.fromkeys(range(8, 24), 12))
_POINTER_4.update(dict.fromkeys(range(24, 40), 16))

_NEXT_HEADER_OFFSET = 6


def to_ipv6(kind: int, code: int, rest: int) -> IcmpError | None:
    """An ICMPv4 error as ICMPv6; None when it has no counterpart."""
    if kind == 3 and code == 4:
        mtu = (rest & 0xFFFF) or IPV6_MIN_MTU - HEADER_DIFFERENCE
        return IcmpError(2, 0, max(mtu + HEADER_DIFFERENCE, IPV6_MIN_MTU))
    if kind == 3 and code in _UNREACHABLE_6:
        new_type, new_code = _UNREACHABLE_6[code]
        return IcmpError(new_type, new_code, _NEXT_HEADER_OFFSET if new_type == 4 else 0)
    if kind == 11 and code <= 1:
        return IcmpError(3, code, 0)
    if kind == 12 and code in (0, 2) and (rest >> 24) in _POINTER_6:
        return IcmpError(4, 0, _POINTER_6[rest >> 24])
    return None


def to_ipv4(kind: int, code: int, rest: int) -> IcmpError | None:
    """An ICMPv6 error as ICMPv4; None when it has no counterpart."""
    if kind == 1 and code in _UNREACHABLE_4:
        return IcmpError(3, _UNREACHABLE_4[code], 0)
    if kind == 2:
        return IcmpError(3, 4, max(68, min(rest - HEADER_DIFFERENCE, 0xFFFF)))
    if kind == 3 and code <= 1:
        return IcmpError(11, code, 0)
    if kind == 4 and code == 1:
        return IcmpError(3, 2, 0)
    if kind == 4 and code == 0 and rest in _POINTER_4:
        return IcmpError(12, 0, _POINTER_4[rest] << 24)
    return None
