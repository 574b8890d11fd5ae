import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from tests.support.observed import FakeObserved
from tests.support.program import import_anew, tunnel_rs
from tests.support.samples import CLIENT_FILE, ENDPOINT_ID, TOKEN, write

from tunnel_rs.errors import AuthRefusedError, PeerNotFoundError, TunnelError, UnreachableError
from tunnel_rs.forward.settings import ClientSettings
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.reports import Reporter, TunnelUp
from tunnel_rs.values import EndpointId

GOOD = ("client", "-n", ENDPOINT_ID, "-s", "tcp://a:1", "-t", "127.0.0.1:0")
ENVIRON = {"TUNNEL_RS_AUTH_TOKEN": TOKEN}


class FakeEndpoint:
    endpoint_id = EndpointId.parse(ENDPOINT_ID)
    dialled: list[tuple[EndpointId, float]] = []
    accepting: list[bool] = []

    @classmethod
    async def bind(
        cls, settings: EndpointSettings, *, accept: bool, report: Reporter
    ) -> "FakeEndpoint":
        cls.accepting.append(accept)
        return cls()

    async def connect(self, peer: EndpointId, *, timeout: float) -> str:
        self.dialled.append((peer, timeout))
        return "link"

    async def close(self, code: int = 0, reason: str = "done") -> None:
        pass


class FakeClient(FakeObserved):
    """Connects once and ends."""

    made: list[ClientSettings] = []
    error: TunnelError | None = None

    def __init__(
        self,
        settings: ClientSettings,
        connect: Callable[[], Awaitable[Any]],
        report: Reporter,
        *,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__()
        self.made.append(settings)
        self._connect = connect
        self._report = report

    async def run(self) -> None:
        assert await self._connect() == "link"
        if self.error:
            raise self.error
        self._report(TunnelUp(EndpointId.parse(ENDPOINT_ID), "LAN", 0.5))

    def retry_now(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _fake_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, client = ModuleType("endpoint"), ModuleType("client")
    endpoint.Endpoint = FakeEndpoint  # type: ignore[attr-defined]
    client.ForwardClient = FakeClient  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tunnel_rs.iroh.endpoint", endpoint)
    monkeypatch.setitem(sys.modules, "tunnel_rs.forward.client", client)
    import_anew(monkeypatch, "tunnel_rs.api")
    monkeypatch.setattr(FakeEndpoint, "dialled", [])
    monkeypatch.setattr(FakeEndpoint, "accepting", [])
    monkeypatch.setattr(FakeClient, "made", [])


def test_a_client_dials_the_server_with_its_settings() -> None:
    ended = tunnel_rs(*GOOD, "--connect-timeout", "3", environ=ENVIRON)
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == "tunnel to d75a980182 is up by LAN after 0.50 s\n"
    assert FakeEndpoint.dialled == [(EndpointId.parse(ENDPOINT_ID), 3.0)]
    assert FakeEndpoint.accepting == [False]
    assert str(FakeClient.made[0].tunnels[0].source) == "tcp://a:1"


def test_a_file_alone_will_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("config")
    (directory / "tunnel-rs").mkdir()
    write(directory / "tunnel-rs" / "client.toml", CLIENT_FILE)
    for arguments, environ in (
        (("-c", str(directory / "tunnel-rs" / "client.toml")), {}),
        (("--default-config",), {"XDG_CONFIG_HOME": str(directory)}),
    ):
        assert tunnel_rs("client", *arguments, environ=environ).status == 0
    assert FakeClient.made[0] == FakeClient.made[1]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AuthRefusedError("the server did not accept the token"), 3),
        (PeerNotFoundError("the server was not found"), 4),
        (UnreachableError("the server does not answer"), 5),
    ],
)
def test_how_it_failed_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, error: TunnelError, status: int
) -> None:
    monkeypatch.setattr(FakeClient, "error", error)
    ended = tunnel_rs(*GOOD, "--no-reconnect", environ=ENVIRON)
    assert (ended.status, ended.out, ended.err) == (status, "", f"error: {error}\n")


def test_a_token_on_the_command_line_draws_one_hint() -> None:
    ended = tunnel_rs(*GOOD, "--auth-token", TOKEN)
    hints = [line for line in ended.err.splitlines() if line.startswith("hint: ")]
    assert len(hints) == 1
    assert TOKEN not in ended.err


def test_stdout_cannot_carry_json_and_the_stream() -> None:
    arguments = ("client", "-n", ENDPOINT_ID, "-s", "tcp://a:1", "--stdio", "--json")
    ended = tunnel_rs(*arguments, environ=ENVIRON)
    assert ended.status == 2
    text = "--json cannot be given beside --stdio: stdout carries the stream"
    assert ended.err == f"error: {text}\n"
    assert FakeClient.made == []


def test_stdout_stays_free_for_the_stream() -> None:
    arguments = ("client", "-n", ENDPOINT_ID, "-s", "tcp://a:1", "--stdio")
    ended = tunnel_rs(*arguments, environ=ENVIRON)
    assert (ended.status, ended.out) == (0, "")
    assert str(FakeClient.made[0].stdio) == "tcp://a:1"
