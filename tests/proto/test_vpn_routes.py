from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.vpn_routes import (
    FIRST_PRIORITY,
    LAST_PRIORITY,
    TABLE,
    Network,
    Rule,
    rules_for,
)

MAIN = 254


def networks(*texts: str) -> list[Network]:
    return [ip_network(text) for text in texts]


def longest(address: str, table: list[Network]) -> int | None:
    found = [n.prefixlen for n in table if ip_address(address) in n]
    return max(found, default=None)


def chosen(address: str, main: list[Network], vpn: list[Network], *, marked: bool = False) -> str:
    """Which table decides, by the kernel's way with rules; at last main, as always."""
    version = ip_address(address).version
    for rule in rules_for(vpn):
        if rule.version != version or (rule.unmarked and marked):
            continue
        length = longest(address, main if rule.table == MAIN else vpn)
        if length is not None and (rule.suppress is None or length > rule.suppress):
            return "main" if rule.table == MAIN else "vpn"
    return "main"


LAN = networks("0.0.0.0/0", "192.168.1.0/24", "10.0.0.0/8")


def test_a_full_tunnel_leaves_the_local_network_alone() -> None:
    vpn = networks("0.0.0.0/0")
    assert chosen("192.0.2.1", LAN, vpn) == "vpn"
    assert chosen("192.168.1.9", LAN, vpn) == "main"


def test_the_longest_prefix_wins_over_both_tables() -> None:
    vpn = networks("10.1.0.0/16", "192.168.0.0/16")
    assert chosen("10.1.2.3", LAN, vpn) == "vpn"
    assert chosen("10.2.2.3", LAN, vpn) == "main"
    assert chosen("192.168.1.9", LAN, vpn) == "main"
    assert chosen("192.168.2.9", LAN, vpn) == "vpn"
    assert chosen("192.0.2.1", LAN, vpn) == "main"


def test_of_equal_prefixes_the_vpn_wins() -> None:
    assert chosen("192.168.1.9", LAN, networks("192.168.1.0/24")) == "vpn"


def test_our_own_packets_never_enter_the_vpn() -> None:
    vpn = networks("0.0.0.0/0", "192.168.1.0/24")
    assert chosen("192.0.2.1", LAN, vpn, marked=True) == "main"
    assert chosen("192.168.1.9", LAN, vpn, marked=True) == "main"


def test_rules_of_a_full_tunnel_are_the_known_ones() -> None:
    assert rules_for(networks("0.0.0.0/0")) == (
        Rule(4, FIRST_PRIORITY, MAIN, False, 0),
        Rule(4, FIRST_PRIORITY + 1, TABLE, True, None),
    )


addresses = st.integers(0, 2**32 - 1)
routes = st.builds(
    lambda number, length: ip_network((number, length), strict=False),
    addresses.map(lambda n: n & 0x0F0F0F0F),
    st.integers(0, 32),
)


tables = st.lists(routes, max_size=6)


@given(addresses.map(lambda n: n & 0x0F0F0F0F), tables, tables)
def test_it_is_the_decision_of_one_table(
    number: int, main: list[Network], vpn: list[Network]
) -> None:
    address = str(ip_address(number))
    of_main, of_vpn = longest(address, main), longest(address, vpn)
    wanted = "vpn" if of_vpn is not None and (of_main is None or of_vpn >= of_main) else "main"
    assert chosen(address, main, vpn) == wanted


def test_priorities_are_ours_however_many_lengths_there_are() -> None:
    every = [ip_network((0, length)) for length in range(33)]
    every6 = [ip_network(f"::/{length}") for length in range(129)]
    rules = rules_for([*every, *every6])
    assert all(FIRST_PRIORITY <= rule.priority <= LAST_PRIORITY for rule in rules)
    assert len({(rule.version, rule.priority) for rule in rules}) == len(rules)
