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


def decode(data: bytes, at: int) -> tuple[int, int]:
    """The value that begins at `at`, and where it ends. Raises ValueError when it is cut off."""
    if at >= len(data):
        raise ValueError("cut off")
    size = 1 << (data[at] >> 6)
    end = at + size
    if end > len(data):
        raise ValueError("cut off")
    return int.from_bytes(data[at:end], "big") & (1 << (8 * size - 2)) - 1, end
