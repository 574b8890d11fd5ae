"""QUIC's variable-length integers (RFC 9000 section 16)."""

MAX = (1 << 62) - 1


def encode(value: int) -> bytes:
    """The shortest form. Raises ValueError outside 0..2^62-1."""
    if value < 0:
        raise ValueError("negative")
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if value <= MAX:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise ValueError("too large")
