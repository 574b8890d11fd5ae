"""Tests of `tunnel_rs.net.gateway`."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.net import gateway as module
from tunnel_rs.net.gateway import (
    address_towards,
    default_gateway,
    default_gateway6,
    from_proc,
    from_proc6,
    from_route_get,
    from_route_print,
)

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
WLAN = "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
CABLE = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
LINK = "ppp0\t00000000\t00000000\t0001\t0\t0\t1\t00000000\t0\t0\t0\n"
NET = "eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
DOWN = "eth1\t00000000\t0200000A\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"

MACOS = """   route to: default
destination: default
       mask: default
    gateway: 192.168.1.1
  interface: en0
"""
WINDOWS = """IPv4-Routentabelle
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0      192.168.1.1     192.168.1.20     35
          0.0.0.0          0.0.0.0         10.0.0.1        10.0.0.20     25
          0.0.0.0          0.0.0.0     Auf Verbindung       10.8.0.2      5
"""


@pytest.mark.parametrize(
    ("routes", "gateway"),
    [
        (WLAN + CABLE, "10.0.0.1"),
        (WLAN + LINK + NET + DOWN, "192.168.1.1"),
        (LINK + NET, None),
        ("", None),
        ("short line\n", None),
    ],
)
def test_linux_tells_the_default_route_with_the_lowest_metric(
    routes: str, gateway: str | None
) -> None:
    assert from_proc(HEAD + routes) == (IPv4Address(gateway) if gateway else None)


NOWHERE, ANY = "0" * 32, f"{'0' * 32} 00"
NEAR = f"{ANY} {ANY} fe80000000000000000000000000000a 00000400 1 0 00450003    wlan0\n"
FAR = f"{ANY} {ANY} 20010db8000000000000000000000001 00000064 1 0 00000003     eth0\n"
REJECTED = f"{ANY} {ANY} {NOWHERE} ffffffff 1 0 00200200       lo\n"
NET6 = f"20010db8{'0' * 24} 40 {ANY} {NOWHERE} 00000100 1 0 00000001     eth0\n"


@pytest.mark.parametrize(
    ("routes", "gateway"),
    [
        (NEAR + FAR, "2001:db8::1"),
        (REJECTED + NET6 + NEAR, "fe80::a%wlan0"),
        (REJECTED + NET6, None),
        ("", None),
        ("short line\n", None),
    ],
)
def test_linux_tells_that_of_ipv6_with_its_interface_when_it_needs_one(
    routes: str, gateway: str | None
) -> None:
    assert from_proc6(routes) == (IPv6Address(gateway) if gateway else None)


async def test_elsewhere_that_of_ipv6_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")  # type: ignore[attr-defined]
    assert await default_gateway6() is None


def test_macos_tells_the_gateway_if_it_is_an_address() -> None:
    assert from_route_get(MACOS) == IPv4Address("192.168.1.1")
    assert from_route_get(MACOS.replace("192.168.1.1", "link#4")) is None
    assert from_route_get("route: not in table") is None


def test_windows_tells_it_in_any_language() -> None:
    assert from_route_print(WINDOWS) == IPv4Address("10.0.0.1")
    assert from_route_print("") is None


@given(st.text(max_size=200))
def test_no_text_makes_the_readers_of_commands_fail(text: str) -> None:
    from_route_get(text)
    from_route_print(text)


async def test_without_a_default_route_there_is_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_read_routes", lambda _: HEAD + NET)
    monkeypatch.setattr("sys.platform", "linux")
    assert await default_gateway() is None


@pytest.mark.parametrize(("platform", "text"), [("darwin", MACOS), ("win32", WINDOWS)])
async def test_elsewhere_a_command_is_asked(
    monkeypatch: pytest.MonkeyPatch, platform: str, text: str
) -> None:
    async def run(command: tuple[str, ...]) -> str:
        assert command[0] == "route"
        return text

    monkeypatch.setattr(module.commands, "run", run)
    monkeypatch.setattr("sys.platform", platform)
    assert await default_gateway() is not None


async def test_a_command_that_fails_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(command: tuple[str, ...]) -> str:
        raise module.LocalError("cannot run route")

    monkeypatch.setattr(module.commands, "run", run)
    monkeypatch.setattr("sys.platform", "darwin")
    assert await default_gateway() is None


def test_our_address_is_the_one_the_kernel_would_send_from() -> None:
    assert address_towards(IPv4Address("127.0.0.1")) == "127.0.0.1"
