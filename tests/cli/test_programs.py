import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from tunnel_rs.cli.programs import Choice, Program
from tunnel_rs.errors import LocalError, TunnelError, UsageError
from tunnel_rs.net import control_socket
from tunnel_rs.net.control_socket import ControlSocket, Request
from tunnel_rs.net.threads import in_thread


class Running:
    """Programs that tell who they are."""

    def __init__(self, folder: Path) -> None:
        self.environ = {"XDG_RUNTIME_DIR": str(folder)}
        self._folder = folder / "tunnel-rs"
        self._open = AsyncExitStack()

    async def add(self, role: str, pid: int) -> Path:
        async def handle(request: Request) -> Mapping[str, object]:
            if request["command"] != "status":
                raise LocalError("no")
            return {"role": role, "pid": pid}

        path = self._folder / f"tunnel-rs-{role}-{pid}.sock"
        await self._open.enter_async_context(ControlSocket(path, handle))
        return path

    async def close(self) -> None:
        await self._open.aclose()

    async def names(self, choice: Choice) -> list[str]:
        return await in_thread(lambda: [program.name for program in choice.find_all(self.environ)])

    async def one(self, choice: Choice, *roles: str) -> Program:
        return await in_thread(lambda: choice.find_one(self.environ, roles))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    yield running
    await running.close()


async def test_all_that_answer_are_found(running: Running, tmp_path: Path) -> None:
    assert await running.names(Choice()) == []
    await running.add("server", 7)
    await running.add("client", 8)
    (tmp_path / "tunnel-rs" / "tunnel-rs-client-9.sock").touch()
    assert await running.names(Choice()) == ["server 7", "client 8"]
    assert await running.names(Choice(pid=7)) == ["server 7"]
    assert await running.names(Choice(pid=9)) == []


async def test_one_is_chosen_by_role_by_process_id_or_by_socket(running: Running) -> None:
    socket = await running.add("client", 8)
    await running.add("client", 9)
    await running.add("server", 7)
    assert (await running.one(Choice(), "server")).name == "server 7"
    assert (await running.one(Choice(pid=9), "client")).pid == 9
    assert (await running.one(Choice(socket=socket), "client")).pid == 8


@pytest.mark.parametrize(
    ("choice", "roles", "kind", "says"),
    [
        (Choice(), ["client"], UsageError, "2 programs are running (client 8, client 9); choose"),
        (Choice(), ["server"], LocalError, "no server of this user is running"),
        (Choice(pid=3), ["client"], LocalError, "no client with process id 3 is running"),
        (Choice(Path("/nowhere/x.sock")), ["client"], LocalError, "no program answers there: No"),
    ],
)
async def test_what_cannot_be_chosen_is_told(
    running: Running, choice: Choice, roles: list[str], kind: type[TunnelError], says: str
) -> None:
    await running.add("client", 8)
    await running.add("client", 9)
    with pytest.raises(kind) as refused:
        await running.one(choice, *roles)
    assert says in str(refused.value)


async def test_one_that_does_not_answer_is_named(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "ALL_TIMEOUT", 0.3)
    await running.add("client", 8)
    silent: list[str] = []
    find = partial(Choice.find_all, environ=running.environ, tell=silent.append)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(tmp_path / "tunnel-rs" / "tunnel-rs-server-9.sock"))
        stopped.listen(1)
        await in_thread(partial(find, Choice()))
        await in_thread(partial(find, Choice(pid=8)))
        await in_thread(partial(find, Choice(), roles=["client"]))
        with pytest.raises(LocalError, match="no server of this user answers; tunnel-rs-server-9"):
            await running.one(Choice(), "server")
    assert silent == ["tunnel-rs-server-9 does not answer; it may be stopped, or very busy"]


async def test_a_program_answers_and_when_it_has_gone_that_is_told(running: Running) -> None:
    await running.add("client", 8)
    program = await running.one(Choice(), "client")
    with pytest.raises(LocalError, match=r"^no$"):
        await in_thread(lambda: program.put({"command": "x"}))
    await running.close()
    with pytest.raises(LocalError, match="client 8 does not answer"):
        await in_thread(lambda: program.put({"command": "x"}))


def test_a_name_of_a_role_is_its_role_and_process_id() -> None:
    program = Program(Path("/x"), {"role": "server", "pid": os.getpid()})
    assert program.name == f"server {os.getpid()}"
