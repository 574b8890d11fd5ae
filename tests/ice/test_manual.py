import asyncio
import socket

import pytest
from tests.support.ice_scene import (
    SESSION,
    Carrier,
    Reports,
    client_settings,
    forward_server,
    manual_tunnel,
    run_client,
    service,
)
from tests.support.sockets import UdpTarget, connect, echo_server, read_exactly, read_to_eof, send

from tunnel_rs.errors import LinkClosedError, ProtocolError, TargetError, WrongPeerError
from tunnel_rs.ice.link import ICE_LOST
from tunnel_rs.ice.manual import (
    ManualClient,
    ended_in_order,
    fixed_source,
    lost,
    serve_manual,
)
from tunnel_rs.ice.settings import ClientRequest
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.proto.certificates import Certificate
from tunnel_rs.proto.ice_messages import Answer, IceParameters, Offer, decode_answer, encode
from tunnel_rs.proto.manual_text import BlockKind
from tunnel_rs.reports import TunnelUp
from tunnel_rs.values import HostPort, SourceUrl

SSH = SourceUrl.parse("tcp://127.0.0.1:22")
ICE = IceParameters("abcdefgh", "abcdefghijklmnopqrstuv", ())


async def test_tcp_goes_through_with_half_close() -> None:
    async with echo_server() as target, manual_tunnel(target.url) as (running, _):
        sock = await connect(("127.0.0.1", running.port()))
        blob = bytes(range(256)) * 4096
        await send(sock, blob)
        sock.shutdown(socket.SHUT_WR)
        assert await read_to_eof(sock) == blob
        sock.close()
        [up] = running.reports.of(TunnelUp)
        assert up.way.startswith("direct, 127.0.0.1:")


async def test_each_local_udp_peer_has_a_flow_of_its_own() -> None:
    target = UdpTarget()
    try:
        async with manual_tunnel(target.url) as (running, _):
            socks = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
            loop = asyncio.get_running_loop()
            for number, sock in enumerate(socks):
                sock.setblocking(False)
                sock.connect(("127.0.0.1", running.port()))
                await loop.sock_sendall(sock, b"from %d" % number)
            for number, sock in enumerate(socks):
                assert await loop.sock_recv(sock, 100) == b"from %d" % number
                sock.close()
    finally:
        target.close()


async def test_several_tunnels_and_socks5_share_one_session() -> None:
    async with echo_server() as one, echo_server() as other:
        async with manual_tunnel(one.url, other.url, socks5=HostPort("127.0.0.1", 0)) as (
            running,
            _,
        ):
            for number in range(2):
                sock = await connect(("127.0.0.1", running.port(number)))
                await send(sock, b"hello")
                assert await read_exactly(sock, 5) == b"hello"
                sock.close()
            sock = await connect(("127.0.0.1", running.port(2)))
            await send(sock, b"\5\1\0")
            assert await read_exactly(sock, 2) == b"\5\0"
            await send(sock, b"\5\1\0\1\x7f\0\0\1" + other.port.to_bytes(2, "big"))
            assert (await read_exactly(sock, 10))[1] == 0
            await send(sock, b"proxied")
            assert await read_exactly(sock, 7) == b"proxied"
            sock.close()


async def test_a_certificate_other_than_the_announced_one_never_connects() -> None:
    carrier, forged = Carrier(), Carrier()
    reports = Reports()
    server = forward_server(reports)
    serving = asyncio.create_task(
        serve_manual(SESSION, service(server), carrier, reports, SystemResolver(), patience=5)
    )
    client = ManualClient(SESSION, ClientRequest(SSH), forged, reports, SystemResolver())
    connecting = asyncio.create_task(client.connect())
    carrier.show(BlockKind.OFFER, await forged.read(BlockKind.OFFER))
    answer = decode_answer(await carrier.read(BlockKind.ANSWER))
    wrong = Answer(answer.ice, fingerprint=Certificate().fingerprint, streams=answer.streams)
    forged.show(BlockKind.ANSWER, encode(wrong))
    with pytest.raises(WrongPeerError, match="not the one it announced"):
        await connecting
    await client.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await server.close(timeout=0)


async def test_a_client_without_the_announced_certificate_is_not_served() -> None:
    carrier, forged = Carrier(), Carrier()
    reports = Reports()
    server = forward_server(reports)
    session = SESSION
    serving = asyncio.create_task(
        serve_manual(session, service(server), carrier, reports, SystemResolver(), patience=3)
    )
    client = ManualClient(session, ClientRequest(SSH), forged, reports, SystemResolver())
    async with run_client(client_settings("tcp://127.0.0.1:22"), client.connect) as running:
        offer = await forged.read(BlockKind.OFFER)
        # Somebody has put another client's fingerprint into the offer.
        genuine = str(client._session.certificate.fingerprint).encode()
        other = str(Certificate().fingerprint).encode()
        assert genuine in offer
        carrier.show(BlockKind.OFFER, offer.replace(genuine, other))
        forged.show(BlockKind.ANSWER, await carrier.read(BlockKind.ANSWER))
        with pytest.raises(Exception, match="certificate|handshake|closed|alert"):
            await running.task
    await client.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await server.close(timeout=0)


async def refused_offer(offer: Offer) -> Exception:
    carrier, reports = Carrier(), Reports()
    carrier.show(BlockKind.OFFER, encode(offer))
    with pytest.raises((TargetError, ProtocolError)) as caught:
        await serve_manual(
            SESSION, service(forward_server(reports)), carrier, reports, SystemResolver()
        )
    assert not carrier.blocks[BlockKind.ANSWER].done()
    carrier.blocks[BlockKind.ANSWER].cancel()
    return caught.value


async def test_a_source_outside_the_allowed_networks_gets_no_answer() -> None:
    error = await refused_offer(Offer(ICE, source="tcp://192.0.2.1:22"))
    assert "not among the sources this server allows" in str(error)


async def test_an_offer_of_the_original_without_source_gets_no_answer() -> None:
    assert "no source" in str(await refused_offer(Offer(ICE)))


async def test_an_offer_with_a_source_of_another_scheme_gets_no_answer() -> None:
    assert "tcp:// or udp://" in str(await refused_offer(Offer(ICE, source="http://127.0.0.1:80")))


async def test_an_answer_is_not_taken_for_an_offer() -> None:
    error = await refused_offer(Offer(ICE, fingerprint=Certificate().fingerprint))
    assert "this is an answer" in str(error)


def test_a_session_that_a_program_ended_is_told_from_one_that_was_lost() -> None:
    closed = LinkClosedError(0, "done", by_peer=True, by_application=True)
    silent = LinkClosedError(0, "no answer for 6 s")
    without_ice = LinkClosedError(0, ICE_LOST, by_peer=True, by_application=True)
    assert ended_in_order(closed)
    assert not ended_in_order(silent) and not ended_in_order(without_ice)
    assert "no answer for 6 s; start both sides again" in str(lost(silent))


async def test_an_answer_without_fingerprint_is_refused() -> None:
    carrier, reports = Carrier(), Reports()
    client = ManualClient(SESSION, ClientRequest(SSH), carrier, reports, SystemResolver())
    carrier.show(BlockKind.ANSWER, encode(Answer(ICE)))
    with pytest.raises(ProtocolError, match="no QUIC fingerprint"):
        await client.connect()
    await client.close()


def test_an_older_server_carries_one_source_only() -> None:
    assert fixed_source(None, ClientRequest(SSH)) == SSH
    assert fixed_source("multi-forward/1", ClientRequest(SSH, needs_requests=True)) is None
    for request in (ClientRequest(SSH, needs_requests=True), ClientRequest(None)):
        with pytest.raises(ProtocolError, match="older program"):
            fixed_source(None, request)
