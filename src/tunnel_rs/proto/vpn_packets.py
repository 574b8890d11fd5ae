"""What has to be known about an IP packet to pass it on (RFC 791, RFC 8200).

Packets come from a TUN device or from a peer: nothing about them is taken for granted.
"""

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
"""IP protocol numbers."""

IPV4_HEADER, IPV6_HEADER = 20, 40
MAX_PACKET = 65_535


def endpoints(packet: bytes) -> tuple[bytes, bytes] | None:
    """Source and destination as 4 or 16 bytes each, or None when this is no IP packet, or not a
    whole one. Bytes behind the packet's own length are tolerated, as the kernel does."""
    size = len(packet)
    if size < IPV4_HEADER:
        return None
    version = packet[0] >> 4
    if version == 4:
        length = packet[2] << 8 | packet[3]
        header = (packet[0] & 15) * 4
        if IPV4_HEADER <= header <= length <= size:
            return packet[12:16], packet[16:20]
    elif version == 6 and size >= IPV6_HEADER:
        if IPV6_HEADER + (packet[4] << 8 | packet[5]) <= size:
            return packet[8:24], packet[24:40]
    return None


def is_link_local(address: bytes) -> bool:
    """Whether a 16-byte address is in fe80::/10."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_multicast(address: bytes) -> bool:
    """Whether an address (4 or 16 bytes) is a group, or the IPv4 broadcast address."""
    if len(address) == 4:
        return address[0] & 0xF0 == 0xE0 or address == b"\xff\xff\xff\xff"
    return address[0] == 0xFF
