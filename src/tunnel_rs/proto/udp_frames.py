"""UDP datagrams on a byte stream: 2-byte big-endian length, then the bytes (spec
`tunnel-protocol.md`, "UDP payload"). Every length from 0 to 65,535 is legal."""

from tunnel_rs.values import Buffer

MAX_DATAGRAM = 65_535

_PREFIX = 2


def encode_datagram(payload: Buffer) -> bytes:
    """One datagram with its length. ValueError above `MAX_DATAGRAM` bytes."""
    if len(payload) > MAX_DATAGRAM:
        raise ValueError(f"a datagram of {len(payload)} bytes is longer than {MAX_DATAGRAM}")
    return len(payload).to_bytes(_PREFIX, "big") + payload


class DatagramDecoder:
    """Cuts a byte stream into datagrams; holds at most one unfinished datagram between feeds."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._needed = _PREFIX

    def feed(self, data: bytes) -> list[bytes]:
        """All datagrams that are complete with these bytes, in order; empty ones included."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        return self._split(data)

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here: no datagram has begun that is not finished."""
        return not self._partial

    def _split(self, data: bytes) -> list[bytes]:
        datagrams: list[bytes] = []
        position, size = 0, len(data)
        self._needed = _PREFIX
        while size - position >= _PREFIX:
            end = position + _PREFIX + (data[position] << 8 | data[position + 1])
            if end > size:
                self._needed = end - position
                break
            datagrams.append(data[position + _PREFIX : end])
            position = end
        if position < size:
            self._partial += data[position:]
        return datagrams
