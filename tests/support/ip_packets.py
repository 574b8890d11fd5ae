"""IP packets built and verified slowly and plainly, to check the fast code with."""

from collections.abc import Callable
from ipaddress import ip_address
from struct import pack

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
TIMESTAMPS = b"\1\1\x08\x0a" + bytes(8)
"""TCP options as most segments have them."""


def checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for index in range(0, len(data), 2):
        total += data[index] << 8 | data[index + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(text: str) -> bytes:
    return ip_address(text).packed


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + pack("!BBH", 0, protocol, length)
    return source + destination + pack("!IHBB", length, 0, 0, protocol)


def ip(source: str, destination: str, protocol: int, body: bytes, *, hops: int = 64) -> bytes:
    """An IPv4 or IPv6 packet, by the addresses."""
    src, dst = packed(source), packed(destination)
    if len(src) == 4:
        head = pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, hops, protocol, 0) + src + dst
        head = head[:10] + pack("!H", checksum(head)) + head[12:]
        return head + body
    return pack("!IHBB", 6 << 28, len(body), protocol, hops) + src + dst + body


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    payload: bytes = b"",
    *,
    sequence: int = 1000,
    flags: int = 0x10,
    options: bytes = b"",
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    head = pack("!HHIIBBHHH", *ports, sequence, 2000, offset, flags, 512, 0, 0) + options
    return _with_checksum(source, destination, TCP, head + payload, 16)


def numbered(packet: bytes, identification: int, *, fragmentation: int = 0x4000) -> bytes:
    """An IPv4 packet with that identification, not to be cut up; an IPv6 packet as it is."""
    if packet[0] >> 4 == 6:
        return packet
    head = packet[:4] + pack("!HH", identification, fragmentation) + packet[8:10] + b"\0\0"
    head += packet[12:20]
    return head[:10] + pack("!H", checksum(head)) + head[12:] + packet[20:]


def burst(
    ends: tuple[str, str],
    payloads: list[bytes],
    *,
    sequence: int = 1000,
    options: bytes = TIMESTAMPS,
    last_flags: int = 0x10,
    identification: Callable[[int], int] = lambda index: 100 + index,
) -> list[bytes]:
    """Segments of one connection, one behind the other."""
    packets = []
    for index, payload in enumerate(payloads):
        flags = last_flags if index == len(payloads) - 1 else 0x10
        packet = tcp(*ends, (5, 6), payload, sequence=sequence, flags=flags, options=options)
        packets.append(numbered(packet, identification(index)))
        sequence = (sequence + len(payload)) % 2**32
    return packets


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes = b"") -> bytes:
    body = pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return _with_checksum(source, destination, UDP, body, 6)


def echo(
    source: str, destination: str, identifier: int, payload: bytes = b"", *, reply: bool = False
) -> bytes:
    if ":" in source:
        body = pack("!BBHHH", 129 if reply else 128, 0, 0, identifier, 1) + payload
        return _with_checksum(source, destination, ICMPV6, body, 2)
    body = pack("!BBHHH", 0 if reply else 8, 0, 0, identifier, 1) + payload
    body = body[:2] + pack("!H", checksum(body)) + body[4:]
    return ip(source, destination, ICMP, body)


def icmp_error(
    source: str, destination: str, kind: int, code: int, rest: int, about: bytes
) -> bytes:
    body = pack("!BBHI", kind, code, 0, rest) + about
    if ":" in source:
        return _with_checksum(source, destination, ICMPV6, body, 2)
    body = body[:2] + pack("!H", checksum(body)) + body[4:]
    return ip(source, destination, ICMP, body)


def _with_checksum(source: str, destination: str, protocol: int, body: bytes, place: int) -> bytes:
    pseudo = pseudo_header(packed(source), packed(destination), protocol, len(body))
    value = checksum(pseudo + body) or 0xFFFF
    body = body[:place] + pack("!H", value) + body[place + 2 :]
    return ip(source, destination, protocol, body)


def assert_valid(packet: bytes) -> None:
    """Lengths and all checksums of a packet are right."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        assert int.from_bytes(packet[2:4], "big") == len(packet)
        assert checksum(packet[:header]) in (0, 0xFFFF)
        source, destination, protocol = packet[12:16], packet[16:20], packet[9]
    else:
        header = 40
        assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
        source, destination, protocol = packet[8:24], packet[24:40], packet[6]
    body = packet[header:]
    if protocol == UDP:
        assert int.from_bytes(body[4:6], "big") == len(body)
        if body[6:8] == b"\0\0":
            assert len(source) == 4
            return
    pseudo = pseudo_header(source, destination, protocol, len(body))
    assert checksum((b"" if protocol == ICMP else pseudo) + body) in (0, 0xFFFF)
