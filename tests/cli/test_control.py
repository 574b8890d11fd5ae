"""The commands against programs that answer on real control sockets, in a thread of their own."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.support.answering import Answering
from tests.support.observed import PEER, FakeObserved
from tests.support.program import Ended, tunnel_rs

from tunnel_rs.cli.operations import Operations
from tunnel_rs.config.operations import OperationSettings
from tunnel_rs.errors import ConfigError, UnreachableError
from tunnel_rs.net.control_socket import Request
from tunnel_rs.reports import silent


class Scene(Answering):
    """A server and a client, which write down what they are asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.environ = {"XDG_RUNTIME_DIR": str(folder)}
        self.asked: list[Mapping[str, Any]] = []
        self.roles: list[str] = []

    def start(self, *roles: str) -> None:
        self.roles = list(roles)
        super().start()

    def run(self, *arguments: str) -> Ended:
        return tunnel_rs(*arguments, environ=self.environ)

    async def serve(self) -> None:
        await self._serve(self.roles)

    async def _serve(self, roles: list[str]) -> None:
        if not roles:
            await self.until_stopped()
            return
        async with Operations(OperationSettings(), roles[0], silent, self.environ) as operations:
            names = {
                "server": ("kill", "reload", "ping"),
                "client": ("kill", "ping", "add", "rm"),
            }[roles[0]]
            operations.observe(PEER, FakeObserved(), dict.fromkeys(names, self._answer))
            await self._serve(roles[1:])

    async def _answer(self, request: Request) -> Mapping[str, object]:
        self.asked.append(request)
        tunnel = {"tunnel": 2, "source": "tcp://a:1", "addresses": ["127.0.0.1:8022"]}
        match request["command"]:
            case "reload" if len(self.asked) > 1:
                raise ConfigError("t.txt, line 3: no")
            case "ping" if len(self.asked) > 1:
                raise UnreachableError("no answer in 5 s")
        return {
            "kill": {"session": 4, "clients": 1},
            "reload": {"settings": "1 token(s)"},
            "ping": {"seconds": {str(PEER): 0.0125}},
            "add": {"tunnel": tunnel},
            "rm": {"tunnel": tunnel},
        }[request["command"]]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with TemporaryDirectory() as folder:  # paths of sockets are short: that of tmp_path may not be
        scene = Scene(Path(folder))
        yield scene
        scene.stop()


def test_status_shows_every_program_or_says_that_there_is_none(scene: Scene) -> None:
    ended = scene.run("status")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "no server or client of this user is running\n"
    scene.start("server", "client")
    ended = scene.run("status")
    assert ended.status == 0
    heads = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert heads == ["server", "client"]
    assert "client d75a980182 (alice)" in ended.out


def test_json_is_one_object_a_program(scene: Scene) -> None:
    scene.start("server", "client")
    for command in ("status", "ls"):
        events = [json.loads(line) for line in scene.run(command, "--json").out.splitlines()]
        assert [event["role"] for event in events] == ["server", "client"]
        assert all(event["event"] == "status" for event in events)


def test_ls_lists_tunnels_and_sessions_by_number(scene: Scene) -> None:
    scene.start("client")
    lines = scene.run("ls").out.splitlines()
    assert lines[1:] == [
        "  tunnel 1: 127.0.0.1:2222 -> tcp://127.0.0.1:22",
        "  session 4: tcp://127.0.0.1:22, 1 s, 10 B out, 20 B in, by alice",
    ]


def test_kill_takes_a_session_or_a_client(scene: Scene) -> None:
    scene.start("server")
    assert scene.run("kill", "4").out == "session 4 was ended\n"
    assert scene.run("kill", "d75a980182").out == "1 connection(s) of d75a980182 were ended\n"
    assert scene.asked == [
        {"command": "kill", "session": 4},
        {"command": "kill", "peer": "d75a980182"},
    ]


def test_reload_tells_the_settings_or_what_is_wrong_with_them(scene: Scene) -> None:
    scene.start("server")
    assert scene.run("reload").out == "settings read again: 1 token(s)\n"
    ended = scene.run("reload")
    assert (ended.status, ended.err) == (1, "error: t.txt, line 3: no\n")


def test_ping_tells_the_time_or_that_there_was_no_answer(scene: Scene) -> None:
    scene.start("client")
    assert scene.run("ping").out == f"{PEER}: 12.50 ms\n"
    assert scene.run("ping", "--json").err == "error: no answer in 5 s\n"


def test_tunnels_are_added_and_removed(scene: Scene) -> None:
    scene.start("server", "client")
    added = scene.run("add", "-s", "tcp://a:1", "-t", "127.0.0.1:8022")
    assert added.out == "tunnel 2: 127.0.0.1:8022 -> tcp://a:1\n"
    assert scene.run("rm", "2").out == "tunnel 2 on 127.0.0.1:8022 was removed\n"
    scene.run("rm", "127.0.0.1:8022")
    assert scene.asked == [
        {"command": "add", "source": "tcp://a:1", "target": "127.0.0.1:8022"},
        {"command": "rm", "tunnel": 2},
        {"command": "rm", "tunnel": "127.0.0.1:8022"},
    ]
    done = json.loads(scene.run("rm", "2", "--json").out)
    assert done["event"] == "done" and done["tunnel"]["tunnel"] == 2


def test_where_several_would_do_one_has_to_be_chosen(scene: Scene) -> None:
    scene.start("server", "client")
    ended = scene.run("ping")
    assert ended.status == 2
    assert "2 programs are running" in ended.err and "choose one with --pid" in ended.err


def test_what_nobody_can_do_is_told(scene: Scene) -> None:
    scene.start("server")
    ended = scene.run("add", "-s", "tcp://a:1", "-t", "127.0.0.1:1")
    assert (ended.status, ended.err) == (1, "error: no client of this user is running\n")
