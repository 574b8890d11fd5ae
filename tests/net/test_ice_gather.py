import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
from tests.support.ice_scene import Reports
from tests.support.ice_stun_server import mapped, silent, stun_server

from tunnel_rs.errors import LocalError, TargetError
from tunnel_rs.net.ice_connection import IceConnection
from tunnel_rs.net.ice_gather import (
    MAX_HOSTS,
    allocate_relay,
    find_mappings,
    host_addresses,
    host_candidate,
    reflexive_candidate,
    resolve_servers,
)
from tunnel_rs.net.ice_socket import IceSocket
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.ice_servers import parse_turn_server
from tunnel_rs.values import HostPort, SocketAddr


@asynccontextmanager
async def socket(ip: str = "127.0.0.1") -> AsyncIterator[IceSocket]:
    connection = IceConnection(controlling=True, username="u" * 16, password="p" * 22)
    udp = UdpSocket.bind(SocketAddr(ip, 0))
    ice = IceSocket(udp, connection, on_batch=lambda: None, on_writable=lambda: None)
    ice.protocol.local_candidate = host_candidate(udp.address, 0)
    connection.adopt(ice.protocol, ice.protocol.local_candidate)
    try:
        yield ice
    finally:
        await connection.close()


async def resolve(host: str) -> list[str]:
    if host == "nowhere":
        raise TargetError("nowhere: cannot be resolved")
    return [host]


def test_addresses_of_this_machine_are_usable_ones() -> None:
    found = host_addresses()
    assert 1 <= len(found) <= MAX_HOSTS
    assert all(not ip_address(ip).is_link_local for ip in found)


def test_preferences_fall_with_rank_and_family_and_for_reflexive_addresses() -> None:
    first = host_candidate(SocketAddr("192.0.2.1", 1), 0)
    second = host_candidate(SocketAddr("192.0.2.2", 1), 1)
    six = host_candidate(SocketAddr("2001:db8::1", 1), 0)
    seen = reflexive_candidate(first, SocketAddr("198.51.100.1", 9))
    priorities = [first.priority, six.priority, second.priority, seen.priority]
    assert priorities == sorted(priorities, reverse=True)
    assert seen.to_sdp().endswith("198.51.100.1 9 typ srflx raddr 192.0.2.1 rport 1")


async def test_the_first_answer_of_several_servers_counts() -> None:
    async with stun_server(silent) as bad, stun_server(mapped("198.51.100.9", 7)) as good:
        async with socket() as ice:
            [found] = await find_mappings([ice.protocol], [bad, good])
    assert (found.address, found.server) == (SocketAddr("198.51.100.9", 7), good)


async def test_an_old_server_s_mapped_address_is_understood() -> None:
    async with stun_server(mapped("198.51.100.9", 7, "MAPPED-ADDRESS")) as old, socket() as ice:
        [found] = await find_mappings([ice.protocol], [old])
    assert found.address == SocketAddr("198.51.100.9", 7)


@pytest.mark.parametrize("lie", [("0.0.0.0", 7), ("224.0.0.1", 7), ("198.51.100.9", 0)])
async def test_an_impossible_address_is_not_believed(lie: tuple[str, int]) -> None:
    async with stun_server(mapped(*lie)) as liar, socket() as ice:
        assert await find_mappings([ice.protocol], [liar], timeout=0.3) == []


async def test_ipv6_sockets_ask_ipv6_servers() -> None:
    try:
        async with stun_server(mapped("2001:db8::9", 7), "::1") as six, socket("::1") as ice:
            [found] = await find_mappings([ice.protocol], [SocketAddr("127.0.0.1", 9), six])
    except LocalError:
        pytest.skip("no IPv6 here")
    assert found.address == SocketAddr("2001:db8::9", 7)


async def test_silence_costs_the_timeout_and_no_more() -> None:
    loop = asyncio.get_running_loop()
    async with stun_server(silent) as mute, socket() as ice:
        began = loop.time()
        assert await find_mappings([ice.protocol], [mute], timeout=0.2) == []
        assert loop.time() - began < 2


async def test_no_servers_means_no_waiting() -> None:
    async with socket() as ice:
        assert await find_mappings([ice.protocol], []) == []


async def test_an_unknown_server_is_told_and_the_others_are_used() -> None:
    reports = Reports()
    servers = [HostPort("nowhere", 1), HostPort("192.0.2.1", 2)]
    assert await resolve_servers(servers, resolve, reports) == (SocketAddr("192.0.2.1", 2),)
    assert "nowhere" in reports.texts("warning")


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ("turn:bob:sesame@nowhere", "cannot be resolved"),
        ("turn:bob:sesame@127.0.0.1:9?transport=tcp", "127.0.0.1"),
    ],
)
async def test_a_relay_that_cannot_be_had_says_why_without_the_password(
    server: str, problem: str
) -> None:
    connection = IceConnection(controlling=True, username="u" * 16, password="p" * 22)
    with pytest.raises(LocalError, match=problem) as caught:
        await allocate_relay(connection, parse_turn_server(server), resolve, timeout=2)
    assert "sesame" not in str(caught.value)
    await connection.close()


async def test_a_silent_relay_is_given_up() -> None:
    connection = IceConnection(controlling=True, username="u" * 16, password="p" * 22)
    async with stun_server(silent) as mute:
        server = parse_turn_server(f"turn:bob:sesame@{mute}")
        with pytest.raises(LocalError, match="no answer in 0.2 s"):
            await allocate_relay(connection, server, resolve, timeout=0.2)
    await connection.close()
