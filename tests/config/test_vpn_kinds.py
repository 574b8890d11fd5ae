from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tunnel_rs.config import vpn_kinds
from tunnel_rs.config.kinds import Kind
from tunnel_rs.vpn.settings import Spoofing


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (vpn_kinds.NETWORK4, "10.0.0.0/24", ip_interface("10.0.0.0/24")),
        (vpn_kinds.NETWORK4, "10.0.0.5/24", ip_interface("10.0.0.5/24")),
        (vpn_kinds.NETWORK6, "fd00::/64", ip_interface("fd00::/64")),
        (vpn_kinds.ADDRESS4, "10.0.0.1", ip_address("10.0.0.1")),
        (vpn_kinds.ADDRESS6, "fd00::1", ip_address("fd00::1")),
        (vpn_kinds.ROUTES, "0.0.0.0/0", (ip_network("0.0.0.0/0"),)),
        (vpn_kinds.ROUTES, "fd00::/8", (ip_network("fd00::/8"),)),
        (vpn_kinds.ROUTES6, "::/0", (ip_network("::/0"),)),
        (vpn_kinds.ADDRESSES, "10.0.0.1", (ip_address("10.0.0.1"),)),
        (vpn_kinds.DOMAINS, "lan.example", ("lan.example",)),
        (vpn_kinds.DEVICE, "vpn-0_x", "vpn-0_x"),
        (vpn_kinds.SPOOFING, "loose", Spoofing.LOOSE),
    ],
)
def test_values_are_read(kind: Kind[object], text: str, value: object) -> None:
    assert kind.from_texts([text]) == value
    assert kind.from_toml([text] if kind.repeatable else text) == value


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (vpn_kinds.NETWORK4, "10.0.0.0", "write 10.0.0.0/24"),
        (vpn_kinds.NETWORK4, "10.0.0.0/255.0.0.0", "write 10.0.0.0/24"),
        (vpn_kinds.NETWORK4, "10.0.0.0/33", "write 10.0.0.0/24"),
        (vpn_kinds.NETWORK4, "fd00::/64", "write 10.0.0.0/24"),
        (vpn_kinds.NETWORK6, "10.0.0.0/24", "write fd00::/64"),
        (vpn_kinds.NETWORK6, "fe80::%x/64", "write fd00::/64"),
        (vpn_kinds.ADDRESS4, "fd00::1", "write 10.0.0.1"),
        (vpn_kinds.ADDRESS6, "fe80::1%x", "write fd00::1"),
        (vpn_kinds.ROUTES6, "10.0.0.0/8", "belongs to routes"),
        (vpn_kinds.ROUTES, "10.0.0.1/8", "host bits"),
        (vpn_kinds.ADDRESSES, "x", "not an IP address"),
        (vpn_kinds.ADDRESSES, "224.0.0.1", "one machine"),
        (vpn_kinds.ADDRESSES, "0.0.0.0", "one machine"),
        (vpn_kinds.DOMAINS, "10.0.0.1", "not a domain"),
        (vpn_kinds.DOMAINS, "a b", "neither"),
        (vpn_kinds.DEVICE, "a" * 16, "1 to 15"),
        (vpn_kinds.DEVICE, 'x"y', "1 to 15"),
        (vpn_kinds.DEVICE, "", "1 to 15"),
        (vpn_kinds.SPOOFING, "strickt", "strict"),
        (vpn_kinds.PORT_RANGE, "1-2", "in a file"),
    ],
)
def test_wrong_values_are_refused(kind: Kind[object], text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kind.from_texts([text])


def test_a_range_of_ports() -> None:
    assert vpn_kinds.PORT_RANGE.from_toml([1, 65_535]) == (1, 65_535)


@pytest.mark.parametrize("value", [[0, 5], [5, 4], [1, 65_536], [1], "1-2", [True, 2], [1.0, 2]])
def test_a_wrong_range_of_ports_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"\[first, last\]"):
        vpn_kinds.PORT_RANGE.from_toml(value)
