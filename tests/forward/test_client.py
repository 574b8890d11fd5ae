"""Tests of `tunnel_rs.forward.client`: real local sockets, memory links, a real server."""

import asyncio
import os
import socket
from contextlib import closing

import pytest
from tests.support.forwarding import OTHER_TOKEN, TOKEN, client_bench, tunnel
from tests.support.memory_link import SERVER_ID
from tests.support.sockets import (
    TcpTarget,
    UdpTarget,
    connect,
    echo_server,
    read_exactly,
    read_to_eof,
    send,
    until,
)

from tunnel_rs.errors import (
    AuthRefusedError,
    LinkClosedError,
    LocalError,
    TargetError,
    UnreachableError,
    UsageError,
)
from tunnel_rs.forward.client import ForwardClient
from tunnel_rs.forward.settings import ClientSettings
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.reports import Listening, SessionClosed, SessionOpened, TunnelLost, TunnelUp
from tunnel_rs.values import HostPort, SourceUrl


async def test_several_tunnels_of_both_protocols_share_one_link() -> None:
    async with echo_server() as echo:
        with closing(TcpTarget()) as other, closing(UdpTarget()) as udp:
            tunnels = (tunnel(echo.url), tunnel(other.url), tunnel(udp.url))
            async with client_bench(tunnels=tunnels) as bench:
                first = await connect(await bench.address(0))
                second = await connect(await bench.address(1))
                await send(first, b"one")
                await send(second, b"two")
                assert await read_exactly(first, 3) == b"one"
                assert await read_exactly(await other.accept(), 3) == b"two"
                with socket.socket(type=socket.SOCK_DGRAM) as third:
                    third.setblocking(False)
                    third.connect(await bench.address(2))
                    third.send(b"three")
                    loop = asyncio.get_running_loop()
                    assert await loop.sock_recv(third, 100) == b"three"
                assert len(bench.links) == 1
                first.close()
                second.close()


async def test_listeners_are_reported_with_their_real_ports() -> None:
    async with client_bench(tunnels=(tunnel("tcp://127.0.0.1:9", "localhost:0"),)) as bench:
        await bench.address(1)
        v4, v6 = bench.reported(Listening)
        assert (v4.address.ip, v6.address.ip) == ("127.0.0.1", "::1")
        assert v4.address.port == v6.address.port != 0
        assert v4.source == SourceUrl.parse("tcp://127.0.0.1:9")


async def test_after_a_loss_the_same_listener_carries_new_connections() -> None:
    async with echo_server() as echo, client_bench(tunnels=(tunnel(echo.url),)) as bench:
        address = await bench.address()
        old = await connect(address)
        await send(old, b"x")
        await read_exactly(old, 1)
        bench.reachable.clear()
        bench.links[0].lose("no answer for 300 s")
        with pytest.raises(ConnectionResetError):
            await read_to_eof(old)
        old.close()
        new = await connect(address)  # the listener is still there, the tunnel is not
        await send(new, b"waited for the tunnel")
        new.shutdown(socket.SHUT_WR)
        bench.reachable.set()
        assert await read_to_eof(new) == b"waited for the tunnel"
        new.close()
        assert len(bench.links) == 2
        lost = bench.reported(TunnelLost)[0]
        assert (lost.reason, lost.retry_in) == ("no answer for 300 s", 0.01)
        assert len(bench.reported(TunnelUp)) == 2


async def test_a_connection_that_waits_too_long_for_the_tunnel_is_reset() -> None:
    tunnels = (tunnel("tcp://127.0.0.1:9"),)
    async with client_bench(tunnels=tunnels, pending_timeout=0.02) as bench:
        bench.reachable.clear()
        sock = await connect(await bench.address())
        with pytest.raises(ConnectionResetError):
            await read_to_eof(sock)
        sock.close()


async def test_a_refused_token_ends_the_client_and_frees_its_port() -> None:
    async with client_bench(
        server={"access": of_tokens(OTHER_TOKEN)}, tunnels=(tunnel("tcp://127.0.0.1:9"),)
    ) as bench:
        address = await bench.address()
        with pytest.raises(AuthRefusedError):
            await bench.running
        with pytest.raises(ConnectionRefusedError):
            await connect(address)


async def test_without_reconnecting_a_loss_ends_the_client() -> None:
    async with client_bench(tunnels=(tunnel("tcp://127.0.0.1:9"),), reconnect=False) as bench:
        await bench.up()
        bench.links[0].lose("gone")
        with pytest.raises(LinkClosedError, match="gone"):
            await bench.running


async def test_a_port_in_use_ends_the_client_before_it_dials() -> None:
    with closing(TcpTarget()) as taken:
        there = f"127.0.0.1:{taken.port}"
        tunnels = (tunnel("tcp://127.0.0.1:9"), tunnel("tcp://127.0.0.1:9", there))
        async with client_bench(tunnels=tunnels) as bench:
            with pytest.raises(LocalError, match=f"cannot listen on {there}: another program"):
                await bench.running
            assert bench.links == []
            first = bench.reported(Listening)[0].address
            with pytest.raises(ConnectionRefusedError):
                await connect((first.ip, first.port))


async def test_closing_lets_a_session_finish_and_then_says_done() -> None:
    async with echo_server() as echo, client_bench(tunnels=(tunnel(echo.url),)) as bench:
        address = await bench.address()
        sock = await connect(address)
        await send(sock, b"x")
        await read_exactly(sock, 1)
        ending = asyncio.create_task(bench.client.close(timeout=5))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await connect(address)
        data = os.urandom(500_000)
        sender = asyncio.create_task(send(sock, data))
        assert await read_exactly(sock, len(data)) == data
        await sender
        sock.close()
        await ending
        await bench.running
        error = await bench.links[0].other.wait_closed()
        assert isinstance(error, LinkClosedError)
        assert (error.code, error.reason, error.by_peer) == (0, "done", True)


async def test_closing_waits_no_longer_than_told() -> None:
    async with echo_server() as echo, client_bench(tunnels=(tunnel(echo.url),)) as bench:
        sock = await connect(await bench.address())
        await send(sock, b"x")
        await read_exactly(sock, 1)
        await bench.client.close(timeout=0.02)
        await bench.running
        with pytest.raises(ConnectionResetError):
            await read_to_eof(sock)
        sock.close()
        assert len(bench.client.sessions) == 0


async def test_cancelling_run_leaves_nothing_open_or_running() -> None:
    async with echo_server() as echo, client_bench(tunnels=(tunnel(echo.url),)) as bench:
        address = await bench.address()
        sock = await connect(address)
        await send(sock, b"x")
        await read_exactly(sock, 1)
        bench.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.running
        with pytest.raises(ConnectionResetError):
            await read_to_eof(sock)
        with pytest.raises(ConnectionRefusedError):
            await connect(address)
        assert bench.links[0].error is not None
        await until(lambda: len(bench.client.sessions) == 0)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any(name.startswith("client/") for name in names)
        sock.close()


# stdin and stdout.


async def test_stdio_is_forwarded_to_its_end_and_the_client_returns() -> None:
    ours_in, their_out = os.pipe()
    their_in, ours_out = os.pipe()
    async with echo_server() as echo:
        stdio = SourceUrl.parse(echo.url)
        async with client_bench(stdio_source=stdio, stdio=(ours_in, ours_out)) as bench:
            os.write(their_out, b"through ssh")
            os.close(their_out)
            await bench.running
            os.close(ours_out)
            os.close(ours_in)
            assert os.read(their_in, 100) == b"through ssh"
            assert os.read(their_in, 100) == b""
            os.close(their_in)
            assert bench.reported(SessionClosed)[0].reason == ""


async def test_a_refused_source_ends_stdio_with_the_reason() -> None:
    async with client_bench(
        stdio_source=SourceUrl.parse("tcp://127.0.0.1:9"), stdio=(-1, -1)
    ) as bench:
        with pytest.raises(TargetError, match=r"127\.0\.0\.1:9 refused the connection"):
            await bench.running


async def test_a_loss_ends_stdio_with_an_error() -> None:
    ours_in, their_out = os.pipe()
    their_in, ours_out = os.pipe()
    with closing(TcpTarget()) as target:
        stdio = SourceUrl.parse(target.url)
        async with client_bench(stdio_source=stdio, stdio=(ours_in, ours_out)) as bench:
            await until(lambda: bool(bench.reported(SessionOpened)))
            bench.links[0].lose("gone")
            with pytest.raises(UnreachableError, match="gone"):
                await bench.running
    for fd in (ours_in, their_out, their_in, ours_out):
        os.close(fd)


async def test_stdio_cannot_carry_udp() -> None:
    settings = ClientSettings(auth_token=TOKEN, stdio=SourceUrl.parse("udp://127.0.0.1:53"))

    async def connect() -> None:
        raise AssertionError

    with pytest.raises(UsageError, match=r"tcp:// only, not udp://127\.0\.0\.1:53"):
        await ForwardClient(settings, connect).run()  # type: ignore[arg-type]


async def test_tunnels_and_a_socks_proxy_can_be_combined() -> None:
    tunnels = (tunnel("tcp://127.0.0.1:9"),)
    async with client_bench(tunnels=tunnels, socks5=HostPort("127.0.0.1", 0)) as bench:
        await bench.address(1)
        assert [report.source is None for report in bench.reported(Listening)] == [False, True]


async def test_tunnels_are_added_to_and_removed_from_a_running_client() -> None:
    async with echo_server() as target, client_bench(tunnels=(tunnel(target.url),)) as bench:
        await bench.up()
        added = await bench.client.add_tunnel(tunnel(target.url))
        assert [status.tunnel for status in bench.client.tunnels] == [1, 2]
        (address,) = added.addresses
        sock = await connect((address.ip, address.port))
        await send(sock, b"hello")
        assert await read_exactly(sock, 5) == b"hello"
        assert bench.client.remove_tunnel(2) and not bench.client.remove_tunnel(2)
        with pytest.raises(ConnectionRefusedError):
            await connect((address.ip, address.port))
        await send(sock, b"still")
        assert await read_exactly(sock, 5) == b"still"
        sock.close()
        assert [status.tunnel for status in bench.client.tunnels] == [1]


async def test_a_tunnel_that_cannot_listen_is_told_and_hurts_no_other() -> None:
    async with echo_server() as target, client_bench(tunnels=(tunnel(target.url),)) as bench:
        await bench.up()
        ip, port = await bench.address()
        with pytest.raises(LocalError, match="another program uses the port"):
            await bench.client.add_tunnel(tunnel(target.url, f"{ip}:{port}"))
        assert len(bench.client.tunnels) == 1


async def test_the_status_shows_the_server_its_path_and_the_sessions() -> None:
    async with echo_server() as target, client_bench(tunnels=(tunnel(target.url),)) as bench:
        await bench.up()
        sock = await connect(await bench.address())
        await send(sock, b"hello")
        assert await read_exactly(sock, 5) == b"hello"
        (server,) = bench.client.peers
        assert (server.peer, server.sent, server.received) == (SERVER_ID, 5, 5)
        assert bench.client.moved == {server.link: (5, 5)}
        assert [str(session.source) for session in server.sessions] == [target.url]
        assert await bench.client.ping() == {str(SERVER_ID): 0.001}
        sock.close()


async def test_without_a_link_there_is_no_peer_and_nothing_to_ping() -> None:
    async with client_bench(tunnels=(tunnel("tcp://127.0.0.1:9"),)) as bench:
        bench.reachable.clear()
        await bench.address()
        assert bench.links == []
        assert bench.client.peers == ()
        assert await bench.client.ping() == {}
