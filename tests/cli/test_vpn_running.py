import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.support.memory_link import SERVER_ID, MemoryLink, link_pair
from tests.support.program import run_vpn
from tests.support.sockets import until
from tests.support.vpn import OTHER_TOKEN, TOKEN, FakeHost, FakeTun, server_settings

from tunnel_rs.cli.vpn_running import answering, run_vpn_server, starting
from tunnel_rs.errors import ConfigError, ExitStatus, LinkClosedError, LocalError
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.control_socket import ask_all
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.net.threads import in_thread
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.vpn_handshake import VpnRequest, decode_response, encode_request
from tunnel_rs.reports import Notice, Report, ServerReady, VpnServerStarting
from tunnel_rs.values import SocketAddr
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.settings import ServerSettings


class FakeEndpoint:
    """Gives the links that the test puts in."""

    endpoint_id = SERVER_ID
    addresses = (SocketAddr("192.0.2.1", 4433),)
    ways = ("LAN",)

    async def online(self) -> None:
        """At once."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[MemoryLink | None] = asyncio.Queue()
        self.closed = False

    async def accept(self) -> MemoryLink:
        link = await self.links.get()
        if link is None:
            raise LinkClosedError(0, "closed")
        return link

    async def close(self, code: int = 0, reason: str = "done") -> None:
        self.closed = True
        self.links.put_nowait(None)


class Bench:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        self.reports: list[Report] = []
        self.endpoint, self.tun = FakeEndpoint(), FakeTun()
        self.server = VpnServer(server_settings(), self.tun, FakeHost(), self.reports.append)
        self.reread: ServerSettings | Exception = server_settings(access=of_tokens(OTHER_TOKEN))

    async def run(self) -> ExitStatus:
        await self.server.start()
        return await run_vpn_server(
            self.endpoint, self.server, EndpointSettings(), self.reports.append, self._reread
        )

    def _reread(self) -> ServerSettings:
        if isinstance(self.reread, Exception):
            raise self.reread
        return self.reread

    async def ask(self, number: int) -> bool:
        client, server = link_pair()
        self.endpoint.links.put_nowait(server)
        exchange = Exchange(await client.open_stream())
        exchange.send_encoded(encode_request(VpnRequest(number, TOKEN)))
        return decode_response(await exchange.receive()).accepted


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


async def started(bench: Bench) -> "asyncio.Task[ExitStatus]":
    running = asyncio.create_task(bench.run())
    await until(lambda: any(isinstance(report, ServerReady) for report in bench.reports))
    return running


async def test_it_announces_serves_answers_and_stops_on_a_signal(
    bench: Bench, tmp_path: Path
) -> None:
    running = await started(bench)
    assert isinstance(bench.reports[0], VpnServerStarting)
    assert await bench.ask(1)
    [answer] = await in_thread(lambda: list(ask_all(tmp_path / "tunnel-rs", "vpn-server-*")))
    assert len(answer["clients"]) == 1
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running is ExitStatus.TERMINATED
    assert bench.endpoint.closed
    assert list((tmp_path / "tunnel-rs").iterdir()) == []


async def test_sighup_reads_the_tokens_again(bench: Bench) -> None:
    running = await started(bench)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: Notice("info", "tokens read again: 1") in bench.reports)
    assert not await bench.ask(1)
    bench.reread = ConfigError("x.toml: wrong")
    os.kill(os.getpid(), signal.SIGHUP)
    kept = Notice("warning", "x.toml: wrong; the settings in use stay as they are")
    await until(lambda: kept in bench.reports)
    os.kill(os.getpid(), signal.SIGINT)
    assert await running is ExitStatus.INTERRUPTED


async def test_when_the_device_goes_it_ends_with_the_reason(bench: Bench) -> None:
    running = await started(bench)
    bench.tun.vanish()
    with pytest.raises(LocalError, match="has gone"):
        await running
    assert bench.endpoint.closed


async def test_without_a_status_socket_all_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tunnel-rs").write_text("a file in the way")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    reports: list[Report] = []
    async with answering("vpn-client", dict, reports.append):
        pass
    assert len(reports) == 1 and "status" in str(reports[0])


async def test_the_command_for_a_client_is_one_that_works_with_a_token() -> None:
    server = VpnServer(server_settings(), FakeTun(), FakeHost())
    reach = EndpointSettings(relays=(RelayUrl.parse("https://r.example"),))
    words = starting(SERVER_ID, server, reach).client_command.split()
    assert words[0] == "tunnel-rs-vpn" and "https://r.example/" in words
    ended = run_vpn(*words[1:-1], "x")
    assert "18 characters" in ended.err
