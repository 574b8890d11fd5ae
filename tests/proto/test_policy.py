"""Allow-lists: what is read, what is let through, what never is."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.policy import Network, SourcePolicy, parse_network
from tunnel_rs.values import Protocol

Address = IPv4Address | IPv6Address

TCP, UDP = Protocol.TCP, Protocol.UDP
EVERYTHING = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def tcp_only(*networks: str) -> SourcePolicy:
    return SourcePolicy(tuple(parse_network(network) for network in networks), ())


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("127.0.0.1", IPv4Network("127.0.0.1/32")),
        ("0.0.0.0/0", IPv4Network("0.0.0.0/0")),
        ("::1", IPv6Network("::1/128")),
        ("fd00::/8", IPv6Network("fd00::/8")),
        ("FD00:0::/8", IPv6Network("fd00::/8")),
        ("::/0", IPv6Network("::/0")),
    ],
)
def test_networks_and_single_addresses_are_read(text: str, network: Network) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.1/8", r"host bits set; write 10\.0\.0\.0/8 or 10\.0\.0\.1$"),
        ("fd00::1/8", r"host bits set; write fd00::/8 or fd00::1$"),
        ("10.0.0.0/33", "is not a network; write "),
        ("10.0.0.0/", "write the prefix length as a number"),
        ("10.0.0.0/-1", "write the prefix length as a number"),
        ("10.0.0.0/8/8", "write the prefix length as a number"),
        ("10.0.0.0/255.0.0.0", "write the prefix length as a number"),
        ("10.0.0.0/0.255.255.255", "write the prefix length as a number"),
        ("10.0.0.0/\u0668", "write the prefix length as a number"),
        ("10.0.0", "is not a network"),
        ("010.0.0.0/8", "is not a network"),
        (" 10.0.0.0/8", "is not a network"),
        ("", "is not a network"),
        ("/8", "is not a network"),
        ("localhost", "is not a network"),
        ("fe80::%eth0/64", "a scope id"),
        ("fe80::1%1", "a scope id"),
        ("::ffff:10.0.0.0/104", r"write it as IPv4, 10\.0\.0\.0/8$"),
        ("::ffff:10.0.0.1", r"write it as IPv4, 10\.0\.0\.1/32$"),
        ("x" * 10_000, r"'x{64}\.\.\.' is not a network"),
        ("a\nb", r"'a\\nb' is not a network"),
    ],
)
def test_a_bad_network_is_refused_saying_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_network(text)


@given(st.text(max_size=30))
def test_no_text_raises_anything_but_a_short_value_error(text: str) -> None:
    try:
        parse_network(text)
    except ValueError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 500


@given(st.ip_addresses(), st.integers(0, 32))
def test_a_network_is_read_from_its_own_text(address: Address, prefix: int) -> None:
    network = ip_network(f"{address}/{prefix}", strict=False)
    assert parse_network(str(network)) == network


def test_an_empty_list_denies_its_protocol() -> None:
    policy = tcp_only("0.0.0.0/0", "::/0")
    assert policy.serves(TCP)
    assert not policy.serves(UDP)
    assert policy.allows(TCP, "127.0.0.1")
    assert not policy.allows(UDP, "127.0.0.1")


def test_each_protocol_has_its_own_list() -> None:
    policy = SourcePolicy((IPv4Network("10.0.0.0/8"),), (IPv4Network("192.168.0.0/16"),))
    assert policy.allows(TCP, "10.1.2.3") and not policy.allows(UDP, "10.1.2.3")
    assert policy.allows(UDP, "192.168.1.1") and not policy.allows(TCP, "192.168.1.1")


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("9.255.255.255", False),
        ("11.0.0.0", False),
        ("fd00::1", True),
        ("fd01::1", False),
        ("127.0.0.1", False),
        ("::1", False),
    ],
)
def test_only_the_listed_networks_are_allowed(ip: str, allowed: bool) -> None:
    assert tcp_only("10.0.0.0/8", "fd00::/16").allows(TCP, ip) is allowed


def test_a_mapped_address_is_judged_as_ipv4() -> None:
    assert tcp_only("10.0.0.0/8").allows(TCP, "::ffff:10.1.2.3")
    assert not tcp_only("10.0.0.0/8").allows(TCP, "::ffff:127.0.0.1")
    assert not tcp_only("::/0").allows(TCP, "::ffff:127.0.0.1")
    assert not tcp_only("::/0").allows(TCP, "::ffff:7f00:1")


@pytest.mark.parametrize(
    "ip",
    [
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "::ffff:224.0.0.251",
        "ff02::1",
        "ff05::fb",
        "255.255.255.255",
        "::ffff:255.255.255.255",
        "fe80::1%eth0",
        "fe80::1%",
        "::1%1",
        "::ffff:10.0.0.1%1",
        "10.0.0.1%1",
        "",
        "localhost",
        "10.1",
        "0x7f.0.0.1",
        "127.0.0.1 ",
        "127.0.0.1\n",
    ],
)
def test_some_addresses_are_refused_even_when_everything_is_listed(ip: str) -> None:
    policy = SourcePolicy(EVERYTHING, EVERYTHING)
    assert not policy.allows(TCP, ip)
    assert not policy.allows(UDP, ip)


def test_permitted_keeps_the_order_and_only_what_is_allowed() -> None:
    policy = tcp_only("10.0.0.0/8", "::1")
    resolved = ["::1", "127.0.0.1", "10.0.0.2", "fe80::1%2", "10.0.0.1", "0.0.0.0"]
    assert policy.permitted(TCP, resolved) == ["::1", "10.0.0.2", "10.0.0.1"]
    assert policy.permitted(UDP, resolved) == []


def test_permitted_returns_the_form_that_was_judged_once() -> None:
    policy = tcp_only("10.0.0.0/8", "fd00::/8")
    resolved = ["::ffff:10.0.0.1", "10.0.0.1", "FD00:0:0::1", "fd00::1"]
    assert policy.permitted(TCP, resolved) == ["10.0.0.1", "fd00::1"]


networks = st.ip_addresses().flatmap(
    lambda a: st.integers(0, a.max_prefixlen).map(lambda p: ip_network(f"{a}/{p}", strict=False))
)


@given(st.lists(networks, max_size=3), st.ip_addresses())
def test_nothing_is_allowed_outside_the_networks(allowed: list[Network], address: Address) -> None:
    policy = SourcePolicy(tuple(allowed), ())
    for permitted in policy.permitted(TCP, [str(address)]):
        assert any(ip_address(permitted) in network for network in allowed)
    assert not policy.allows(UDP, str(address))


@given(st.text(max_size=30))
def test_no_text_makes_the_judgement_fail(text: str) -> None:
    SourcePolicy(EVERYTHING, EVERYTHING).allows(TCP, text)
