"""Tests of `tunnel_rs.proto.vpn_joining`."""

from struct import unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ip_packets import TIMESTAMPS, assert_valid, burst, numbered, packed, tcp, udp

from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_joining import join
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD

V4, V6 = ("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")
OWN = {packed(V4[1]), packed(V6[1])}
ACK, PSH, FIN = 0x10, 0x08, 0x01
both = pytest.mark.parametrize("ends", [V4, V6], ids=["IPv4", "IPv6"])


def joined(packets: list[bytes]) -> list[Offloaded]:
    return join([(NO_OFFLOAD, packet) for packet in packets], OWN)


def tcp_payload(packet: bytes) -> bytes:
    start = 20 if packet[0] >> 4 == 4 else 40
    return packet[start + (packet[start + 12] >> 4) * 4 :]


def payloads(*sizes: int) -> list[bytes]:
    return [bytes((index * 7 + at) % 256 for at in range(n)) for index, n in enumerate(sizes)]


@both
def test_segments_that_follow_one_another_become_one(ends: tuple[str, str]) -> None:
    data = payloads(1000, 1000, 1000, 333)
    [(header, packet)] = joined(burst(ends, data, last_flags=ACK | PSH))
    assert_valid(packet)
    assert tcp_payload(packet) == b"".join(data)
    start = 20 if ends is V4 else 40
    assert unpack_from("<BBHHHH", header) == (0, 1 if ends is V4 else 4, start + 32, 1000, 0, 0)
    assert packet[start + 13] == ACK | PSH
    assert packet[start + 20 : start + 32] == TIMESTAMPS


@given(
    st.sampled_from([V4, V6]),
    st.lists(st.binary(min_size=300, max_size=300), min_size=2, max_size=30),
    st.integers(0, 2**32 - 1),
    st.integers(0, 0xFFFF),
)
def test_no_byte_changes_whatever_the_numbers_are(
    ends: tuple[str, str], data: list[bytes], sequence: int, first: int
) -> None:
    packets = burst(
        ends, data, sequence=sequence, identification=lambda index: (first + index) & 0xFFFF
    )
    out = joined(packets)
    assert b"".join(tcp_payload(packet) for _, packet in out) == b"".join(data)
    for _, packet in out:
        assert_valid(packet)
    # Where a number starts anew the run may break, once each.
    assert len(out) <= 4


@both
def test_a_wrong_byte_stays_wrong(ends: tuple[str, str]) -> None:
    packets = burst(ends, payloads(1000, 1000, 1000))
    packets[1] = packets[1][:-1] + bytes([packets[1][-1] ^ 1])
    [(_, packet)] = joined(packets)
    with pytest.raises(AssertionError):
        assert_valid(packet)


def test_identifications_may_stay_the_same() -> None:
    assert len(joined(burst(V4, payloads(500, 500, 500), identification=lambda _: 0))) == 1


def test_a_joined_packet_is_no_larger_than_ip_allows() -> None:
    out = joined(burst(V4, payloads(*[1400] * 100)))
    assert [len(packet) for _, packet in out] == [52 + 46 * 1400, 52 + 46 * 1400, 52 + 8 * 1400]


def test_a_short_segment_ends_a_run() -> None:
    out = joined(burst(V4, payloads(1000, 400, 1000, 1000)))
    assert [len(tcp_payload(packet)) for _, packet in out] == [1400, 2000]


def test_a_pushed_segment_ends_a_run() -> None:
    first = burst(V4, payloads(1000, 1000), last_flags=ACK | PSH)
    then = burst(V4, payloads(1000, 1000), sequence=3000, identification=lambda n: 102 + n)
    assert [len(tcp_payload(packet)) for _, packet in joined(first + then)] == [2000, 2000]


def change(packet: bytes, at: int, value: bytes) -> bytes:
    return packet[:at] + value + packet[at + len(value) :]


DIFFERENCES = {
    "a gap": lambda p: tcp(*V4, (5, 6), bytes(1000), sequence=2002, options=TIMESTAMPS),
    "another port": lambda p: tcp(*V4, (5, 7), bytes(1000), sequence=2000, options=TIMESTAMPS),
    "another sender": lambda p: tcp(
        "10.0.0.3", V4[1], (5, 6), bytes(1000), sequence=2000, options=TIMESTAMPS
    ),
    "another option": lambda p: tcp(
        *V4, (5, 6), bytes(1000), sequence=2000, options=TIMESTAMPS[:-1] + b"\1"
    ),
    "the end": lambda p: tcp(
        *V4, (5, 6), bytes(1000), sequence=2000, options=TIMESTAMPS, flags=ACK | FIN
    ),
    "longer": lambda p: tcp(*V4, (5, 6), bytes(1002), sequence=2000, options=TIMESTAMPS),
    "no data": lambda p: tcp(*V4, (5, 6), b"", sequence=2000, options=TIMESTAMPS),
    "another window": lambda p: change(p, 34, b"\7\7"),
    "another acknowledgement": lambda p: change(p, 28, b"\7\7\7\7"),
    "another time to live": lambda p: change(p, 8, b"\7"),
    "a wrong IP checksum": lambda p: change(p, 10, b"\7\7"),
    "a fragment": lambda p: numbered(p, 101, fragmentation=0x2000),
    "cut off": lambda p: p[:30],
    "padded": lambda p: p + b"\0\0",
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_differs_is_not_joined(name: str) -> None:
    one, other = burst(V4, payloads(1000, 1000))
    changed = DIFFERENCES[name](other)
    if changed[:20] != other[:20] and name not in ("a wrong IP checksum", "a fragment", "cut off"):
        changed = numbered(changed, 101)
    assert joined([one, changed]) == [(NO_OFFLOAD, one), (NO_OFFLOAD, changed)]


FIRSTS = {
    "UDP": udp(*V4, (5, 6), bytes(1000)),
    "another destination": burst(("10.0.0.2", "10.0.0.9"), payloads(1000))[0],
    "a fragment": numbered(burst(V4, payloads(1000))[0], 1, fragmentation=0x2000),
    "may be fragmented": numbered(burst(V4, payloads(1000))[0], 1, fragmentation=0),
    "an odd length": burst(V4, payloads(1001))[0],
    "a push": burst(V4, payloads(1000), last_flags=ACK | PSH)[0],
    "a wrong IP checksum": change(burst(V4, payloads(1000))[0], 10, b"\7\7"),
    "a header longer than the packet": change(burst(V4, payloads(250))[0], 32, b"\xf0"),
    "a header too short": change(burst(V6, payloads(1000))[0], 52, b"\x40"),
    "junk": bytes(1000),
}


@pytest.mark.parametrize("name", FIRSTS)
def test_what_cannot_begin_a_run_is_left_alone(name: str) -> None:
    first = FIRSTS[name]
    assert joined([first, first]) == [(NO_OFFLOAD, first)] * 2


def test_others_keep_their_places_between_runs() -> None:
    one, other = burst(V4, payloads(1000, 1000)), burst(V6, payloads(600, 600))
    lone = udp(*V4, (1, 2), b"x")
    whole = (b"\1" * 10, bytes(2000))
    out = join([(NO_OFFLOAD, p) for p in (*one, lone, *other)] + [whole], OWN)
    assert [len(packet) for _, packet in out] == [2052, len(lone), 1272, 2000]
    assert out[3] is whole


@given(st.lists(st.binary(max_size=400), max_size=6))
def test_junk_passes_as_it_is(packets: list[bytes]) -> None:
    assert joined(packets) == [(NO_OFFLOAD, packet) for packet in packets]
