import asyncio
import os
import signal

import pytest
from tests.support.memory_link import SERVER_ID, MemoryLink, link_pair
from tests.support.program import run_vpn
from tests.support.sockets import until
from tests.support.vpn import OTHER_TOKEN, TOKEN, FakeHost, FakeTun, server_settings

from tunnel_rs.cli.vpn_running import reload_vpn_server, run_vpn_server, starting
from tunnel_rs.errors import ConfigError, ExitStatus, LinkClosedError, LocalError
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.exchange import Exchange
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
    def __init__(self) -> None:
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
async def bench() -> Bench:
    return Bench()


async def started(bench: Bench) -> "asyncio.Task[ExitStatus]":
    running = asyncio.create_task(bench.run())
    await until(lambda: any(isinstance(report, ServerReady) for report in bench.reports))
    return running


async def test_it_announces_serves_and_stops_on_a_signal(bench: Bench) -> None:
    running = await started(bench)
    assert isinstance(bench.reports[0], VpnServerStarting)
    assert await bench.ask(1)
    assert len(bench.server.sessions) == 1
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running is ExitStatus.TERMINATED
    assert bench.endpoint.closed


async def test_sighup_reads_the_tokens_again(bench: Bench) -> None:
    running = await started(bench)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: Notice("info", "tokens read again: 1 token(s)") in bench.reports)
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


async def test_what_is_wrong_with_the_tokens_is_told_and_raised(bench: Bench) -> None:
    bench.reread = ConfigError("x.toml: wrong")
    with pytest.raises(ConfigError):
        reload_vpn_server(bench.server, bench.reports.append, bench._reread)
    assert len(bench.reports) == 1
    bench.reread = server_settings(access=of_tokens(OTHER_TOKEN))
    assert reload_vpn_server(bench.server, bench.reports.append, bench._reread) == "1 token(s)"


async def test_the_command_for_a_client_is_one_that_works_with_a_token() -> None:
    server = VpnServer(server_settings(), FakeTun(), FakeHost())
    reach = EndpointSettings(relays=(RelayUrl.parse("https://r.example"),))
    words = starting(SERVER_ID, server, reach).client_command.split()
    assert words[0] == "tunnel-rs-vpn" and "https://r.example/" in words
    ended = run_vpn(*words[1:-1], "x")
    assert "18 characters" in ended.err
