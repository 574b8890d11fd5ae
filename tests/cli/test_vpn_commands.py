"""Tests of `tunnel_rs.cli.vpn_commands`: a server on memory links."""

import asyncio
import json
from typing import Any

import pytest
from tests.support.json_schema import problems
from tests.support.memory_link import CLIENT_ID
from tests.support.sockets import until
from tests.support.vpn import TOKEN, FakeHost, FakeTun, ServerBench
from tests.test_status_schema import SCHEMA

from tunnel_rs.cli.control_commands import KILLED
from tunnel_rs.cli.overview import Overview
from tunnel_rs.cli.vpn_commands import vpn_client_commands, vpn_server_commands
from tunnel_rs.errors import LinkClosedError, LocalError, UnreachableError
from tunnel_rs.net.link import Link
from tunnel_rs.proto.vpn_handshake import VpnRequest
from tunnel_rs.reports import ClientGone
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.observed import ObservedClient, ObservedServer
from tunnel_rs.vpn.settings import ClientSettings


async def put(bench: ServerBench, command: str, **request: Any) -> Any:
    overview = Overview("tunnel-rs-vpn", "server", wall=lambda: 0.0)
    overview.observe(CLIENT_ID, ObservedServer(bench.server))
    commands = vpn_server_commands(bench.server, overview.status, lambda: "1 token(s)")
    return await commands[command]({"command": command, **request})


async def test_a_server_s_status_is_the_common_one_and_its_own() -> None:
    async with ServerBench() as bench:
        await bench.connect().ask(VpnRequest(1, TOKEN))
        told = json.loads(json.dumps(await put(bench, "status")))
        assert (told["program"], told["role"], told["device"]) == (
            *("tunnel-rs-vpn", "vpnserver", "tun-test"),
        )
        assert told["peers"][0]["addresses"] == told["clients"][0]["addresses"]
        assert told["packets"] == {"sent": 0, "received": 0, "dropped": {}}
        assert problems(told, SCHEMA, SCHEMA) == []
        assert TOKEN.reveal() not in json.dumps(told)


async def test_a_client_s_status_fits_the_same_schema() -> None:
    async def connect() -> Link:
        raise UnreachableError("nobody")

    client = VpnClient(ClientSettings(TOKEN), FakeTun(), FakeHost(), connect)
    overview = Overview("tunnel-rs-vpn", "client", wall=lambda: 0.0)
    overview.observe(CLIENT_ID, ObservedClient(client))
    commands = vpn_client_commands(client, overview.status)
    told = json.loads(json.dumps(await commands["status"]({})))
    assert (told["role"], told["connected"]) == ("vpnclient", False)
    assert problems(told, SCHEMA, SCHEMA) == []
    with pytest.raises(UnreachableError, match="no connection to ask over"):
        await commands["ping"]({})


@pytest.mark.parametrize("who", [str(CLIENT_ID)[:10].upper(), "10.7.0.2", "FD07:0::2"])
async def test_a_client_is_sent_away_by_its_id_or_an_address(who: str) -> None:
    async with ServerBench() as bench:
        guest = bench.connect()
        await guest.ask(VpnRequest(1, TOKEN))
        await guest.link.open_stream()
        assert await put(bench, "kill", peer=who) == {"clients": 1}
        ended = await guest.link.wait_closed()
        assert isinstance(ended, LinkClosedError) and ended.reason == KILLED
        await guest.serving
        [gone] = [report for report in bench.reports if isinstance(report, ClientGone)]
        assert (gone.reason, gone.addresses) == (KILLED, ("10.7.0.2", "fd07::2"))


@pytest.mark.parametrize("who", ["10.7.0.9", "00" * 10, "d75a", None, 7, "10.7.0.300"])
async def test_nobody_else_is(who: object) -> None:
    async with ServerBench() as bench:
        await bench.connect().ask(VpnRequest(1, TOKEN))
        with pytest.raises(LocalError):
            await put(bench, "kill", peer=who)
        assert len(bench.server.sessions) == 1


async def test_a_server_asks_its_clients_and_reads_its_tokens_again() -> None:
    async with ServerBench() as bench:
        with pytest.raises(UnreachableError):
            await put(bench, "ping")
        await bench.connect().ask(VpnRequest(1, TOKEN))
        await until(lambda: len(bench.server.sessions) == 1)
        async with asyncio.timeout(5):
            assert list(await put(bench, "ping")) == ["seconds"]
        assert await put(bench, "reload") == {"settings": "1 token(s)"}
