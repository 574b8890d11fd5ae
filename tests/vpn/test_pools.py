"""Tests of `tunnel_rs.vpn.pools`."""

from ipaddress import IPv4Address, IPv4Network

from tests.support.ip_packets import packed
from tests.support.vpn import server_settings

from tunnel_rs.proto.vpn_nat64 import Nat64Settings
from tunnel_rs.vpn.pools import AddressPools


def test_the_servers_own_addresses() -> None:
    pools = AddressPools(server_settings(server4=IPv4Address("10.7.0.9")))
    assert [str(interface) for interface in pools.interfaces] == ["10.7.0.9/24", "fd07::1/64"]


def test_leases_hold_what_a_client_is_told() -> None:
    leases = AddressPools(server_settings()).allocate("a", None)
    assert leases is not None
    assert leases.texts == ("10.7.0.2", "fd07::2")
    assert leases.packed == (packed("10.7.0.2"), packed("fd07::2"))
    assert leases.lease4 is not None and str(leases.lease4.server) == "10.7.0.1"


def test_one_family_alone() -> None:
    leases = AddressPools(server_settings(network6=None)).allocate("a", None)
    assert leases is not None and leases.lease6 is None


def test_a_released_client_frees_both_addresses() -> None:
    pools = AddressPools(server_settings(network4=IPv4Network("10.7.0.0/30"), network6=None))
    assert pools.allocate("a", None) is not None
    assert pools.allocate("b", None) is None
    pools.release("a")
    assert pools.allocate("b", None) is not None


def test_the_address_of_nat64_is_not_given_away() -> None:
    source = Nat64Settings(packed("10.7.0.2"))
    leases = AddressPools(server_settings(network6=None, nat64=source)).allocate("a", None)
    assert leases is not None and leases.texts == ("10.7.0.3",)
    outside = Nat64Settings(packed("10.64.0.1"))
    AddressPools(server_settings(network6=None, nat64=outside))
