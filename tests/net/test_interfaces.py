import socket
from ipaddress import IPv4Address, IPv6Address

import ifaddr
import pytest

from tunnel_rs.net.interfaces import Interface, local_interfaces, reachable_addresses
from tunnel_rs.values import SocketAddr

LO = Interface("lo", 1, (IPv4Address("127.0.0.1"),), (IPv6Address("::1"),))
ETH = Interface(
    "eth0",
    2,
    (IPv4Address("192.0.2.7"), IPv4Address("198.51.100.7")),
    (IPv6Address("2001:db8::7"),),
)


def test_the_loopback_interface_of_this_machine_is_listed() -> None:
    [loopback] = [each for each in local_interfaces() if IPv4Address("127.0.0.1") in each.ipv4]
    assert loopback.is_loopback
    assert loopback.index == socket.if_nametoindex(loopback.name)


def test_link_local_ipv6_addresses_and_interfaces_without_others_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapters = [
        ifaddr.Adapter(
            "eth0",
            "eth0",
            [
                ifaddr.IP("192.0.2.7", 24, "eth0"),
                ifaddr.IP(("fe80::1%eth0", 0, 2), 64, "eth0"),
                ifaddr.IP(("2001:db8::7", 0, 0), 64, "eth0"),
            ],
            index=2,
        ),
        ifaddr.Adapter("veth0", "veth0", [ifaddr.IP(("fe80::2", 0, 3), 64, "veth0")], index=3),
        ifaddr.Adapter("{GUID}", "Ethernet", [ifaddr.IP("192.0.2.8", 24, "x")], index=None),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    assert local_interfaces() == (
        Interface("eth0", 2, (IPv4Address("192.0.2.7"),), (IPv6Address("2001:db8::7"),)),
        Interface("{GUID}", 0, (IPv4Address("192.0.2.8"),)),
    )


def test_a_wildcard_stands_for_all_addresses_of_its_family_with_loopback_last() -> None:
    bound = [SocketAddr("0.0.0.0", 4444), SocketAddr("::", 5555)]
    assert reachable_addresses(bound, [LO, ETH]) == (
        SocketAddr("192.0.2.7", 4444),
        SocketAddr("198.51.100.7", 4444),
        SocketAddr("127.0.0.1", 4444),
        SocketAddr("2001:db8::7", 5555),
        SocketAddr("::1", 5555),
    )


def test_other_addresses_are_kept_as_they_are_and_once() -> None:
    bound = [SocketAddr("192.0.2.7", 1), SocketAddr("203.0.113.1", 1), SocketAddr("0.0.0.0", 1)]
    assert reachable_addresses(bound, [ETH]) == (
        SocketAddr("192.0.2.7", 1),
        SocketAddr("203.0.113.1", 1),
        SocketAddr("198.51.100.7", 1),
    )


def test_without_interfaces_a_wildcard_stands_for_nothing() -> None:
    assert reachable_addresses([SocketAddr("0.0.0.0", 1)], []) == ()
