"""Tests of `tunnel_rs.vpn.observed`."""

from tests.support.ip_packets import udp
from tests.support.memory_link import link_pair
from tests.support.sockets import until
from tests.support.vpn import OTHER_TOKEN, TOKEN, FakeHost, FakeTun, ServerBench

from tunnel_rs.errors import UnreachableError
from tunnel_rs.net.link import Link
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.vpn_frames import packet_frame
from tunnel_rs.proto.vpn_handshake import VpnRequest
from tunnel_rs.reports import PacketStatus, Penalties
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.observed import ObservedClient, ObservedServer
from tunnel_rs.vpn.settings import ClientSettings


async def test_a_client_of_a_server_is_a_peer_with_addresses_and_bytes() -> None:
    async with ServerBench() as bench:
        observed = ObservedServer(bench.server)
        assert (observed.peers, len(observed.sessions), observed.sessions.begun) == ((), 0, 0)
        guest = bench.connect()
        await guest.ask(VpnRequest(1, TOKEN))
        stream = await guest.link.open_stream()
        packet = udp("10.7.0.2", "10.7.0.1", (1, 2))
        stream.write(packet_frame(packet) + packet_frame(udp("10.9.9.9", "10.7.0.1", (1, 2))))
        await until(lambda: observed.packets.received == 2)
        [peer] = observed.peers
        assert peer.addresses == ("10.7.0.2", "fd07::2")
        assert (peer.by, peer.name[:6], peer.sessions) == ("token", "token-", ())
        assert peer.received == 2 * len(packet)
        assert observed.moved == {peer.link: (peer.sent, peer.received)}
        assert (len(observed.sessions), observed.sessions.begun) == (1, 1)
        assert observed.packets == PacketStatus(0, 2, {"spoofed": 1})


async def test_what_clients_that_have_gone_moved_still_counts() -> None:
    async with ServerBench() as bench:
        observed = ObservedServer(bench.server)
        guest = bench.connect()
        await guest.ask(VpnRequest(1, TOKEN))
        packet = udp("10.7.0.2", "10.7.0.1", (1, 2))
        (await guest.link.open_stream()).write(packet_frame(packet))
        await until(lambda: observed.packets.received == 1)
        guest.link.close(0, "done")
        await guest.serving
        assert (len(observed.sessions), observed.sessions.begun, observed.peers) == (0, 1, ())
        assert observed.sessions.totals == (0, len(packet))
        assert observed.packets.received == 1
        assert observed.moved == {}


async def test_who_guesses_tokens_is_seen() -> None:
    async with ServerBench(access=of_tokens(TOKEN)) as bench:
        for _ in range(3):
            await bench.connect().ask(VpnRequest(1, OTHER_TOKEN))
        await until(lambda: ObservedServer(bench.server).penalties.sources == 1)
        [penalty] = ObservedServer(bench.server).penalties.longest
        assert (penalty.source, penalty.failures) == ("192.0.2.9", 3)


async def test_a_client_s_server_is_its_peer_while_there_is_a_link() -> None:
    async def connect() -> Link:
        raise UnreachableError("nobody")

    client = VpnClient(ClientSettings(TOKEN), FakeTun(), FakeHost(), connect)
    observed = ObservedClient(client)
    assert (observed.peers, observed.moved, len(observed.sessions)) == ((), {}, 0)
    assert observed.penalties == Penalties()
    client.link, _ = link_pair()
    client.traffic.sent_bytes, client.traffic.sent_packets = 700, 3
    [peer] = observed.peers
    assert (peer.sent, peer.received, observed.moved) == (700, 0, {0: (700, 0)})
    assert observed.packets == PacketStatus(3, 0, {})
    assert len(observed.sessions) == 1
    assert await client.ping() == {str(client.link.peer): await client.link.ping()}
