"""Framing on the data stream of the VPN, wire version 1 (spec `vpn.md` section 1.3).

00 | u32 length | IP packet          at most 65,536 bytes
01                                   ping, client to server
02                                   pong, server to client
04 | u32 length | 10 bytes virtio header | IP packet
                                     only when both ends announced `gso1`; the length is the
                                     packet's alone (our extension, section 6.2)
"""

from typing import NamedTuple

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.vpn_offload import HEADER_SIZE, NO_OFFLOAD

MAX_FRAME = 65_536
"""Most bytes of a packet in a frame; version 1 readers refuse more."""

PACKET, PING_TYPE, PONG_TYPE, OFFLOADED = 0, 1, 2, 4
PING = bytes([PING_TYPE])
PONG = bytes([PONG_TYPE])

_LENGTH_END = 5

Offloaded = tuple[bytes, bytes]
"""A virtio header (`vpn_offload`) and the IP packet it goes with."""


class Received(NamedTuple):
    """What one piece of the stream completed."""

    packets: list[Offloaded]
    octets: int
    """Bytes of all packets."""

    pings: int
    pongs: int


def packet_head(size: int) -> bytes:
    """What goes before an ordinary packet of `size` bytes."""
    return b"\0" + size.to_bytes(4, "big")


def packet_frame(packet: bytes) -> bytes:
    return packet_head(len(packet)) + packet


def offload_head(header: bytes, size: int) -> bytes:
    """What goes before a packet of `size` bytes with a virtio header."""
    return b"\4" + size.to_bytes(4, "big") + header


def offload_frame(header: bytes, packet: bytes) -> bytes:
    return offload_head(header, len(packet)) + packet


class FrameDecoder:
    """Cuts the stream into frames. Holds at most one unfinished frame.

    Without `offload` frames of type 04 are an error, as every unknown type: after it the framing
    is lost, and the connection has to end.
    """

    def __init__(self, *, offload: bool = False) -> None:
        self._offload = offload
        self._held = bytearray()
        self._needed = 1

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here."""
        return not self._held

    def feed(self, data: bytes) -> Received:
        """What is complete now. Raises ProtocolError; nothing may be fed after that."""
        if self._held:
            # Tiny pieces of a large frame are only collected: what they cost is their own size.
            if len(self._held) + len(data) < self._needed:
                self._held += data
                return Received([], 0, 0, 0)
            data = b"".join((self._held, data))
            self._held.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> Received:
        packets: list[Offloaded] = []
        octets = pings = pongs = position = 0
        end = len(data)
        usual, size = packet_head(MAX_FRAME), MAX_FRAME
        while position < end:
            # In a bulk transfer one packet is as long as the one before.
            if data.startswith(usual, position):
                start = position + _LENGTH_END
                stop = start + size
                if stop <= end:
                    packets.append((NO_OFFLOAD, data[start:stop]))
                    octets += size
                    position = stop
                    continue
            kind = data[position]
            if kind == PACKET or (kind == OFFLOADED and self._offload):
                start = position + _LENGTH_END
                if start > end:
                    self._needed = _LENGTH_END
                    break
                length = int.from_bytes(data[position + 1 : start], "big")
                if length > MAX_FRAME:
                    raise ProtocolError(f"a packet of {length} bytes was announced")
                header = NO_OFFLOAD
                if kind == OFFLOADED:
                    header, start = data[start : start + HEADER_SIZE], start + HEADER_SIZE
                else:
                    usual, size = data[position:start], length
                if start + length > end:
                    self._needed = start + length - position
                    break
                position = start + length
                packets.append((header, data[start:position]))
                octets += length
            elif kind == PING_TYPE:
                pings, position = pings + 1, position + 1
            elif kind == PONG_TYPE:
                pongs, position = pongs + 1, position + 1
            else:
                raise ProtocolError(f"a frame of the unknown type {kind} came")
        self._held += data[position:]
        return Received(packets, octets, pings, pongs)
