"""Tests of `tunnel_rs.forward.local_udp`: real UDP programs on both sides of a tunnel."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from tests.support.forwarding import client_bench, tunnel
from tests.support.memory_link import Sizes
from tests.support.sockets import UdpTarget, until

from tunnel_rs.net.datagrams import MAX_BATCH
from tunnel_rs.reports import SessionClosed, SessionOpened, SessionRefused


@contextmanager
def udp_client(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.socket(
        socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM
    ) as sock:
        sock.setblocking(False)
        sock.connect(address)
        yield sock


async def receive(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 65_535)


async def test_every_local_peer_gets_its_own_answers() -> None:
    with closing(UdpTarget(lambda data: b"answer to " + data)) as target, ExitStack() as cleanup:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            address = await bench.address()
            peers = [cleanup.enter_context(udp_client(address)) for _ in range(20)]
            for round_ in range(3):
                for number, peer in enumerate(peers):
                    peer.send(b"%d.%d" % (number, round_))
                for number, peer in enumerate(peers):
                    assert await receive(peer) == b"answer to %d.%d" % (number, round_)
            assert len(bench.reported(SessionOpened)) == 20


async def test_empty_and_large_datagrams_keep_their_boundaries() -> None:
    with closing(UdpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            with udp_client(await bench.address()) as peer:
                for size in (0, 1, 1400, 65_507, 0):
                    peer.send(bytes(size))
                    assert len(await receive(peer)) == size


async def test_datagrams_that_wait_share_one_stream_write() -> None:
    with closing(UdpTarget(lambda _: None)) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            with udp_client(await bench.address()) as peer:
                peer.send(b"opens the flow")
                await until(lambda: len(target.received) == 1)
                (stream,) = (
                    s for s in bench.links[0].streams.values() if s.outgoing.finished is False
                )
                stream.writes.clear()
                for _ in range(MAX_BATCH):
                    peer.send(b"12345678")
                await until(lambda: len(target.received) == 1 + MAX_BATCH)
                assert stream.writes == [MAX_BATCH * 10]


async def test_datagrams_go_beside_the_stream_when_both_sides_can() -> None:
    with closing(UdpTarget()) as target:
        tunnels = (tunnel(target.url),)
        async with client_bench(tunnels=tunnels, sizes=Sizes(max_datagram=1000)) as bench:
            with udp_client(await bench.address()) as peer:
                for sent in (b"first", b"second", bytes(1001)):
                    peer.send(sent)
                    assert await receive(peer) == sent
            (stream,) = bench.links[0].streams.values()
            assert stream.datagrams == [b"first", b"second"]


async def test_both_families_of_localhost_answer_from_where_they_were_asked() -> None:
    with closing(UdpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url, "localhost:0"),)) as bench:
            for index in (0, 1):
                with udp_client(await bench.address(index)) as peer:
                    peer.send(b"hello")
                    assert await receive(peer) == b"hello"  # connected: only from that address


async def test_an_idle_flow_is_closed_and_the_next_datagram_opens_another() -> None:
    with closing(UdpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),), udp_idle_timeout=0.5) as bench:
            with udp_client(await bench.address()) as peer:
                peer.send(b"one")
                assert await receive(peer) == b"one"
                await until(lambda: len(bench.reported(SessionClosed)) == 1)
                closed = bench.reported(SessionClosed)[0]
                assert (closed.sent, closed.received, closed.reason) == (3, 3, "")
                peer.send(b"two")
                assert await receive(peer) == b"two"


async def test_a_refused_source_is_told_and_other_tunnels_go_on() -> None:
    with closing(UdpTarget()) as target:
        tunnels = (tunnel("udp://192.0.2.1:53"), tunnel(target.url))
        async with client_bench(tunnels=tunnels) as bench:
            with udp_client(await bench.address(0)) as refused:
                refused.send(b"x")
                await until(lambda: bool(bench.reported(SessionRefused)))
                assert "not among the sources" in bench.reported(SessionRefused)[0].reason
            with udp_client(await bench.address(1)) as peer:
                peer.send(b"fine")
                assert await receive(peer) == b"fine"


async def test_the_number_of_flows_is_bounded() -> None:
    with closing(UdpTarget()) as target, ExitStack() as cleanup:
        async with client_bench(tunnels=(tunnel(target.url),), max_flows=3) as bench:
            address = await bench.address()
            for _ in range(3):
                peer = cleanup.enter_context(udp_client(address))
                peer.send(b"x")
                assert await receive(peer) == b"x"
            for _ in range(10):
                cleanup.enter_context(udp_client(address)).send(b"one too many")
            peer.send(b"still works")
            assert await receive(peer) == b"still works"
            assert len(bench.reported(SessionOpened)) == 3


async def test_flows_come_back_after_the_link_was_lost() -> None:
    with closing(UdpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            with udp_client(await bench.address()) as peer:
                peer.send(b"one")
                assert await receive(peer) == b"one"
                bench.links[0].lose("gone")
                await until(lambda: len(bench.links) == 2)
                peer.send(b"two")
                assert await receive(peer) == b"two"
