import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.ice_scene import Reports
from tests.support.ice_stun_server import mapped, silent, stun_server
from tests.support.original import OriginalIce

from tunnel_rs.errors import LocalError, UnreachableError
from tunnel_rs.net.ice_agent import IceAgent
from tunnel_rs.net.ice_gather import IceServers
from tunnel_rs.proto.ice_messages import IceParameters
from tunnel_rs.values import HostPort

LOOPBACK = ("127.0.0.1",)


async def resolve(host: str) -> list[str]:
    return [host]


@asynccontextmanager
async def agent(
    controlling: bool, *stun: HostPort, hosts: tuple[str, ...] = LOOPBACK
) -> AsyncIterator[tuple[IceAgent, Reports]]:
    reports = Reports()
    one = IceAgent(controlling=controlling, report=reports)
    try:
        await one.gather(IceServers(stun), resolve, hosts)
        yield one, reports
    finally:
        await one.close()


async def test_two_agents_choose_the_same_path() -> None:
    async with agent(True) as (one, _), agent(False) as (other, _):
        here, there = await asyncio.gather(
            one.connect(other.parameters, timeout=5), other.connect(one.parameters, timeout=5)
        )
        assert str(here[2]) in other.parameters.candidates[0]
        assert str(there[2]) in one.parameters.candidates[0]
        assert one.face.describe(here).startswith("direct, 127.0.0.1:")


async def test_the_seen_address_is_announced_with_its_base() -> None:
    async with stun_server(mapped("198.51.100.9", 7)) as server:
        async with agent(True, HostPort(server.ip, server.port)) as (one, _):
            host, seen = one.parameters.candidates
            assert host.endswith(" typ host") and " raddr " not in host
            assert " 198.51.100.9 7 typ srflx raddr 127.0.0.1 rport " in seen


async def test_silent_stun_servers_are_told() -> None:
    async with stun_server(silent) as server:
        async with agent(True, HostPort(server.ip, server.port)) as (_, reports):
            assert "no STUN server answered" in reports.texts("warning")


async def test_a_machine_without_any_usable_address_is_told() -> None:
    with pytest.raises(LocalError, match="no usable network"):
        async with agent(True, hosts=("192.0.2.77",)):
            pass


async def test_a_peer_without_usable_addresses_is_told() -> None:
    async with agent(True) as (one, _):
        remote = IceParameters("u" * 16, "p" * 22, ("candidate:1 1 tcp 1 192.0.2.1 9 typ host",))
        with pytest.raises(UnreachableError, match="no address that can be used"):
            await one.connect(remote, timeout=0.1)


async def test_a_peer_that_does_not_answer_is_told() -> None:
    async with agent(True) as (one, _), stun_server(silent) as mute:
        candidate = f"candidate:1 1 udp 1 {mute.ip} {mute.port} typ host"
        with pytest.raises(UnreachableError, match="no STUN or TURN server was of help"):
            await one.connect(IceParameters("u" * 16, "p" * 22, (candidate,)), timeout=0.3)


async def test_another_password_never_connects() -> None:
    async with agent(True) as (one, _), agent(False) as (other, _):
        forged = IceParameters(other.parameters.ufrag, "x" * 22, other.parameters.candidates)
        results = await asyncio.gather(
            one.connect(forged, timeout=0.7),
            other.connect(one.parameters, timeout=0.7),
            return_exceptions=True,
        )
        assert all(isinstance(result, UnreachableError) for result in results)


@pytest.mark.parametrize("controlling", [True, False])
async def test_the_original_is_met_in_either_role(controlling: bool) -> None:
    original = OriginalIce(controlling=not controlling, host="127.0.0.1", stun=None)
    await original.gather()
    async with agent(controlling) as (one, _):
        await asyncio.gather(
            one.connect(original.parameters, timeout=8), original.meet(one.parameters)
        )
        assert one.path is not None
    await original.close()


async def test_a_nomination_is_believed_when_our_own_checks_get_no_answer() -> None:
    """The original's STUN socket answers nobody; its requests are all we get from it."""
    async with stun_server(mapped("127.0.0.1", 1)) as server:
        original = OriginalIce(controlling=True, host="127.0.0.1", stun=(server.ip, server.port))
        await original.gather()
    host, wild = original._protocols
    host.transport.close()
    original._protocols.remove(host)
    async with agent(False) as (one, _):
        port = wild.transport.get_extra_info("sockname")[1]
        wild.local_candidate.host, wild.local_candidate.port = "127.0.0.1", port
        wild.local_candidate._network_host = "127.0.0.1"
        path, _ = await asyncio.gather(
            one.connect(original.parameters, timeout=8), original.meet(one.parameters)
        )
        assert path[2] == port
    await original.close()


async def test_closing_leaves_nothing_open_and_may_be_repeated() -> None:
    async with agent(True) as (one, _):
        [socket] = one.face.sockets.values()
        await one.close()
        assert socket.is_closing()
        await one.close()
