import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.samples import ENDPOINT_ID, OTHER_TOKEN, TOKEN

from tunnel_rs.cli.running import client_command, run_client, run_server, starting
from tunnel_rs.errors import ConfigError, ExitStatus, LinkClosedError, UnreachableError
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.iroh.discovery_settings import choose_discovery
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.link import Link
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.iroh_defaults import PRODUCTION
from tunnel_rs.proto.policy import parse_network
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.reports import Notice, Report, Reporter, ServerReady, ServerStarting
from tunnel_rs.values import EndpointId, Secret, SocketAddr

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals to itself")

PEER = EndpointId.parse(ENDPOINT_ID)
REACH = EndpointSettings()
PUBLIC = EndpointSettings(
    relays=(RelayUrl.parse("https://relay.example"),),
    public_relays=True,
    discovery=choose_discovery(None, PRODUCTION, publish=True),
)
SETTINGS = ServerSettings((parse_network("127.0.0.0/8"),), (), of_tokens(Secret(TOKEN)))


class FakeLink:
    """As much of a Link as accepting it needs."""

    peer = PEER

    def __init__(self) -> None:
        self.closed_with: tuple[int, str] | None = None

    def close(self, code: int, reason: str) -> None:
        self.closed_with = (code, reason)


class FakeEndpoint:
    endpoint_id = PEER
    addresses = (SocketAddr("192.0.2.1", 4433),)
    ways = ("LAN",)

    def __init__(self, links: int = 0, *, offline: bool = False) -> None:
        self.offline = offline
        self.is_online = asyncio.Event()
        self.is_online.set()
        self.links = [FakeLink() for _ in range(links)]
        self.closed_with: tuple[int, str] | None = None
        self._waiting = list(self.links)

    async def online(self) -> None:
        if self.offline:
            raise UnreachableError("no relay was reached")
        await self.is_online.wait()

    async def accept(self) -> Link:
        if self._waiting:
            return self._waiting.pop()  # type: ignore[return-value]
        await asyncio.Event().wait()
        raise LinkClosedError(0, "done")

    async def close(self, code: int = 0, reason: str = "done") -> None:
        self.closed_with = (code, reason)


class FakeServer:
    """Ends its own process by a signal once it has served `until` links."""

    def __init__(self, until: int, then: Callable[[], None]) -> None:
        self.served: list[Link] = []
        self.applied: list[ServerSettings] = []
        self.closed = asyncio.Event()
        self._until = until
        self._then = then

    async def serve(self, link: Link) -> None:
        self.served.append(link)
        if len(self.served) == self._until:
            self._then()
        await self.closed.wait()

    def apply(self, settings: ServerSettings) -> None:
        self.applied.append(settings)
        terminate()

    async def close(self) -> None:
        self.closed.set()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def unchanged() -> ServerSettings:
    return SETTINGS


async def test_a_server_announces_itself_serves_links_and_ends_in_order() -> None:
    endpoint, reports = FakeEndpoint(links=3), list[Report]()
    server = FakeServer(3, terminate)
    status = await run_server(SETTINGS, REACH, endpoint, server, reports.append, unchanged)
    assert status is ExitStatus.TERMINATED
    assert len(server.served) == 3
    assert endpoint.closed_with == (0, "done")
    assert reports[0] == starting(PEER, SETTINGS, REACH)
    assert reports[1] == ServerReady(PEER, endpoint.addresses, ("LAN", "192.0.2.1:4433"))


async def test_links_are_served_before_the_relay_is_reached() -> None:
    endpoint, reports = FakeEndpoint(links=2), list[Report]()
    endpoint.is_online.clear()
    server = FakeServer(2, endpoint.is_online.set)

    def report(report: Report) -> None:
        reports.append(report)
        if isinstance(report, ServerReady):
            assert len(server.served) == 2
            terminate()

    await run_server(SETTINGS, REACH, endpoint, server, report, unchanged)
    assert isinstance(reports[1], ServerReady)


async def test_a_server_that_nobody_can_reach_ends() -> None:
    endpoint, server = FakeEndpoint(offline=True), FakeServer(1, terminate)
    with pytest.raises(UnreachableError, match="no relay was reached"):
        await run_server(SETTINGS, REACH, endpoint, server, lambda _: None, unchanged)
    assert endpoint.closed_with == (0, "done") and server.closed.is_set()


OWN_RELAYS = (RelayUrl.parse("https://a.example/?token=hush"), RelayUrl.parse("http://b:1"))


@pytest.mark.parametrize(
    ("reach", "options"),
    [
        (PUBLIC, ""),
        (EndpointSettings(), "--relay-url none --dns-server none"),
        (
            EndpointSettings(relays=OWN_RELAYS, relay_only=True),
            "--relay-url https://a.example/ --relay-url http://b:1/ --relay-only",
        ),
        (
            replace(PUBLIC, discovery=choose_discovery("http://d/pkarr", PRODUCTION, publish=True)),
            "--dns-server http://d/pkarr",
        ),
    ],
)
def test_the_command_for_a_client_says_where_to_look(reach: EndpointSettings, options: str) -> None:
    words = client_command(PEER, SETTINGS, reach)
    before, after = f"--server-node-id {ENDPOINT_ID}", "--source"
    assert words.partition(before)[2].partition(after)[0].strip() == options


async def test_sighup_applies_settings_read_again() -> None:
    endpoint, reports = FakeEndpoint(links=1), list[Report]()
    server = FakeServer(1, hang_up)
    new = replace(
        SETTINGS,
        allowed_tcp=(parse_network("10.0.0.0/8"), parse_network("::1")),
        access=of_tokens(Secret(TOKEN), Secret(OTHER_TOKEN)),
    )
    await run_server(SETTINGS, REACH, endpoint, server, reports.append, lambda: new)
    assert server.applied == [new]
    text = "settings read again: 2 token(s), TCP 10.0.0.0/8, ::1/128, UDP nothing"
    assert Notice("info", text) in reports


async def test_settings_that_are_bad_when_read_again_change_nothing() -> None:
    endpoint, reports = FakeEndpoint(links=1), list[Report]()
    server = FakeServer(1, hang_up)

    def report(report: Report) -> None:
        reports.append(report)
        if isinstance(report, Notice) and report.level == "warning":
            terminate()

    def reread() -> ServerSettings:
        raise ConfigError("s.toml: iroh.auth_tokens: wrong")

    status = await run_server(SETTINGS, REACH, endpoint, server, report, reread)
    assert status is ExitStatus.TERMINATED
    assert server.applied == []
    text = "s.toml: iroh.auth_tokens: wrong; the settings in use stay as they are"
    assert Notice("warning", text) in reports


async def test_a_link_that_fails_does_not_end_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(FakeServer):
        async def serve(self, link: Link) -> None:
            if not self.served:
                self.served.append(link)
                raise KeyError("mistake")
            await super().serve(link)

    server = Failing(2, terminate)
    await run_server(SETTINGS, REACH, FakeEndpoint(links=2), server, lambda _: None, unchanged)
    assert len(server.served) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "internal error in links/d75a980182"
    ]


class FakeClient:
    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.closed = False

    async def run(self) -> None:
        self._run()

    async def close(self) -> None:
        self.closed = True


async def test_a_client_that_ends_by_itself_is_done() -> None:
    endpoint, client = FakeEndpoint(), FakeClient(lambda: None)
    assert await run_client(endpoint, client, lambda _: None) is ExitStatus.DONE
    assert client.closed
    assert endpoint.closed_with == (0, "done")


async def test_a_client_that_fails_is_closed_and_its_error_raised() -> None:
    def fail() -> None:
        raise UnreachableError("the server does not answer")

    endpoint, client = FakeEndpoint(), FakeClient(fail)
    with pytest.raises(UnreachableError):
        await run_client(endpoint, client, lambda _: None)
    assert client.closed
    assert endpoint.closed_with == (0, "done")


@pytest.mark.parametrize(
    ("tcp", "udp", "source"),
    [
        (["127.0.0.0/8"], [], "--source tcp://127.0.0.1:22 --target 127.0.0.1:2222"),
        (["0.0.0.0/0"], [], "--source tcp://127.0.0.1:22 "),
        (["192.168.7.0/24"], [], "--source tcp://192.168.7.1:22 "),
        (["192.168.7.9/32"], [], "--source tcp://192.168.7.9:22 "),
        (["::1/128"], [], "--source tcp://[::1]:22 "),
        (["fd00::/8"], [], "--source tcp://[fd00::1]:22 "),
        ([], ["10.0.0.53/32"], "--source udp://10.0.0.53:53 --target 127.0.0.1:5353"),
    ],
)
def test_the_command_for_a_client_asks_for_something_allowed(
    tcp: list[str], udp: list[str], source: str
) -> None:
    networks = tuple(map(parse_network, tcp)), tuple(map(parse_network, udp))
    command = client_command(PEER, ServerSettings(*networks, access=of_tokens()), PUBLIC)
    assert command.startswith(f"tunnel-rs client --server-node-id {ENDPOINT_ID} {source}")
    assert command.endswith(" --auth-token TOKEN")


def test_the_start_tells_how_many_tokens_there_are_and_none_of_them() -> None:
    report = starting(PEER, SETTINGS, REACH)
    assert isinstance(report, ServerStarting)
    assert (report.auth_tokens, report.allowed_tcp, report.allowed_udp) == (1, ("127.0.0.0/8",), ())
    assert TOKEN not in repr(report)


def test_a_reporter_is_any_function() -> None:
    reporter: Reporter = list[Report]().append
    reporter(Notice("info", "x"))
