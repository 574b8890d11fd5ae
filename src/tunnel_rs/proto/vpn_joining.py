"""Joining small TCP packets that came together into one that the kernel takes at once.

A peer without super-packets sends each TCP segment as a packet of its own, and each that is handed
to the kernel costs a walk through its TCP, and often an acknowledgement. Those that continue one
another are joined to a large packet with a virtio header (`vpn_offload`), as a network card would.

Checksums are not verified here, which costs more than it saves, nor made anew: the TCP checksum of
the whole is the one that follows from those of its parts, without a look at their data. So the
kernel finds any fault in the whole that it would have found in the parts. It does that where
packets end; one that passes super-packets on makes new checksums. Therefore only packets for an
address that ends here are joined.
"""

from collections.abc import Container

from tunnel_rs.proto.checksum import partial_sum
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    NO_OFFLOAD,
    Ipv4Headers,
    Ipv6Headers,
    joined_header,
)
from tunnel_rs.proto.vpn_packets import IPV4_HEADER, IPV6_HEADER, MAX_PACKET, TCP

MIN_SIZE = 256
"""Bytes of a packet that others are joined to."""

_ACK, _PSH = 0x10, 0x08
_PLAIN_IPV4 = 0x45
_DONT_FRAGMENT = b"\x40\0"
_SEQUENCE, _OFFSET, _FLAGS, _CHECKSUM, _URGENT = 4, 12, 13, 16, 18
"""Places in a TCP header."""


def join(packets: list[Offloaded], own: Container[bytes]) -> list[Offloaded]:
    """The same packets in their order, those that may be joined. `own`: the addresses (4 or 16
    bytes) at which packets end here."""
    joined: list[Offloaded] = []
    run: _Run | None = None
    for item in packets:
        header, packet = item
        if run is not None:
            if header is NO_OFFLOAD and run.take(packet):
                continue
            joined.append(run.finish())
            run = None
        if header is NO_OFFLOAD and len(packet) >= MIN_SIZE:
            run = _begin(packet, own)
        if run is None:
            joined.append(item)
    if run is not None:
        joined.append(run.finish())
    return joined


def _begin(packet: bytes, own: Container[bytes]) -> "_Run | None":
    """A run that begins with `packet`, if others can continue it."""
    if packet[0] == _PLAIN_IPV4:
        length, destination = packet[2] << 8 | packet[3], packet[16:20]
        start, protocol = IPV4_HEADER, packet[9]
        # The identification of a packet that is never cut up means nothing (RFC 6864).
        if packet[6:8] != _DONT_FRAGMENT or partial_sum(packet[:start]):
            return None
    elif packet[0] >> 4 == 6:
        length, destination = IPV6_HEADER + (packet[4] << 8 | packet[5]), packet[24:40]
        start, protocol = IPV6_HEADER, packet[6]
    else:
        return None
    if protocol != TCP or length != len(packet) or destination not in own:
        return None
    headers = start + (packet[start + _OFFSET] >> 4) * 4
    segment = length - headers
    # Parts that begin at odd places would have the bytes of their sums swapped.
    if headers < start + 20 or segment <= 0 or segment & 1 or packet[start + _FLAGS] != _ACK:
        return None
    return _Run(packet, start, headers)


class _Run:
    """Packets that continue one another. Each is told by its first bytes, up to the TCP checksum:
    as one number they are those of the packet before plus a constant.

    Where that sum carries from one field into another the packet does not fit, and begins a run of
    its own. An IPv4 header that fits has a checksum as good as the first one's.
    """

    __slots__ = ("_headers", "_most", "_newest", "_packets", "_rest", "_start", "_steps")

    def __init__(self, first: bytes, start: int, headers: int) -> None:
        """`start`: where the TCP header begins; `headers`: bytes of both headers."""
        self._start = start
        self._headers = headers
        self._packets = [first]
        self._rest = first[start + _URGENT : headers]
        segment = len(first) - headers
        self._most = (MAX_PACKET - headers) // segment
        self._newest = self._number(first)
        step = segment << self._shift(start + _SEQUENCE + 4)
        self._steps = [step]
        if start == IPV4_HEADER:
            # Most systems count the identification up; the header's checksum falls by as much.
            counted = (1 << self._shift(6)) - (1 << self._shift(12))
            self._steps.insert(0, step + counted)

    def _number(self, packet: bytes) -> int:
        return int.from_bytes(packet[: self._start + _CHECKSUM], "big")

    def _shift(self, end: int) -> int:
        """How far a field that ends before the byte `end` is shifted in that number."""
        return 8 * (self._start + _CHECKSUM - end)

    def take(self, packet: bytes) -> bool:
        """Take a packet that continues the run; False, and nothing done, for any other."""
        packets = self._packets
        if len(packets) >= self._most:
            return False
        if packet[self._start + _URGENT : self._headers] != self._rest:
            return False
        number = self._number(packet)
        step, longer = number - self._newest, len(packet) - len(packets[0])
        if longer or step not in self._steps:
            if not self._ends_with(step, longer):
                return False
            self._most = 0
        self._newest = number
        packets.append(packet)
        return True

    def _ends_with(self, step: int, longer: int) -> bool:
        """Whether a packet may be the last one: shorter than the others, or pushed."""
        pushed = _PSH << self._shift(self._start + _FLAGS + 1)
        if longer > 0 or len(self._packets[0]) + longer <= self._headers:
            return False
        if self._start == IPV4_HEADER:
            step -= (longer << self._shift(4)) - (longer << self._shift(12))
        else:
            step -= longer << self._shift(6)
        return step in self._steps or step - pushed in self._steps

    def finish(self) -> Offloaded:
        """All packets as one."""
        packets, start, headers = self._packets, self._start, self._headers
        first = packets[0]
        if len(packets) == 1:
            return NO_OFFLOAD, first
        tcp = bytearray(first[start:headers])
        tcp[_FLAGS] |= packets[-1][start + _FLAGS]
        tcp[_CHECKSUM:_URGENT] = self._checksum().to_bytes(2, "big")
        data = [packet[headers:] for packet in packets]
        length = len(tcp) + sum(map(len, data))
        is_ipv4 = start == IPV4_HEADER
        ip = (Ipv4Headers if is_ipv4 else Ipv6Headers)(first[:start]).make(0, length)
        kind = GSO_TCPV4 if is_ipv4 else GSO_TCPV6
        return joined_header(kind, headers, len(data[0])), b"".join((ip, tcp, *data))

    def _checksum(self) -> int:
        """Modulo 65535, each packet's checksum is minus the sum of its pseudo-header, the rest of
        its TCP header, and its data (RFC 9293 section 3.1). That gives the sum of all data, and
        with it the checksum of the whole."""
        packets, start, headers = self._packets, self._start, self._headers
        first = packets[0]
        place = slice(start + _CHECKSUM, start + _URGENT)
        addresses = first[start - (8 if start == IPV4_HEADER else 32) : start]
        fixed = partial_sum(first[start:headers]) - partial_sum(first[place])
        fixed += partial_sum(addresses) + TCP + headers - start
        count, segment = len(packets), len(first) - headers
        numbers = segment * count * (count - 1) // 2  # by which sequence numbers are higher
        checksums = partial_sum(b"".join([packet[place] for packet in packets]))
        return (checksums + (count - 1) * fixed + numbers) % 65535
