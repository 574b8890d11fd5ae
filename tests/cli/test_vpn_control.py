"""The commands of `tunnel-rs-vpn` against a server that answers, in a thread of its own."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.support.answering import Answering
from tests.support.observed import PEER
from tests.support.program import Ended, run_vpn

from tunnel_rs.errors import LocalError
from tunnel_rs.net.control_socket import ControlSocket, Request

STATUS = {
    "role": "vpnserver",
    "pid": 42,
    "device": "tunnel0",
    "peers": [
        {
            "peer": str(PEER),
            "name": "alice",
            "addresses": ["10.7.0.2", "fd07::2"],
            "seconds": 65,
            "sent": 1,
            "received": 2000,
        }
    ],
}


class Scene(Answering):
    """A VPN server, which writes down what it is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.environ = {"XDG_RUNTIME_DIR": str(folder)}
        self.asked: list[Mapping[str, Any]] = []
        self._path = folder / "tunnel-rs" / "tunnel-rs-vpn-server-42.sock"

    def run(self, *arguments: str) -> Ended:
        return run_vpn(*arguments, environ=self.environ)

    async def serve(self) -> None:
        async with ControlSocket(self._path, self._answer):
            await self.until_stopped()

    async def _answer(self, request: Request) -> Mapping[str, object]:
        if request["command"] == "status":
            return STATUS
        self.asked.append(request)
        if request.get("peer") == "10.7.0.9":
            raise LocalError("no such client")
        return {"clients": 1, "settings": "2 token(s)", "seconds": {str(PEER): 0.0125}}


@pytest.fixture
def scene() -> Iterator[Scene]:
    with TemporaryDirectory() as folder:  # paths of sockets are short: that of tmp_path may not be
        scene = Scene(Path(folder))
        yield scene
        scene.stop()


def test_ls_lists_clients_with_their_addresses(scene: Scene) -> None:
    assert scene.run("ls").err == "no VPN server of this user is running\n"
    scene.start()
    assert scene.run("ls").out.splitlines() == [
        "VPN server 42 on tunnel0",
        "  10.7.0.2, fd07::2: d75a980182 (alice), 1 min 5 s, 1 B out, 2.0 kB in",
    ]
    assert json.loads(scene.run("ls", "--json").out) == {"event": "status", **STATUS}


def test_a_client_is_killed_by_an_address(scene: Scene) -> None:
    scene.start()
    ended = scene.run("kill", "10.7.0.2")
    assert (ended.status, ended.out) == (0, "1 connection(s) of 10.7.0.2 were ended\n")
    assert scene.asked == [{"command": "kill", "peer": "10.7.0.2"}]
    ended = scene.run("kill", "10.7.0.9")
    assert (ended.status, ended.err) == (1, "error: no such client\n")


def test_tokens_are_read_again_and_clients_asked(scene: Scene) -> None:
    scene.start()
    assert scene.run("reload").out == "tokens read again: 2 token(s)\n"
    assert scene.run("ping").out == f"{PEER}: 12.50 ms\n"
    assert [request["command"] for request in scene.asked] == ["reload", "ping"]


def test_without_a_server_that_is_said(scene: Scene) -> None:
    ended = scene.run("reload")
    assert (ended.status, ended.err) == (1, "error: no VPN server of this user is running\n")
    assert scene.run("ping").err == "error: no VPN server or VPN client of this user is running\n"
