"""The Internet checksum (RFC 1071), fast in plain Python: one big number modulo 65535.

Sums here are numbers modulo 65535: 0 and 0xFFFF are the same one. A checksum made by `complement`
is never 0, which is right for all protocols and required for UDP (RFC 768).
"""

from tunnel_rs.values import Buffer


def partial_sum(data: Buffer) -> int:
    """Sum of 16-bit big-endian words modulo 65535; an odd last byte is padded with zero."""
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    return number % 65535


def complement(total: int) -> int:
    """The checksum that goes with a sum, 1 to 65535."""
    return 65535 - total % 65535
