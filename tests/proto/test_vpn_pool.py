from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.vpn_pool import (
    AddressPool,
    check_pool,
    highest_free,
    own_addresses,
    owner_of,
)
from tunnel_rs.values import Secret

NETWORK = IPv4Network("10.0.0.0/29")  # hosts .1 to .6
SERVER = IPv4Address("10.0.0.1")


def pool(server: str = "10.0.0.1", **more: object) -> AddressPool[IPv4Address]:
    return AddressPool(NETWORK, IPv4Address(server), **more)  # type: ignore[arg-type]


def numbers(pool: AddressPool[IPv4Address], keys: str) -> list[int | None]:
    found = [pool.allocate(key) for key in keys]
    return [None if address is None else int(address) & 255 for address in found]


def test_addresses_count_up_from_the_servers() -> None:
    assert numbers(pool(), "abc") == [2, 3, 4]


def test_below_a_server_in_the_middle_they_start_over() -> None:
    assert numbers(pool("10.0.0.5"), "abcdef") == [6, 1, 2, 3, 4, None]


def test_a_client_keeps_its_address() -> None:
    assert numbers(pool(), "aba") == [2, 3, 2]


def test_the_address_released_last_is_given_first() -> None:
    addresses = pool()
    numbers(addresses, "abc")
    addresses.release("a")
    addresses.release("c")
    assert numbers(addresses, "xyz") == [4, 2, 5]


def test_a_full_pool_gives_none_until_one_is_released() -> None:
    addresses = pool()
    assert numbers(addresses, "abcdef") == [2, 3, 4, 5, 6, None]
    addresses.release("d")
    assert numbers(addresses, "f") == [5]
    assert len(addresses) == 5


def test_releasing_what_nobody_holds_does_nothing() -> None:
    addresses = pool()
    addresses.release("a")
    assert numbers(addresses, "a") == [2]


def test_reserved_addresses_are_not_given() -> None:
    assert numbers(pool(reserved=[IPv4Address("10.0.0.3")]), "abcd") == [2, 4, 5, 6]


def test_an_owner_gets_its_own_address_and_nobody_else_does() -> None:
    addresses = pool(own={"me": IPv4Address("10.0.0.3")})
    assert numbers(addresses, "abcd") == [2, 4, 5, 6]
    assert addresses.allocate("e") is None
    assert addresses.allocate("f", "me") == IPv4Address("10.0.0.3")
    addresses.release("f")
    assert addresses.allocate("g") is None
    assert addresses.allocate("h", "me") == IPv4Address("10.0.0.3")


def test_a_second_device_of_an_owner_gets_another_address() -> None:
    addresses = pool(own={"me": IPv4Address("10.0.0.3")})
    assert addresses.allocate("a", "me") == IPv4Address("10.0.0.3")
    assert addresses.allocate("b", "me") == IPv4Address("10.0.0.2")


def test_a_pool_of_2_to_the_64_addresses_works() -> None:
    network = IPv6Network("fd00::/64")
    addresses = AddressPool(network, IPv6Address("fd00::1"))
    assert addresses.allocate("a") == IPv6Address("fd00::2")
    last = AddressPool(network, IPv6Address("fd00::ffff:ffff:ffff:fffe"))
    assert last.allocate("a") == IPv6Address("fd00::1")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_no_address_is_held_twice(steps: list[tuple[bool, int]]) -> None:
    addresses = pool(own={"5": IPv4Address("10.0.0.4")})
    held: dict[int, IPv4Address] = {}
    for take, key in steps:
        if take:
            address = addresses.allocate(key, str(key))
            if address is not None:
                assert held.get(key, address) == address
                held[key] = address
            else:
                assert len(held) >= 4  # one of five may be set aside for an owner
        else:
            addresses.release(key)
            held.pop(key, None)
        assert len(set(held.values())) == len(held) == len(addresses)
        assert SERVER not in held.values()
        assert all(address in NETWORK for address in held.values())


@pytest.mark.parametrize(
    ("network", "server", "problem"),
    [
        ("10.0.0.0/31", None, "/30"),
        ("10.0.0.0/32", None, "too small"),
        ("fd00::/127", None, "/126"),
        ("10.0.0.0/24", "10.0.1.1", "not within"),
        ("10.0.0.0/24", "10.0.0.255", "not one for a host"),
        ("10.0.0.0/24", "10.0.0.0", "not one for a host"),
    ],
)
def test_networks_without_room_are_refused(network: str, server: str | None, problem: str) -> None:
    parse = IPv6Network if ":" in network else IPv4Network
    with pytest.raises(ValueError, match=problem):
        check_pool(parse(network), None if server is None else IPv4Address(server))


def test_the_smallest_networks_have_room_for_one() -> None:
    check_pool(IPv4Network("10.0.0.0/30"), IPv4Address("10.0.0.1"))
    check_pool(IPv6Network("fd00::/126"))


def test_nat64_takes_the_highest_address() -> None:
    assert highest_free(NETWORK, []) == IPv4Address("10.0.0.6")
    assert highest_free(NETWORK, [IPv4Address("10.0.0.6")]) == IPv4Address("10.0.0.5")
    with pytest.raises(ValueError, match="no address left"):
        highest_free(IPv4Network("10.0.0.0/30"), map(IPv4Address, ("10.0.0.1", "10.0.0.2")))


def owners(count: int) -> list[str]:
    return [owner_of(Secret(f"token {number}")) for number in range(count)]


def test_an_owner_gets_the_same_address_whoever_else_there_is() -> None:
    network = IPv4Network("10.0.0.0/16")
    alone = own_addresses(network, [SERVER], owners(1), IPv4Address)
    among = own_addresses(network, [SERVER], reversed(owners(50)), IPv4Address)
    assert among.items() >= alone.items()
    assert len(set(among.values())) == 50


def test_owners_beyond_what_fits_get_none_of_their_own() -> None:
    found = own_addresses(NETWORK, [SERVER], owners(20), IPv4Address)
    assert sorted(int(address) & 255 for address in found.values()) == [2, 3, 4, 5, 6]


def test_the_name_of_an_owner_does_not_tell_the_token() -> None:
    token = Secret("iAAAAAAAAAAAAAAAAA")
    assert token.reveal() not in owner_of(token)
    assert owner_of(token) != owner_of(Secret("iabcdefghijklmnopg"))
