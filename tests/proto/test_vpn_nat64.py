from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ip_packets import (
    ICMPV6,
    assert_valid,
    echo,
    icmp_error,
    ip,
    packed,
    tcp,
    udp,
)
from tests.support.splitting import mutations

from tunnel_rs.proto import vpn_nat64
from tunnel_rs.proto.vpn_nat64 import Nat64, Nat64Settings, Untranslatable, is_ours

CLIENT, OTHER = "fd00::2", "fd00::3"
HOST, HOST6 = "198.51.100.7", "64:ff9b::198.51.100.7"
OURS = "10.0.0.254"
SETTINGS = Nat64Settings(packed(OURS), 40_000, 40_003)


def nat() -> Nat64:
    return Nat64(SETTINGS)


def ports(packet: bytes, header: int) -> tuple[int, int]:
    return (
        int.from_bytes(packet[header : header + 2], "big"),
        int.from_bytes(packet[header + 2 : header + 4], "big"),
    )


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(1300)])
def test_a_packet_goes_out_and_its_answer_comes_back(make: object, payload: bytes) -> None:
    translator = nat()
    out = translator.to_ipv4(make(CLIENT, HOST6, (5555, 80), payload), 0.0)  # type: ignore[operator]
    assert_valid(out)
    assert (out[12:16], out[16:20]) == (packed(OURS), packed(HOST))
    assert ports(out, 20) == (40_000, 80)
    assert out[8] == 63
    back = translator.to_ipv6(make(HOST, OURS, (80, 40_000), payload), 1.0)  # type: ignore[operator]
    assert_valid(back)
    assert (back[8:24], back[24:40]) == (packed(HOST6), packed(CLIENT))
    assert ports(back, 40) == (80, 5555)
    assert back[7] == 63
    assert back.endswith(payload)


def test_a_ping_and_its_answer() -> None:
    translator = nat()
    out = translator.to_ipv4(echo(CLIENT, HOST6, 77, b"odd"), 0.0)
    assert_valid(out)
    assert out[20:22] == b"\x08\x00" and out[24:26] == (40_000).to_bytes(2, "big")
    back = translator.to_ipv6(echo(HOST, OURS, 40_000, b"odd", reply=True), 0.0)
    assert_valid(back)
    assert back[40:42] == b"\x81\x00" and back[44:46] == (77).to_bytes(2, "big")


def test_udp_without_a_checksum_gets_one_in_ipv6() -> None:
    translator = nat()
    translator.to_ipv4(udp(CLIENT, HOST6, (1, 53)), 0.0)
    answer = bytearray(udp(HOST, OURS, (53, 40_000), b"answer"))
    answer[26:28] = b"\0\0"
    back = translator.to_ipv6(bytes(answer), 0.0)
    assert back[46:48] != b"\0\0"
    assert_valid(back)


@given(st.integers(0, 65_535), st.integers(1, 65_535), st.binary(max_size=40))
def test_checksums_are_right_whatever_is_carried(near: int, far: int, payload: bytes) -> None:
    translator = nat()
    for make in (tcp, udp):
        assert_valid(translator.to_ipv4(make(CLIENT, HOST6, (near, far), payload), 0.0))
        port = ports(translator.to_ipv4(make(CLIENT, HOST6, (near, far), payload), 0.0), 20)[0]
        assert_valid(translator.to_ipv6(make(HOST, OURS, (far, port), payload), 0.0))


def test_one_flow_keeps_its_port_and_another_gets_another() -> None:
    translator = nat()
    sources = [(CLIENT, 1), (CLIENT, 1), (CLIENT, 2), (OTHER, 1)]
    seen = [
        ports(translator.to_ipv4(udp(client, HOST6, (port, 53)), 0.0), 20)[0]
        for client, port in sources
    ]
    assert seen == [40_000, 40_000, 40_001, 40_002]


def test_a_port_serves_many_destinations() -> None:
    translator = nat()
    for last in range(40):
        translator.to_ipv4(udp(CLIENT, f"64:ff9b::198.51.100.{last}", (1, 53)), 0.0)
    assert len(translator) == 40


def test_when_all_ports_are_taken_packets_are_dropped_until_one_is_free() -> None:
    translator = nat()
    for port in range(4):
        translator.to_ipv4(udp(CLIENT, HOST6, (port, 53)), float(port))
    with pytest.raises(Untranslatable, match="no port"):
        translator.to_ipv4(udp(CLIENT, HOST6, (9, 53)), 5.0)
    out = translator.to_ipv4(udp(CLIENT, HOST6, (9, 53)), 30.5)
    assert ports(out, 20)[0] == 40_000


def test_a_flow_is_over_after_its_idle_time_and_activity_of_both_sides_counts() -> None:
    translator = nat()
    translator.to_ipv4(udp(CLIENT, HOST6, (1, 53)), 0.0)
    translator.to_ipv6(udp(HOST, OURS, (53, 40_000)), 29.0)
    translator.to_ipv6(udp(HOST, OURS, (53, 40_000)), 58.0)
    with pytest.raises(Untranslatable, match="no flow"):
        translator.to_ipv6(udp(HOST, OURS, (53, 40_000)), 88.1)
    translator.to_ipv4(tcp(CLIENT, HOST6, (1, 80)), 100.0)
    translator.to_ipv6(tcp(HOST, OURS, (80, 40_001)), 399.0)


def test_flows_are_bounded_per_client_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vpn_nat64, "MAX_FLOWS_OF_CLIENT", 3)
    monkeypatch.setattr(vpn_nat64, "MAX_FLOWS", 5)
    translator = Nat64(replace(SETTINGS, last_port=65_535))

    def flows(client: str) -> int:
        made = 0
        for port in range(10):
            try:
                translator.to_ipv4(udp(client, HOST6, (port, 53)), 0.0)
                made += 1
            except Untranslatable:
                pass
        return made

    assert [flows(CLIENT), flows(OTHER)] == [3, 2]
    translator.to_ipv4(udp(OTHER, HOST6, (99, 53)), 60.0)  # the sweep made room
    assert len(translator) == 1


def test_a_client_that_has_gone_is_forgotten_and_others_are_not() -> None:
    translator = nat()
    out = translator.to_ipv4(udp(CLIENT, HOST6, (1, 53)), 0.0)
    translator.to_ipv4(udp(OTHER, HOST6, (1, 53)), 0.0)
    translator.forget(packed(CLIENT))
    translator.forget(packed(CLIENT))
    assert len(translator) == 1
    port = int.from_bytes(out[20:22], "big")
    with pytest.raises(Untranslatable):
        translator.to_ipv6(udp(HOST, OURS, (53, port)), 0.0)


def test_only_the_host_that_was_spoken_to_may_answer() -> None:
    translator = nat()
    translator.to_ipv4(udp(CLIENT, HOST6, (1, 53)), 0.0)
    for source, far in (("198.51.100.8", 53), (HOST, 54)):
        with pytest.raises(Untranslatable, match="no flow"):
            translator.to_ipv6(udp(source, OURS, (far, 40_000)), 0.0)


def test_long_packets_must_not_be_fragmented_and_short_ones_may() -> None:
    translator = nat()
    long = translator.to_ipv4(udp(CLIENT, HOST6, (1, 53), bytes(1300)), 0.0)
    short = translator.to_ipv4(udp(CLIENT, HOST6, (1, 53), bytes(100)), 0.0)
    assert (long[6], short[6]) == (0x40, 0)


def test_an_icmp_error_reaches_the_client_about_its_own_packet() -> None:
    translator = nat()
    out = translator.to_ipv4(udp(CLIENT, HOST6, (5555, 53), b"question"), 0.0)
    error = translator.to_ipv6(icmp_error("203.0.113.1", OURS, 3, 3, 0, out[:28]), 0.0)
    assert_valid(error)
    assert error[8:24] == packed("64:ff9b::203.0.113.1")
    assert error[40:42] == b"\x01\x04"
    quoted = error[48:]
    assert (quoted[8:24], quoted[24:40]) == (packed(CLIENT), packed(HOST6))
    assert ports(quoted, 40) == (5555, 53)


def test_too_big_tells_the_mtu_of_the_other_family() -> None:
    translator = nat()
    out = translator.to_ipv4(tcp(CLIENT, HOST6, (5555, 80), bytes(1300)), 0.0)
    error = translator.to_ipv6(icmp_error("203.0.113.1", OURS, 3, 4, 1300, out[:28]), 0.0)
    assert_valid(error)
    assert error[40:42] == b"\x02\x00" and error[44:48] == (1320).to_bytes(4, "big")


def test_an_error_about_a_ping_reaches_the_client() -> None:
    translator = nat()
    out = translator.to_ipv4(echo(CLIENT, HOST6, 77), 0.0)
    error = translator.to_ipv6(icmp_error("203.0.113.1", OURS, 11, 0, 0, out[:28]), 0.0)
    assert_valid(error)
    assert error[48 + 40] == 128 and error[48 + 44 : 48 + 46] == (77).to_bytes(2, "big")


@pytest.mark.parametrize("make", [udp, tcp])
def test_a_clients_error_reaches_the_host(make: object) -> None:
    translator = nat()
    translator.to_ipv4(make(CLIENT, HOST6, (5555, 53)), 0.0)  # type: ignore[operator]
    answer = translator.to_ipv6(make(HOST, OURS, (53, 40_000)), 0.0)  # type: ignore[operator]
    error = translator.to_ipv4(icmp_error(CLIENT, HOST6, 1, 4, 0, answer), 0.0)
    assert_valid(error)
    assert error[20:22] == b"\x03\x03"
    quoted = error[28:]
    assert (quoted[12:16], quoted[16:20]) == (packed(HOST), packed(OURS))
    assert ports(quoted, 20) == (53, 40_000)


def test_a_client_cannot_complain_about_packets_of_others() -> None:
    translator = nat()
    translator.to_ipv4(udp(OTHER, HOST6, (5555, 53)), 0.0)
    answer = translator.to_ipv6(udp(HOST, OURS, (53, 40_000)), 0.0)
    with pytest.raises(Untranslatable, match="somebody else"):
        translator.to_ipv4(icmp_error(CLIENT, HOST6, 1, 4, 0, answer), 0.0)


@pytest.mark.parametrize(
    "packet",
    [
        udp(CLIENT, "fd00::1", (1, 2)),
        ip(CLIENT, HOST6, 44, bytes(16)),  # a fragment header
        ip(CLIENT, HOST6, ICMPV6, bytes([133, 0, 0, 0, 0, 0, 0, 0])),
        ip(CLIENT, HOST6, 17, bytes(7)),
        ip(CLIENT, HOST6, 17, bytes(8), hops=1),
        b"",
    ],
)
def test_what_cannot_be_told_in_ipv4_is_dropped(packet: bytes) -> None:
    with pytest.raises(Untranslatable):
        nat().to_ipv4(packet, 0.0)


def fragment(packet: bytes) -> bytes:
    return packet[:6] + b"\x20\x00" + packet[8:]


@pytest.mark.parametrize(
    "packet",
    [
        udp(HOST, "10.0.0.9", (53, 40_000)),
        fragment(udp(HOST, OURS, (53, 40_000))),
        ip(HOST, OURS, 47, bytes(30)),
        ip(HOST, OURS, 17, bytes(8), hops=1),
        b"\x45",
        b"",
    ],
)
def test_what_cannot_be_told_in_ipv6_is_dropped(packet: bytes) -> None:
    with pytest.raises(Untranslatable):
        nat().to_ipv6(packet, 0.0)


ERROR4 = icmp_error("203.0.113.1", OURS, 3, 3, 0, udp(OURS, HOST, (40_000, 53)))
ERROR6 = icmp_error(CLIENT, HOST6, 1, 4, 0, udp(HOST6, CLIENT, (53, 1)))


@given(st.one_of(mutations(ERROR4), mutations(udp(HOST, OURS, (53, 40_000), b"abc"))))
def test_damaged_packets_from_outside_are_translated_or_dropped(packet: bytes) -> None:
    translator = nat()
    translator.to_ipv4(udp(CLIENT, HOST6, (1, 53)), 0.0)
    try:
        translator.to_ipv6(packet, 0.0)
    except Untranslatable:
        pass


@given(st.one_of(mutations(ERROR6), mutations(tcp(CLIENT, HOST6, (1, 53), b"abc"))))
def test_damaged_packets_of_clients_are_translated_or_dropped(packet: bytes) -> None:
    translator = nat()
    translator.to_ipv4(udp(CLIENT, HOST6, (1, 53)), 0.0)
    try:
        translator.to_ipv4(packet, 0.0)
    except Untranslatable:
        pass


def test_the_prefix() -> None:
    assert is_ours(packed(HOST6))
    assert not is_ours(packed("64:ff9b:1::1"))
