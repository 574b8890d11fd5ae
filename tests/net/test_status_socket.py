import os
import socket
import stat
from pathlib import Path

import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net import status_socket
from tunnel_rs.net.status_socket import StatusSocket, ask_all, runtime_directory
from tunnel_rs.net.threads import in_thread


async def ask(folder: Path) -> list[dict[str, object]]:
    return await in_thread(lambda: list(ask_all(folder, "vpn-*.sock")))


async def test_everybody_who_asks_is_told_what_is_so_now(tmp_path: Path) -> None:
    count = 0

    def describe() -> dict[str, object]:
        nonlocal count
        count += 1
        return {"asked": count}

    path = tmp_path / "run" / "vpn-client.sock"
    async with StatusSocket(path, describe):
        assert await ask(path.parent) == [{"asked": 1}]
        assert await ask(path.parent) == [{"asked": 2}]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    assert await ask(path.parent) == []


async def test_the_socket_of_a_killed_program_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "vpn-client.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert await ask(tmp_path) == []
    async with StatusSocket(path, lambda: {"role": "x"}):
        assert await ask(tmp_path) == [{"role": "x"}]


async def test_other_sockets_are_not_asked(tmp_path: Path) -> None:
    async with StatusSocket(tmp_path / "other.sock", lambda: {}):
        assert await ask(tmp_path) == []


async def test_answers_that_are_none_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StatusSocket(tmp_path / "vpn-a.sock", lambda: [1]):  # type: ignore[arg-type,return-value]
        assert await ask(tmp_path) == []
    monkeypatch.setattr(status_socket, "MAX_ANSWER", 10)
    async with StatusSocket(tmp_path / "vpn-a.sock", lambda: {"long": "x" * 100}):
        assert await ask(tmp_path) == []


async def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="status socket"):
        async with StatusSocket(tmp_path / "file" / "vpn-a.sock", lambda: {}):
            pass


def test_where_sockets_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_directory({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/tunnel-rs")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_directory({}) == Path("/run/tunnel-rs")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert runtime_directory({"XDG_RUNTIME_DIR": "x"}).name == "tunnel-rs-7"
