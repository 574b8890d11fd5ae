"""Tests of `tunnel_rs.forward.local_tcp`."""

import asyncio
import os
import socket
from contextlib import closing

import pytest
from tests.support.forwarding import client_bench, tunnel
from tests.support.sockets import TcpTarget, abort, connect, read_exactly, read_to_eof, send, until

from tunnel_rs.net.tasks import ScopeFullError, TaskScope
from tunnel_rs.reports import SessionClosed, SessionOpened, SessionRefused
from tunnel_rs.values import SourceUrl


async def test_half_close_and_bytes_pass_exactly_in_both_directions() -> None:
    with closing(TcpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            local = await connect(await bench.address())
            remote = await target.accept()
            up, down = os.urandom(700_000), os.urandom(900_000)
            sender = asyncio.create_task(send(local, up))
            assert await read_exactly(remote, len(up)) == up
            await sender
            local.shutdown(socket.SHUT_WR)
            assert await read_to_eof(remote) == b""
            sender = asyncio.create_task(send(remote, down))
            assert await read_exactly(local, len(down)) == down
            await sender
            remote.close()
            assert await read_to_eof(local) == b""
            local.close()
            await until(lambda: bool(bench.reported(SessionClosed)))
            source = SourceUrl.parse(target.url)
            assert bench.reported(SessionOpened) == [SessionOpened(1, source)]
            (closed,) = bench.reported(SessionClosed)
            assert (closed.source, closed.reason) == (source, "")
            assert (closed.sent, closed.received) == (len(up), len(down))


async def test_a_reset_passes_from_end_to_end_in_both_directions() -> None:
    with closing(TcpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            local = await connect(await bench.address())
            remote = await target.accept()
            abort(local)
            with pytest.raises(ConnectionResetError):
                await read_to_eof(remote)
            local = await connect(await bench.address())
            abort(await target.accept())
            with pytest.raises(ConnectionResetError):
                await read_to_eof(local)
            local.close()


async def test_a_refused_source_resets_the_local_connection_at_once_with_the_reason() -> None:
    async with client_bench(tunnels=(tunnel("tcp://127.0.0.1:9"),)) as bench:
        local = await connect(await bench.address())
        await send(local, b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await read_to_eof(local)
        local.close()
        assert bench.reported(SessionRefused) == [
            SessionRefused(
                "tcp://127.0.0.1:9", "cannot connect: 127.0.0.1:9 refused the connection"
            )
        ]
        assert bench.reported(SessionOpened) == []


async def test_what_was_sent_before_the_target_was_connected_is_not_lost() -> None:
    with closing(TcpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            bench.reachable.clear()
            local = await connect(await bench.address())
            await send(local, b"early")
            local.shutdown(socket.SHUT_WR)
            bench.reachable.set()
            assert await read_to_eof(await target.accept()) == b"early"
            local.close()


async def test_connections_beyond_the_limit_of_waiting_ones_are_reset() -> None:
    async with client_bench(tunnels=(tunnel("tcp://127.0.0.1:9"),), max_flows=2) as bench:
        bench.reachable.clear()
        address = await bench.address()
        await asyncio.sleep(0)
        locals_ = [await connect(address) for _ in range(3)]
        await until(lambda: len(bench.reported(SessionRefused)) == 1)
        assert "too many connections wait" in bench.reported(SessionRefused)[0].reason
        with pytest.raises(ConnectionResetError):
            await read_to_eof(locals_[2])
        for sock in locals_:
            sock.close()


async def test_when_no_more_tasks_may_run_connections_are_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with client_bench(tunnels=(tunnel("tcp://127.0.0.1:9"),)) as bench:
        address = await bench.address()
        await bench.up()

        def full(self: object, coro: object, name: str) -> None:
            coro.close()  # type: ignore[attr-defined]
            raise ScopeFullError("full")

        monkeypatch.setattr(TaskScope, "spawn", full)
        with pytest.raises(ConnectionResetError), closing(await connect(address)) as local:
            await read_to_eof(local)
        monkeypatch.undo()


async def test_when_no_more_sessions_may_open_connections_are_reset() -> None:
    with closing(TcpTarget()) as target:
        async with client_bench(tunnels=(tunnel(target.url),)) as bench:
            address = await bench.address()
            bench.client.sessions.limit = 0
            local = await connect(address)
            with pytest.raises(ConnectionResetError):
                await read_to_eof(local)
            local.close()


async def test_two_hundred_connections_at_once_all_get_their_own_bytes() -> None:
    with closing(TcpTarget()) as target:
        async with client_bench(
            server={"max_sessions": 300}, tunnels=(tunnel(target.url),)
        ) as bench:
            address = await bench.address()

            async def ask(number: int) -> bytes:
                local = await connect(address)
                await send(local, b"%d" % number)
                local.shutdown(socket.SHUT_WR)
                answer = await read_to_eof(local)
                local.close()
                return answer

            async def answer_all() -> None:
                for _ in range(200):
                    sock = await target.accept()
                    await send(sock, b"answer to " + await read_to_eof(sock))
                    sock.close()

            answering = asyncio.create_task(answer_all())
            answers = await asyncio.gather(*(ask(number) for number in range(200)))
            await answering
            assert answers == [b"answer to %d" % number for number in range(200)]
            await until(lambda: len(bench.client.sessions) == 0)
            await until(lambda: len(bench.server.server.sessions) == 0)
