import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.net import control_socket
from tunnel_rs.net.control_socket import (
    MAX_REQUEST,
    ControlSocket,
    Request,
    ask,
    ask_all,
    find,
    runtime_directory,
)
from tunnel_rs.net.threads import in_thread

KINDS = pytest.mark.parametrize("portable", [False, True], ids=["unix socket", "loopback"])


async def echo(request: Request) -> Mapping[str, object]:
    return {"echo": dict(request)}


async def put(path: Path, request: Request) -> dict[str, Any]:
    return await in_thread(lambda: ask(path, request))


@KINDS
async def test_each_connection_carries_one_request_and_its_answer(
    tmp_path: Path, portable: bool
) -> None:
    path = tmp_path / "run" / "client-7.sock"
    async with ControlSocket(path, echo, portable=portable) as control:
        assert find(path.parent, "client-*") == [control.path]
        for number in range(3):
            asked = {"command": "x", "number": number}
            assert await put(control.path, asked) == {"echo": asked}
        assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == []


@KINDS
async def test_what_is_wrong_with_a_request_is_told(tmp_path: Path, portable: bool) -> None:
    async def refuse(_: Request) -> Mapping[str, object]:
        raise ConfigError("t.txt, line 3: no")

    async with ControlSocket(tmp_path / "a.sock", refuse, portable=portable) as control:
        with pytest.raises(LocalError, match=r"^t\.txt, line 3: no$"):
            await put(control.path, {"command": "reload"})


async def talk(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(sent)
    try:
        return await reader.read()
    except ConnectionError:
        return b""  # hung up on before all was taken
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("sent", [b"\n", b"hello\n", b"[1]\n", b"[" * 60_000 + b"\n", b"\xff\n"])
async def test_what_is_no_request_is_answered_with_an_error(tmp_path: Path, sent: bytes) -> None:
    async with ControlSocket(tmp_path / "a.sock", echo):
        answer = json.loads(await talk(tmp_path / "a.sock", sent))
        assert answer == {"error": "a request is one line with a JSON object"}


async def test_a_request_without_end_is_cut_off(tmp_path: Path) -> None:
    async with ControlSocket(tmp_path / "a.sock", echo):
        assert await talk(tmp_path / "a.sock", b" " * (MAX_REQUEST + 1)) == b""


async def test_who_says_nothing_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_REQUEST_TIMEOUT", 0.01)
    async with ControlSocket(tmp_path / "a.sock", echo):
        assert await talk(tmp_path / "a.sock", b'{"command":') == b""


async def test_only_so_many_may_ask_at_a_time(tmp_path: Path) -> None:
    async with ControlSocket(tmp_path / "a.sock", echo):
        path = str(tmp_path / "a.sock")
        asking = [await asyncio.open_unix_connection(path) for _ in range(32)]
        assert await talk(tmp_path / "a.sock", b'{"command":"x"}\n') == b""
        for _, writer in asking:
            writer.close()
            await writer.wait_closed()


async def test_other_users_are_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ControlSocket(tmp_path / "a.sock", echo):
        for uid in (os.geteuid() + 1, 65_534):
            monkeypatch.setattr(control_socket, "_peer_uid", lambda _, uid=uid: uid)
            assert await talk(tmp_path / "a.sock", b'{"command":"x"}\n') == b""
        monkeypatch.setattr(control_socket, "_peer_uid", lambda _: 0)
        assert b"echo" in await talk(tmp_path / "a.sock", b'{"command":"x"}\n')


async def test_the_user_at_the_other_end_is_known(tmp_path: Path) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert control_socket._peer_uid(one) in (os.geteuid(), None)


async def test_on_loopback_the_token_has_to_be_shown(tmp_path: Path) -> None:
    async with ControlSocket(tmp_path / "a.sock", echo, portable=True) as control:
        port = json.loads(control.path.read_text())["port"]
        for request in ({}, {"token": "x"}, {"token": 7}):
            control.path.write_text(json.dumps({"port": port, "token": "wrong"}))
            with pytest.raises(LocalError, match="the token of the control socket is wrong"):
                await put(control.path, request)


@KINDS
async def test_the_socket_of_a_killed_program_is_replaced(tmp_path: Path, portable: bool) -> None:
    path = tmp_path / "vpn-client.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (tmp_path / "vpn-client.port").write_text('{"port": 1, "token": "x"}')
    assert await in_thread(lambda: ask_all(tmp_path, "vpn-*")) == ({}, [])
    async with ControlSocket(path, echo, portable=portable) as control:
        assert (await put(control.path, {"command": "x"}))["echo"] == {"command": "x"}


async def test_of_all_programs_those_that_run_are_asked(tmp_path: Path) -> None:
    (tmp_path / "bad.port").write_text("nonsense")
    async with (
        ControlSocket(tmp_path / "client-1.sock", echo),
        ControlSocket(tmp_path / "client-2.sock", echo),
        ControlSocket(tmp_path / "server-1.sock", echo),
    ):
        asked = await in_thread(lambda: ask_all(tmp_path, "client-*"))
        told = {"echo": {"command": "status"}}
        assert asked == ({tmp_path / f"client-{n}.sock": told for n in (1, 2)}, [])
        assert len(find(tmp_path, "*")) == 4


async def test_a_program_that_is_stopped_holds_nobody_up_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "ALL_TIMEOUT", 0.3)
    stopped = [tmp_path / f"server-{n}.sock" for n in range(3)]
    with contextlib.ExitStack() as stack:
        for path in stopped:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(path))
            sock.listen(1)
        async with ControlSocket(tmp_path / "client-1.sock", echo):
            asked = await in_thread(lambda: ask_all(tmp_path, "*"))
    assert [path.name for path in asked.given] == ["client-1.sock"]
    assert asked.silent == stopped


async def test_answers_that_are_none_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(_: Request) -> Mapping[str, object]:
        return [1]  # type: ignore[return-value]

    async with ControlSocket(tmp_path / "a.sock", wrong):
        assert await in_thread(lambda: ask_all(tmp_path, "*")) == ({}, [])
    monkeypatch.setattr(control_socket, "MAX_ANSWER", 10)
    async with ControlSocket(tmp_path / "a.sock", echo):
        assert await in_thread(lambda: ask_all(tmp_path, "*")) == ({}, [])


@KINDS
async def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path, portable: bool) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="cannot make the control socket"):
        async with ControlSocket(tmp_path / "file" / "a.sock", echo, portable=portable):
            pass


def test_a_directory_of_another_user_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.sock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert find(tmp_path, "*") == []


def test_where_sockets_are(monkeypatch: pytest.MonkeyPatch) -> None:
    user = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert runtime_directory(user) == Path("/run/user/7/tunnel-rs")
    service = {**user, "RUNTIME_DIRECTORY": "/run/tunnel-rs/server:/run/other"}
    assert runtime_directory(service) == Path("/run/tunnel-rs/server")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_directory({}) == Path("/run/tunnel-rs")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert runtime_directory({"XDG_RUNTIME_DIR": "x"}).name == "tunnel-rs-7"
