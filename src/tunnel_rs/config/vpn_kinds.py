"""How values of `tunnel-rs-vpn` are written."""

from collections.abc import Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import TypeVar

from tunnel_rs.config.kinds import Kind, text, texts
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.proto.policy import parse_network
from tunnel_rs.values import check_host, quoted
from tunnel_rs.vpn.settings import Address, Network, Spoofing

A = TypeVar("A", IPv4Address, IPv6Address)
I = TypeVar("I", IPv4Interface, IPv6Interface)  # noqa: E741

_MAX_DEVICE = 15


def _interface(kind: type[I], example: str) -> Callable[[str], I]:
    """A network with its prefix length; host bits may be set, as in other versions' files."""

    def parse(given: str) -> I:
        _, slash, prefix = given.partition("/")
        try:
            if not (slash and prefix.isascii() and prefix.isdigit()) or "%" in given:
                raise ValueError
            return kind(given)
        except ValueError:
            raise ValueError(f"{quoted(given)} is not a network; write {example}") from None

    return parse


def _address(kind: type[A], example: str) -> Callable[[str], A]:
    def parse(given: str) -> A:
        try:
            if "%" in given:
                raise ValueError
            return kind(given)
        except ValueError:
            raise ValueError(f"{quoted(given)} is not an address; write {example}") from None

    return parse


def _any_address(given: str) -> Address:
    try:
        address = ip_address(given)
    except ValueError:
        raise ValueError(f"{quoted(given)} is not an IP address") from None
    if address.is_multicast or address.is_unspecified or "%" in given:
        raise ValueError(f"{quoted(given)} is not an address of one machine")
    return address


def _route6(given: str) -> Network:
    network = parse_network(given)
    if not isinstance(network, IPv6Network):
        raise ValueError(f"{quoted(given)} is an IPv4 network; it belongs to routes")
    return network


def _device(given: str) -> str:
    plain = given.isascii() and given.replace("-", "").replace("_", "").isalnum()
    if not plain or len(given) > _MAX_DEVICE:
        raise ValueError(
            f"{quoted(given)} is no name for a device: 1 to {_MAX_DEVICE} letters, digits, - and _"
        )
    return given


def _domain(given: str) -> str:
    check_host(given)
    try:
        ip_address(given)
    except ValueError:
        return given
    raise ValueError(f"{quoted(given)} is an address, not a domain")


def _spoofing(given: str) -> Spoofing:
    known = [name.value for name in Spoofing]
    if given not in known:
        hint = did_you_mean(given, known)
        raise ValueError(f"{quoted(given)} is not one of {', '.join(known)}{hint}")
    return Spoofing(given)


def _port_range(value: object) -> tuple[int, int]:
    match value:
        case [int(first), int(last)] if 0 < first <= last <= 65_535:
            if type(first) is int and type(last) is int:
                return first, last
    raise ValueError("expected two ports, [first, last], from 1 to 65535, the smaller one first")


def _no_text(_: Sequence[str]) -> tuple[int, int]:
    raise ValueError("a range of ports is written in a file")


NETWORK4 = text("an IPv4 network", _interface(IPv4Interface, "10.0.0.0/24"))
NETWORK6 = text("an IPv6 network", _interface(IPv6Interface, "fd00::/64"))
ADDRESS4 = text("an IPv4 address", _address(IPv4Address, "10.0.0.1"))
ADDRESS6 = text("an IPv6 address", _address(IPv6Address, "fd00::1"))
ADDRESSES = texts("an IP address", _any_address)
DOMAINS = texts("a domain", _domain)
ROUTES: Kind[tuple[Network, ...]] = texts("a network", parse_network)
ROUTES6: Kind[tuple[Network, ...]] = texts("an IPv6 network", _route6)
DEVICE = text("a name of at most 15 characters", _device)
SPOOFING = text("strict, loose or off", _spoofing)
PORT_RANGE = Kind("[first, last]", _no_text, _port_range)
