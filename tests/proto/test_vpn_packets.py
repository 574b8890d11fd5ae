import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ip_packets import packed, udp

from tunnel_rs.proto.vpn_packets import endpoints, is_link_local, is_multicast

PACKET4 = udp("10.0.0.2", "10.0.0.1", (1, 2), b"hello")
PACKET6 = udp("fd00::2", "fd00::1", (1, 2), b"hello")


def test_source_and_destination_of_both_families() -> None:
    assert endpoints(PACKET4) == (packed("10.0.0.2"), packed("10.0.0.1"))
    assert endpoints(PACKET6) == (packed("fd00::2"), packed("fd00::1"))


def test_bytes_behind_a_packet_are_tolerated() -> None:
    assert endpoints(PACKET4 + b"pad") == endpoints(PACKET4)


@pytest.mark.parametrize("packet", [PACKET4, PACKET6])
def test_a_packet_cut_off_anywhere_is_none(packet: bytes) -> None:
    assert all(endpoints(packet[:size]) is None for size in range(len(packet)))


@pytest.mark.parametrize(
    "packet",
    [
        b"\x44" + PACKET4[1:],  # a header of 16 bytes
        b"\x4f" + PACKET4[1:],  # a header longer than the packet
        b"\x55" + PACKET4[1:],
        b"\x00" + PACKET4[1:],
        PACKET4[:2] + b"\0\x13" + PACKET4[4:],  # shorter than its header
    ],
)
def test_what_contradicts_itself_is_none(packet: bytes) -> None:
    assert endpoints(packet) is None


@given(st.binary(max_size=80))
def test_junk_is_judged_without_an_error(junk: bytes) -> None:
    found = endpoints(junk)
    assert found is None or {len(address) for address in found} in ({4}, {16})


@pytest.mark.parametrize(
    ("address", "link_local", "multicast"),
    [
        ("fe80::1", True, False),
        ("febf::1", True, False),
        ("fec0::1", False, False),
        ("ff02::1", False, True),
        ("224.0.0.1", False, True),
        ("239.255.255.255", False, True),
        ("255.255.255.255", False, True),
        ("10.0.0.255", False, False),
    ],
)
def test_kinds_of_addresses(address: str, link_local: bool, multicast: bool) -> None:
    assert is_link_local(packed(address)) is link_local
    assert is_multicast(packed(address)) is multicast
