import sys
from types import ModuleType
from typing import Any

import pytest
from tests.support.observed import FakeObserved
from tests.support.program import import_anew, tunnel_rs
from tests.support.samples import ENDPOINT_ID, SECRET_KEY, TOKEN

from tunnel_rs.errors import LinkClosedError, LocalError
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.reports import Reporter
from tunnel_rs.values import EndpointId, SocketAddr

GOOD = ("server", "--secret", SECRET_KEY, "--auth-tokens", TOKEN, "--allowed-tcp", "127.0.0.0/8")


class FakeEndpoint:
    """An endpoint that is closed as soon as it is asked for a link."""

    bound: list[tuple[EndpointSettings, bool]] = []
    endpoint_id = EndpointId.parse(ENDPOINT_ID)
    addresses = (SocketAddr("127.0.0.1", 4433),)
    ways = ("LAN",)

    @classmethod
    async def bind(
        cls, settings: EndpointSettings, *, accept: bool, report: Reporter
    ) -> "FakeEndpoint":
        cls.bound.append((settings, accept))
        return cls()

    async def online(self) -> None:
        pass

    async def accept(self) -> Any:
        raise LinkClosedError(0, "done")

    async def close(self, code: int = 0, reason: str = "done") -> None:
        pass


class FakeServer(FakeObserved):
    made: list[ServerSettings] = []

    def __init__(self, settings: ServerSettings, report: Reporter) -> None:
        super().__init__()
        self.made.append(settings)

    async def serve(self, link: Any) -> None:
        raise AssertionError("there is no link")

    def apply(self, settings: ServerSettings) -> None:
        raise AssertionError("there was no SIGHUP")

    async def close(self) -> None:
        pass


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    endpoint, server = ModuleType("endpoint"), ModuleType("server")
    endpoint.Endpoint = FakeEndpoint  # type: ignore[attr-defined]
    server.ForwardServer = FakeServer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tunnel_rs.iroh.endpoint", endpoint)
    monkeypatch.setitem(sys.modules, "tunnel_rs.forward.server", server)
    import_anew(monkeypatch, "tunnel_rs.api")
    monkeypatch.setattr(FakeEndpoint, "bound", [])
    monkeypatch.setattr(FakeServer, "made", [])
    return endpoint


def test_a_server_starts_with_its_settings_and_says_so(parts: ModuleType) -> None:
    ended = tunnel_rs(*GOOD, "--bind", "127.0.0.1:4433", "--max-sessions", "5")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err.splitlines() == [
        "hint: --auth-tokens and --secret: other users of this machine can see it in the process "
        "list; use a file or the environment",
        f"EndpointId: {ENDPOINT_ID}",
        "Auth tokens: 1 token(s) configured",
        "Allowed TCP: 127.0.0.0/8",
        "Allowed UDP: nothing",
        "On the client, with an auth token in place of TOKEN:",
        f"  tunnel-rs client --server-node-id {ENDPOINT_ID} --source tcp://127.0.0.1:22 "
        "--target 127.0.0.1:2222 --auth-token TOKEN",
        "Waiting for clients to connect... (reachable by LAN, 127.0.0.1:4433)",
    ]
    ((settings, accept),) = FakeEndpoint.bound
    assert accept
    assert settings.bind == SocketAddr("127.0.0.1", 4433)
    assert FakeServer.made[0].max_sessions == 5


def test_json_replaces_the_text(parts: ModuleType) -> None:
    environ = {"TUNNEL_RS_SECRET": SECRET_KEY, "TUNNEL_RS_AUTH_TOKENS": TOKEN}
    ended = tunnel_rs("server", "--allowed-udp", "::1/128", "--json", environ=environ)
    assert ended.err == ""
    starting, ready = ended.out.splitlines()
    assert starting.startswith('{"event":"starting","endpoint_id":"')
    assert ready.startswith(f'{{"event":"ready","endpoint_id":"{ENDPOINT_ID}"')


def test_a_port_in_use_is_told_on_one_line(
    parts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bind(*_: Any, **__: Any) -> None:
        raise LocalError("cannot listen on UDP 127.0.0.1:4433: address already in use")

    monkeypatch.setattr(FakeEndpoint, "bind", bind)
    ended = tunnel_rs(*GOOD, "-q")
    assert ended.status == 1
    assert ended.err == "error: cannot listen on UDP 127.0.0.1:4433: address already in use\n"
