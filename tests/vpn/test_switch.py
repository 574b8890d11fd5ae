"""Tests of `tunnel_rs.vpn.switch`."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from tests.support.ip_packets import assert_valid, echo, icmp_error, packed, tcp, udp
from tests.support.memory_link import link_pair
from tests.support.sockets import until
from tests.support.vpn import TOKEN, FakeTun, server_settings

from tunnel_rs.proto.access import Pass
from tunnel_rs.proto.checksum import partial_sum
from tunnel_rs.proto.grants import UNLIMITED
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_handshake import Lease
from tunnel_rs.proto.vpn_nat64 import Nat64Settings
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD
from tunnel_rs.vpn import switch as module
from tunnel_rs.vpn.pools import Leases
from tunnel_rs.vpn.session import Session
from tunnel_rs.vpn.settings import Spoofing
from tunnel_rs.vpn.switch import Switch
from tunnel_rs.vpn.traffic import Traffic

SERVER4, SERVER6 = "10.7.0.1", "fd07::1"
OWN = (packed(SERVER4), packed(SERVER6))
NETWORK4 = IPv4Network("10.7.0.0/24")
NAT64 = Nat64Settings(packed("10.64.0.1"))


@dataclass
class FakeChannel:
    """Takes what is sent, and is full when told so."""

    paused: bool = False
    overrun: int = 0
    pauses_after: int = 1_000_000
    sent: list[Offloaded] = field(default_factory=list)
    sends: int = 0

    def send(self, packets: list[Offloaded]) -> None:
        self.sends += 1
        self.sent += packets
        self.paused = self.paused or len(self.sent) >= self.pauses_after

    @property
    def packets(self) -> list[bytes]:
        return [packet for _, packet in self.sent]


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.tun = FakeTun()
        self.switch = Switch(server_settings(**settings), self.tun, OWN)
        self.tun.start(self.switch.from_device, lambda error: None)

    def add(self, number: int, *, offload: bool = False) -> tuple[Session, FakeChannel]:
        """The client with the addresses 10.7.0.`number` and fd07::`number`."""
        leases = Leases(
            Lease(
                IPv4Address(f"10.7.0.{number}"), IPv4Network("10.7.0.0/24"), IPv4Address(SERVER4)
            ),
            Lease(IPv6Address(f"fd07::{number}"), IPv6Network("fd07::/64"), IPv6Address(SERVER6)),
        )
        link, _ = link_pair()
        session = Session(
            (b"key", number), link, leases, offload, 0.0, Traffic(), Pass(TOKEN, UNLIMITED)
        )
        channel = FakeChannel()
        session.channel = channel  # type: ignore[assignment]
        self.switch.add(session)
        return session, channel

    def send(self, session: Session, *packets: bytes) -> None:
        self.switch.from_client(session)([(NO_OFFLOAD, packet) for packet in packets])


async def test_packets_from_the_device_go_to_who_has_the_address() -> None:
    bench = Bench()
    (_, one), (_, other) = bench.add(2), bench.add(3)
    to_one = udp(SERVER4, "10.7.0.2", (1, 2)), udp(SERVER6, "fd07::2", (1, 2))
    to_other = udp(SERVER4, "10.7.0.3", (1, 2))
    bench.tun.bring(to_one[0], to_other, to_one[1], udp(SERVER4, "10.7.0.9", (1, 2)), b"junk")
    assert one.packets == list(to_one)
    assert other.packets == [to_other]
    assert bench.switch.dropped == {"no such client": 2}


async def test_a_removed_client_gets_nothing_unless_another_has_its_address() -> None:
    bench = Bench()
    first, old = bench.add(2)
    _, new = bench.add(2)
    bench.switch.remove(first)
    bench.tun.bring(udp(SERVER4, "10.7.0.2", (1, 2)))
    assert (len(old.sent), len(new.sent)) == (0, 1)


@pytest.mark.parametrize(
    ("spoofing", "passes"),
    [
        (Spoofing.STRICT, {"own"}),
        (Spoofing.LOOSE, {"own", "nobody"}),
        (Spoofing.OFF, {"own", "nobody", "client", "server", "link-local", "multicast"}),
    ],
)
async def test_source_addresses(spoofing: Spoofing, passes: set[str]) -> None:
    sources = {
        "own": "fd07::2",
        "nobody": "fd07::99",
        "client": "fd07::3",
        "server": SERVER6,
        "link-local": "fe80::1",
        "multicast": "ff0e::1",
    }
    for name, source in sources.items():
        bench = Bench(spoofing=spoofing)
        session, _ = bench.add(2)
        bench.add(3)
        packet = udp(source, "2001:db8::1", (1, 2))
        bench.send(session, packet)
        assert bench.tun.packets == ([packet] if name in passes else [])
        reason = {"link-local": "link-local"}.get(name, "spoofed")
        assert session.traffic.dropped == ({} if name in passes else {reason: 1})


async def test_junk_and_groups_are_dropped() -> None:
    bench = Bench(spoofing=Spoofing.OFF)
    session, _ = bench.add(2)
    groups = udp("10.7.0.2", "239.1.1.1", (1, 2)), udp("fd07::2", "ff02::1", (1, 2))
    bench.send(session, b"", b"junk", bytes(60), *groups)
    assert session.traffic.dropped == {"malformed": 3, "multicast": 2}
    assert bench.tun.packets == []


@pytest.mark.parametrize("isolated", [True, False])
async def test_from_client_to_client(isolated: bool) -> None:
    bench = Bench(client_isolation=isolated)
    one, _ = bench.add(2)
    _, other = bench.add(3)
    packet = udp("10.7.0.2", "10.7.0.3", (1, 2))
    bench.send(one, packet, packet)
    assert other.packets == ([] if isolated else [packet] * 2)
    assert other.sends == (0 if isolated else 1)
    assert one.traffic.dropped == ({"isolated": 2} if isolated else {})
    assert bench.tun.packets == [], "the kernel never sees it"


async def test_where_clients_may_send_to() -> None:
    allowed = (ip_network("192.168.7.0/24"), ip_network("2001:db8::/32"))
    bench = Bench(allowed_destinations=allowed)
    session, _ = bench.add(2)
    good = [
        udp("10.7.0.2", "192.168.7.9", (1, 2)),
        udp("10.7.0.2", SERVER4, (1, 2)),
        udp("fd07::2", "2001:db8::5", (1, 2)),
    ]
    bad = [udp("10.7.0.2", "192.168.8.9", (1, 2)), udp("fd07::2", "2001:db9::5", (1, 2))]
    bench.send(session, *good, *bad, *bad)
    assert bench.tun.packets == good
    assert session.traffic.dropped == {"not allowed": 4}


async def test_what_the_system_answers_at_once_is_passed_on_at_once() -> None:
    bench = Bench()
    session, channel = bench.add(2)
    answer = udp(SERVER4, "10.7.0.2", (2, 1))
    bench.tun.answers = [answer]
    bench.send(session, udp("10.7.0.2", SERVER4, (1, 2)))
    assert channel.packets == [answer]


async def test_what_the_system_does_not_take_is_counted() -> None:
    bench = Bench()
    session, _ = bench.add(2)
    bench.tun.takes = False
    bench.send(session, udp("10.7.0.2", SERVER4, (1, 2)))
    assert session.traffic.dropped == {"refused by the system": 1}


async def test_nat64_there_and_back() -> None:
    bench = Bench(nat64=NAT64)
    session, channel = bench.add(2)
    bench.send(session, tcp("fd07::2", "64:ff9b::198.51.100.7", (1, 80)))
    [out] = bench.tun.packets
    assert_valid(out)
    assert out[12:16] == NAT64.source
    bench.tun.bring(tcp("198.51.100.7", "10.64.0.1", (80, 32_768)))
    [back] = channel.packets
    assert_valid(back)
    assert back[24:40] == packed("fd07::2")
    assert bench.switch.nat64_flows == 1
    bench.tun.bring(icmp_error("198.51.100.7", "10.64.0.1", 3, 3, 0, out[:28]))
    assert channel.packets[1][40:42] == b"\x01\x04"
    bench.tun.bring(udp("198.51.100.8", "10.64.0.1", (1, 1)))
    assert bench.switch.dropped == {"nat64": 1}


async def test_nat64_obeys_the_policy_for_the_ipv4_address() -> None:
    bench = Bench(nat64=NAT64, allowed_destinations=(ip_network("198.51.100.0/24"),))
    session, _ = bench.add(2)
    bench.send(session, echo("fd07::2", "64:ff9b::198.51.100.7", 1))
    bench.send(session, echo("fd07::2", "64:ff9b::203.0.113.7", 1))
    assert len(bench.tun.packets) == 1
    assert session.traffic.dropped == {"not allowed": 1}


async def test_nat64_is_no_way_round_the_isolation_of_clients() -> None:
    for isolated in (True, False):
        bench = Bench(nat64=NAT64, client_isolation=isolated)
        session, _ = bench.add(2)
        bench.add(3)
        bench.send(session, echo("fd07::2", "64:ff9b::10.7.0.3", 1))
        bench.send(session, echo("fd07::2", "64:ff9b::224.0.0.1", 1))
        assert len(bench.tun.packets) == (0 if isolated else 1)
        assert session.traffic.dropped["multicast"] == 1


async def test_flows_of_a_client_end_with_it_unless_it_was_replaced() -> None:
    bench = Bench(nat64=NAT64)
    session, _ = bench.add(2)
    bench.send(session, echo("fd07::2", "64:ff9b::198.51.100.7", 1))
    again, _ = bench.add(2)
    bench.switch.remove(session)
    assert bench.switch.nat64_flows == 1
    bench.switch.remove(again)
    assert bench.switch.nat64_flows == 0


async def test_super_packets_are_cut_up_for_nat64() -> None:
    bench = Bench(nat64=NAT64)
    session, _ = bench.add(2, offload=True)
    packet = tcp("fd07::2", "64:ff9b::198.51.100.7", (1, 80), bytes(2500))
    total = (partial_sum(packet[8:40]) + 6 + len(packet) - 40) % 65535
    packet = packet[:56] + total.to_bytes(2, "big") + packet[58:]
    header = b"\x01\x04\0\0\xe8\x03\x28\x00\x10\x00"
    bench.switch.from_client(session)([(header, packet)])
    assert len(bench.tun.packets) == 3
    for piece in bench.tun.packets:
        assert_valid(piece)


async def test_super_packets_are_read_only_while_all_clients_take_them() -> None:
    bench = Bench()
    capable, _ = bench.add(2, offload=True)
    assert bench.tun.offload
    other, _ = bench.add(3)
    assert not bench.tun.offload
    bench.switch.remove(other)
    assert bench.tun.offload
    bench.switch.remove(capable)
    assert not bench.tun.offload


TO_SLOW, TO_FAST = udp(SERVER4, "10.7.0.2", (1, 2)), udp(SERVER4, "10.7.0.3", (1, 2))


async def test_all_wait_for_a_slow_client_for_a_moment_then_it_loses_packets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAIT", 0.01)
    bench = Bench()
    (session, slow), (_, fast) = bench.add(2), bench.add(3)
    slow.pauses_after = 1
    bench.tun.bring(TO_SLOW)
    assert not bench.tun.reading
    await until(lambda: bench.tun.reading)
    bench.tun.bring(TO_SLOW, TO_FAST)
    assert (len(slow.sent), len(fast.sent)) == (1, 1)
    assert session.traffic.dropped == {"full": 1}
    slow.paused = False
    bench.switch.resumed(session)
    slow.pauses_after = 10
    bench.tun.bring(TO_SLOW)
    assert len(slow.sent) == 2
    bench.switch.close()


async def test_a_slow_client_that_catches_up_or_leaves_frees_the_others() -> None:
    for leaves in (False, True):
        bench = Bench()
        session, slow = bench.add(2)
        slow.pauses_after = 1
        bench.tun.bring(TO_SLOW)
        assert not bench.tun.reading
        (bench.switch.remove if leaves else bench.switch.resumed)(session)
        assert bench.tun.reading
        bench.switch.close()


async def test_with_drop_on_full_nobody_waits() -> None:
    bench = Bench(drop_on_full=True, channel_size=2)
    session, slow = bench.add(2)
    slow.pauses_after, slow.overrun = 1, 2
    bench.tun.bring(TO_SLOW)
    bench.tun.bring(TO_SLOW)
    assert bench.tun.reading
    assert session.traffic.dropped == {"full": 1}
