from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ip_packets import assert_valid, ip, packed, tcp, udp

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.checksum import partial_sum
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD, check, pieces

V4, V6 = ("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")
FIN, PSH, ACK, CWR = 1, 8, 16, 0x80


def header(kind: int, segment: int, start: int, offset: int, flags: int = 1) -> bytes:
    return pack("<BBHHHH", flags, kind, 0, segment, start, offset)


def opened(packet: bytes, offset: int) -> bytes:
    """With the pseudo-header's sum in the place of the checksum, as the kernel leaves it."""
    is_v4 = packet[0] >> 4 == 4
    start = 20 if is_v4 else 40
    addresses, protocol = (packet[12:20], packet[9]) if is_v4 else (packet[8:40], packet[6])
    total = (partial_sum(addresses) + protocol + len(packet) - start) % 65535
    place = start + offset
    return packet[:place] + total.to_bytes(2, "big") + packet[place + 2 :]


def super_tcp(ends: tuple[str, str], size: int, segment: int, **more: int) -> tuple[bytes, bytes]:
    packet = opened(tcp(*ends, (1, 2), payload(size), options=bytes([1] * 12), **more), 16)
    v4 = ends == V4
    return header(1 if v4 else 4, segment, 20 if v4 else 40, 16), packet


def payload(size: int) -> bytes:
    return bytes(i * 7 & 255 for i in range(size))


def test_an_ordinary_packet_stays_itself() -> None:
    packet = udp(*V4, (1, 2), b"x")
    assert pieces(NO_OFFLOAD, packet) == [packet]
    check(NO_OFFLOAD, b"anything")


@pytest.mark.parametrize("ends", [V4, V6])
@pytest.mark.parametrize("size", [1, 1399, 1400, 1401, 5000, 60_000])
def test_a_tcp_packet_is_cut_into_valid_segments(ends: tuple[str, str], size: int) -> None:
    segments = pieces(*super_tcp(ends, size, 1400))
    start = 20 if ends == V4 else 40
    assert len(segments) == -(-size // 1400)
    carried = b""
    for segment in segments:
        assert_valid(segment)
        body = segment[start:]
        assert int.from_bytes(body[4:8], "big") == 1000 + len(carried)
        assert len(body) <= 32 + 1400
        carried += body[32:]
    assert carried == payload(size)


def test_flags_are_where_they_belong() -> None:
    segments = pieces(*super_tcp(V4, 3000, 1000, flags=FIN | PSH | ACK | CWR))
    assert [segment[33] for segment in segments] == [ACK | CWR, ACK, ACK | PSH | FIN]


def test_sequence_numbers_wrap() -> None:
    segments = pieces(*super_tcp(V6, 2000, 1000, sequence=2**32 - 1000))
    assert segments[1][44:48] == b"\0\0\0\0"
    assert_valid(segments[1])


def test_identifications_of_segments_differ() -> None:
    segments = pieces(*super_tcp(V4, 3000, 1000))
    assert len({segment[4:6] for segment in segments}) == 3


@pytest.mark.parametrize("ends", [V4, V6])
def test_a_udp_packet_is_cut_into_valid_datagrams(ends: tuple[str, str]) -> None:
    packet = opened(udp(*ends, (1, 2), payload(5000)), 6)
    start = 20 if ends == V4 else 40
    datagrams = pieces(header(5, 1300, start, 6), packet)
    for datagram in datagrams:
        assert_valid(datagram)
    assert b"".join(datagram[start + 8 :] for datagram in datagrams) == payload(5000)


@pytest.mark.parametrize("ends", [V4, V6])
@pytest.mark.parametrize("make", [tcp, udp])
def test_an_open_checksum_is_finished(ends: tuple[str, str], make: object) -> None:
    offset = 16 if make is tcp else 6
    packet = make(*ends, (1, 2), b"odd")  # type: ignore[operator]
    start = 20 if ends == V4 else 40
    assert pieces(header(0, 0, start, offset), opened(packet, offset)) == [packet]


SUPER_HEADER, SUPER = super_tcp(V4, 3000, 1000)


@pytest.mark.parametrize(
    "changed",
    [
        header(4, 1000, 20, 16),  # the other family
        header(5, 1000, 20, 16),  # another protocol
        header(3, 1000, 20, 16),  # unknown
        header(0x80, 1000, 20, 16),  # ECN alone
        header(1, 0, 20, 16),
        header(1, 1, 20, 16),  # 3000 segments
        header(1, 1000, 24, 16),
        header(1, 1000, 20, 6),
        header(1, 1000, 20, 60_000),
        header(1, 1000, 20, 16, flags=0),
        header(1, 1000, 20, 16, flags=3),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changed: bytes) -> None:
    with pytest.raises(ProtocolError):
        check(changed, SUPER)


@pytest.mark.parametrize(
    "packet",
    [
        SUPER[:-1],
        SUPER + b"x",
        SUPER[:39],
        b"",
        bytes(65_536),
        SUPER[:6] + b"\x20" + SUPER[7:],  # more fragments
        SUPER[:32] + b"\x40" + SUPER[33:],  # a TCP header of 16 bytes
        SUPER[:32] + b"\xf0" + SUPER[33:60],  # nothing behind the header
        ip("10.0.0.2", "10.0.0.1", 47, bytes(100)),
    ],
)
def test_a_packet_that_does_not_fit_is_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        check(SUPER_HEADER, packet)


def test_ecn_is_allowed_beside_a_type() -> None:
    check(header(0x81, 1000, 20, 16), SUPER)


@given(st.binary(min_size=10, max_size=10), st.binary(max_size=120))
def test_junk_is_cut_or_refused(head: bytes, packet: bytes) -> None:
    try:
        pieces(head, packet)
    except ProtocolError:
        pass


@given(st.lists(st.tuples(st.integers(0, 109), st.integers(0, 255)), max_size=4))
def test_a_damaged_packet_is_cut_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SUPER_HEADER + SUPER)
    for place, value in changes:
        data[place] = value
    head, packet = bytes(data[:10]), bytes(data[10:])
    try:
        check(head, packet)
    except ProtocolError:
        return
    assert sum(map(len, pieces(head, packet))) >= len(packet) - 60


def test_the_addresses_of_the_samples_are_what_they_seem() -> None:
    assert SUPER[12:20] == packed(V4[0]) + packed(V4[1])
