"""Packets larger than the MTU, as Linux hands them to a TUN device with offloads on, and cutting
them up for peers that cannot take them whole (virtio 1.2 section 5.1.6, `struct virtio_net_hdr`).

The 10-byte header in front of such a packet is little-endian: flags, segmentation type, header
length (a hint, not used here), segment size, where the checksum starts, where it is stored.
"""

from struct import Struct

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.checksum import complement, partial_sum
from tunnel_rs.proto.vpn_packets import IPV6_HEADER, MAX_PACKET, TCP, UDP

HEADER_SIZE = 10
NO_OFFLOAD = bytes(HEADER_SIZE)
"""The header of an ordinary packet."""

NEEDS_CHECKSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP = 0, 1, 4, 5
GSO_ECN = 0x80

_HEADER = Struct("<BBHHHH")
_TCP_FIN, _TCP_PSH, _TCP_CWR = 0x01, 0x08, 0x80
_CHECKSUM_OFFSET = {TCP: 16, UDP: 6}
_SMALLEST = 28
"""IPv4 and UDP headers."""

_MAX_SEGMENTS = 2048
"""A packet of 65,535 bytes has more only with segments of fewer than 32 bytes."""


def check(header: bytes, packet: bytes) -> None:
    """Raise ProtocolError unless a peer's packet and its header belong together. What passes is
    safe to cut up, and to hand to the kernel."""
    if header == NO_OFFLOAD:
        return
    _layout(header, packet)


def pieces(header: bytes, packet: bytes) -> list[bytes]:
    """The ordinary packets with finished checksums that a packet with this header stands for.
    Raises ProtocolError when they do not belong together."""
    if header == NO_OFFLOAD:
        return [packet]
    layout = _layout(header, packet)
    if layout.kind == GSO_NONE:
        return [_finish_checksum(layout, packet)]
    if layout.protocol == TCP:
        return _cut_tcp(layout, packet)
    return _cut_udp(layout, packet)


def joined_header(kind: int, headers: int, segment: int) -> bytes:
    """The header of a packet of our own that has been joined from segments of `segment` bytes, and
    has a finished checksum: the kernel verifies it. `headers`: bytes of its IP and TCP headers."""
    return _HEADER.pack(0, kind, headers, segment, 0, 0)


class _Layout:
    """Where things are in one packet."""

    __slots__ = ("headers", "is_ipv4", "kind", "protocol", "segment", "transport")

    def __init__(self, packet: bytes) -> None:
        self.is_ipv4 = packet[0] >> 4 == 4
        self.transport = (packet[0] & 15) * 4 if self.is_ipv4 else IPV6_HEADER
        self.protocol = packet[9] if self.is_ipv4 else packet[6]
        self.kind = GSO_NONE
        self.segment = 0
        self.headers = self.transport

    def pseudo_header(self, packet: bytes) -> int:
        addresses = packet[12:20] if self.is_ipv4 else packet[8:40]
        return partial_sum(addresses) + self.protocol


def _layout(header: bytes, packet: bytes) -> _Layout:
    flags, kind, _, segment, start, offset = _HEADER.unpack(header)
    size = len(packet)
    if not _SMALLEST <= size <= MAX_PACKET:
        raise ProtocolError("a packet with offload has an impossible size")
    layout = _Layout(packet)
    layout.kind, layout.segment = kind & ~GSO_ECN, segment
    if flags != NEEDS_CHECKSUM or start != layout.transport or start + offset + 2 > size:
        raise ProtocolError("a packet's checksum is in an impossible place")
    if _CHECKSUM_OFFSET.get(layout.protocol) != offset:
        raise ProtocolError("a packet's checksum is left open where it cannot be")
    _check_length(layout, packet)
    if layout.kind == GSO_NONE and not kind:
        return layout
    _check_segmentation(layout, packet)
    return layout


def _check_length(layout: _Layout, packet: bytes) -> None:
    size = len(packet)
    if layout.is_ipv4:
        length = packet[2] << 8 | packet[3]
        fragmented = packet[6] & 0x3F or packet[7]
    else:
        length = IPV6_HEADER + (packet[4] << 8 | packet[5])
        fragmented = 0
    if length != size or fragmented or layout.transport < 20:
        raise ProtocolError("a packet with offload contradicts its own length")


def _check_segmentation(layout: _Layout, packet: bytes) -> None:
    wanted = {
        (TCP, True): GSO_TCPV4,
        (TCP, False): GSO_TCPV6,
        (UDP, True): GSO_UDP,
        (UDP, False): GSO_UDP,
    }
    size = len(packet)
    if wanted.get((layout.protocol, layout.is_ipv4)) != layout.kind:
        raise ProtocolError("a packet's segmentation type is not the one of its protocol")
    if layout.protocol == TCP:
        if size < layout.transport + 20:
            raise ProtocolError("a packet with offload is cut off")
        transport_header = (packet[layout.transport + 12] >> 4) * 4
    else:
        transport_header = 8
    layout.headers = layout.transport + transport_header
    payload = size - layout.headers
    least = 20 if layout.protocol == TCP else 8
    if transport_header < least or payload <= 0 or layout.segment <= 0:
        raise ProtocolError("a packet with offload has nothing to cut up")
    if -(-payload // layout.segment) > _MAX_SEGMENTS:
        raise ProtocolError("a packet with offload has too many segments")


def _finish_checksum(layout: _Layout, packet: bytes) -> bytes:
    """The field holds the sum of the pseudo-header; the rest is added and complemented."""
    start = layout.transport
    place = start + _CHECKSUM_OFFSET[layout.protocol]
    checksum = complement(partial_sum(packet[start:]))
    return b"".join((packet[:place], checksum.to_bytes(2, "big"), packet[place + 2 :]))


class Ipv4Headers:
    """IPv4 headers of consecutive segments: length, identification and checksum change."""

    def __init__(self, header: bytes) -> None:
        self._header = bytearray(header)
        self._identification = header[4] << 8 | header[5]
        for changing in (2, 4, 10):
            self._header[changing : changing + 2] = b"\0\0"
        self._sum = partial_sum(self._header)

    def make(self, index: int, transport_length: int) -> bytes:
        header = self._header
        length = len(header) + transport_length
        identification = (self._identification + index) & 0xFFFF
        header[2:4] = length.to_bytes(2, "big")
        header[4:6] = identification.to_bytes(2, "big")
        header[10:12] = complement(self._sum + length + identification).to_bytes(2, "big")
        return bytes(header)


class Ipv6Headers:
    """IPv6 headers of consecutive segments: only the length changes."""

    def __init__(self, header: bytes) -> None:
        self._header = bytearray(header)

    def make(self, index: int, transport_length: int) -> bytes:
        self._header[4:6] = transport_length.to_bytes(2, "big")
        return bytes(self._header)


def _ip_headers(layout: _Layout, packet: bytes) -> Ipv4Headers | Ipv6Headers:
    header = packet[: layout.transport]
    return Ipv4Headers(header) if layout.is_ipv4 else Ipv6Headers(header)


def _cut_tcp(layout: _Layout, packet: bytes) -> list[bytes]:
    """RFC 9293: each segment has its own sequence number; FIN and PSH belong to the last one,
    CWR (RFC 3168) to the first."""
    ip = _ip_headers(layout, packet)
    tcp = bytearray(packet[layout.transport : layout.headers])
    first_sequence = int.from_bytes(tcp[4:8], "big")
    flags = tcp[13]
    tcp[4:8], tcp[13], tcp[16:18] = b"\0\0\0\0", 0, b"\0\0"
    fixed = layout.pseudo_header(packet) + partial_sum(tcp)
    payload = memoryview(packet)[layout.headers :]
    size, step, header = len(payload), layout.segment, len(tcp)
    segments = []
    for index, at in enumerate(range(0, size, step)):
        part = payload[at : at + step]
        sequence = (first_sequence + at) & 0xFFFFFFFF
        own = flags & ~_TCP_CWR if index else flags
        if at + step < size:
            own &= ~(_TCP_FIN | _TCP_PSH)
        length = header + len(part)
        words = (sequence >> 16) + (sequence & 0xFFFF) + own
        checksum = complement(fixed + length + words + partial_sum(part))
        tcp[4:8] = sequence.to_bytes(4, "big")
        tcp[13] = own
        tcp[16:18] = checksum.to_bytes(2, "big")
        segments.append(b"".join((ip.make(index, length), tcp, part)))
    return segments


def _cut_udp(layout: _Layout, packet: bytes) -> list[bytes]:
    ip = _ip_headers(layout, packet)
    ports = packet[layout.transport : layout.transport + 4]
    fixed = layout.pseudo_header(packet) + partial_sum(ports)
    payload = memoryview(packet)[layout.headers :]
    datagrams = []
    for index, at in enumerate(range(0, len(payload), layout.segment)):
        part = payload[at : at + layout.segment]
        length = 8 + len(part)
        # The length counts twice: in the pseudo-header and in the header.
        checksum = complement(fixed + 2 * length + partial_sum(part))
        own = length.to_bytes(2, "big") + checksum.to_bytes(2, "big")
        datagrams.append(b"".join((ip.make(index, length), ports, own, part)))
    return datagrams
