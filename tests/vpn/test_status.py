"""Tests of `tunnel_rs.vpn.status`."""

import json
from typing import Any

from tests.support.ip_packets import udp
from tests.support.sockets import until
from tests.support.vpn import TOKEN, FakeHost, FakeTun, ServerBench

from tunnel_rs.errors import UnreachableError
from tunnel_rs.net.link import Link
from tunnel_rs.proto.vpn_frames import PING, packet_frame
from tunnel_rs.proto.vpn_handshake import VpnRequest
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.settings import ClientSettings
from tunnel_rs.vpn.status import of_client, of_server


def plain(values: dict[str, object]) -> Any:
    """As who asks sees it."""
    return json.loads(json.dumps(values))


async def test_a_server_tells_of_its_clients() -> None:
    async with ServerBench() as bench:
        guest = bench.connect()
        await guest.ask(VpnRequest(1, TOKEN))
        stream = await guest.link.open_stream()
        spoofed = udp("10.9.9.9", "10.7.0.1", (1, 2))
        stream.write(PING + packet_frame(spoofed))
        await until(lambda: bench.server.sessions[0].traffic.received_packets == 1)
        told = plain(of_server(bench.server, bench.server.sessions[0].since + 5))
        assert told["addresses"] == ["10.7.0.1/24", "fd07::1/64"]
        [client] = told["clients"]
        assert client["addresses"] == ["10.7.0.2", "fd07::2"]
        assert client["path"] == "192.0.2.9:4242"
        assert client["dropped"] == {"spoofed": 1}
        assert client["connected_seconds"] == 5.0
        assert TOKEN.reveal() not in json.dumps(told)


async def test_a_client_without_a_link_says_so() -> None:
    async def connect() -> Link:
        raise UnreachableError("nobody")

    client = VpnClient(ClientSettings(TOKEN), FakeTun(), FakeHost(), connect)
    told = plain(of_client(client))
    assert (told["role"], told["connected"], told["addresses"]) == ("vpnclient", False, [])
