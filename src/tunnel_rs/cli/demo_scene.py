"""What `tunnel-rs demo` shows: a real server and client on loopback, step by step."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TypeVar

from tunnel_rs.cli.demo_services import LOOPBACK, ask_echo, fetch, udp_echo, web_service
from tunnel_rs.errors import LinkClosedError, TunnelError
from tunnel_rs.forward.client import ForwardClient
from tunnel_rs.forward.server import ForwardServer
from tunnel_rs.forward.settings import ClientSettings, ServerSettings, Tunnel
from tunnel_rs.iroh.discovery_settings import DiscoverySettings, choose_discovery
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.link import Link
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.iroh_defaults import PRODUCTION
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.tokens import generate_token
from tunnel_rs.reports import (
    ClientAuthenticated,
    Listening,
    Notice,
    Report,
    SessionRefused,
    TunnelUp,
)
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsServerSettings
from tunnel_rs.selfhost.relay import RelayServer
from tunnel_rs.selfhost.relay_settings import RelayServerSettings
from tunnel_rs.values import HostPort, Protocol, Secret, SocketAddr, SourceUrl

DOWNLOAD = 32 << 20
_QUESTIONS = 100
_TIMEOUT = 10.0

R = TypeVar("R", bound=Report)

Say = Callable[[str, str], None]
"""Shows a step: its title, and what was seen."""


class DemoFailedError(TunnelError):
    """Something in the demonstration was not as it should be."""


@dataclass
class _Watcher:
    """Collects the reports of one side; `wait` returns the next of a kind."""

    seen: list[Report] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, report: Report) -> None:
        self.seen.append(report)
        self.changed.set()

    async def wait(self, kind: type[R]) -> R:
        async with asyncio.timeout(_TIMEOUT):
            while True:
                for report in self.seen:
                    if isinstance(report, kind):
                        self.seen.remove(report)
                        return report
                self.changed.clear()
                await self.changed.wait()


class Scene:
    """One run of the demonstration. `async with` it, then `play`."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._stack = AsyncExitStack()
        self._server_sees, self._client_sees = _Watcher(), _Watcher()
        self._data = os.urandom(DOWNLOAD)
        self.seed = Secret(os.urandom(32))
        self.token = generate_token(os.urandom)
        self.web_port = self.echo_port = 0
        self.server_address = SocketAddr(LOOPBACK, 0)
        self.local: dict[str, int] = {}

    async def __aenter__(self) -> "Scene":
        self._tasks = await self._stack.enter_async_context(TaskScope("demo"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def play(self) -> None:
        """All steps. Raises DemoFailedError, TunnelError or TimeoutError when one goes wrong."""
        await self._start_services()
        await self._start_infrastructure()
        await self._start_server()
        await self._fetch_by_relay()
        await self._start_client()
        await self._fetch_page(self.local["web"])
        await self._compare_download()
        await self._ask_udp()
        await self._ask_for_what_is_not_allowed()

    async def _start_services(self) -> None:
        self.web_port = await self._stack.enter_async_context(web_service(self._data))
        self.echo_port = await self._stack.enter_async_context(udp_echo())
        self._say("services", f"a web page on port {self.web_port}, a UDP echo on {self.echo_port}")

    async def _start_infrastructure(self) -> None:
        anywhere = SocketAddr(LOOPBACK, 0)
        relay = RelayServer(RelayServerSettings(http_bind_addr=anywhere, enable_metrics=False))
        await relay.start()
        self._stack.push_async_callback(relay.close)
        discovery = DnsServer(DnsServerSettings(http=anywhere, dns=None))
        await discovery.start()
        self._stack.push_async_callback(discovery.close)
        assert discovery.pkarr_url is not None
        self.relay_url, self.pkarr_url = f"http://{relay.addresses.http}", discovery.pkarr_url
        self._say("relay", f"a private one at {self.relay_url}")
        self._say("discovery", f"a private one at {self.pkarr_url}")

    def _discovery(self, *, publish: bool) -> DiscoverySettings:
        return choose_discovery(self.pkarr_url, PRODUCTION, publish=publish)

    async def _start_server(self) -> None:
        settings = EndpointSettings(
            secret_key=self.seed,
            bind=self.server_address,
            lan_discovery=False,
            relays=(RelayUrl.parse(self.relay_url),),
            discovery=self._discovery(publish=True),
        )
        endpoint = await Endpoint.bind(settings, accept=True, report=self._server_sees.report)
        self._stack.push_async_callback(endpoint.close)
        await endpoint.online()
        loopback = (ip_network("127.0.0.1/32"),)
        forward = ServerSettings(loopback, loopback, of_tokens(self.token))
        server = ForwardServer(forward, report=self._server_sees.report)
        self._tasks.spawn(self._serve(endpoint, server), "server")
        self.endpoint_id = endpoint.endpoint_id
        [self.server_address] = endpoint.addresses
        self._say("server", f"EndpointId {self.endpoint_id}")
        self._say("", f"on {self.server_address}, for one token, to {LOOPBACK} only")

    async def _serve(self, endpoint: Endpoint, server: ForwardServer) -> None:
        with contextlib.suppress(LinkClosedError):  # the end of the demonstration
            while True:
                link = await endpoint.accept()
                self._tasks.spawn(server.serve(link), "link")

    async def _forward(self, settings: EndpointSettings, sources: Sequence[SourceUrl]) -> list[int]:
        """Start a client; returns the local port of each source."""
        endpoint = await Endpoint.bind(settings, accept=False, report=self._client_sees.report)
        self._stack.push_async_callback(endpoint.close)

        async def connect() -> Link:
            return await endpoint.connect(self.endpoint_id, timeout=_TIMEOUT)

        tunnels = tuple(Tunnel(source, HostPort(LOOPBACK, 0)) for source in sources)
        client = ForwardClient(
            ClientSettings(self.token, tunnels), connect, self._client_sees.report
        )
        self._tasks.spawn(client.run(), "client")
        self._stack.push_async_callback(client.close)
        return [(await self._client_sees.wait(Listening)).address.port for _ in sources]

    async def _fetch_by_relay(self) -> None:
        await self._wait_published()
        settings = EndpointSettings(
            bind=SocketAddr(LOOPBACK, 0),
            lan_discovery=False,
            relays=(RelayUrl.parse(self.relay_url),),
            discovery=self._discovery(publish=False),
        )
        web = SourceUrl(Protocol.TCP, HostPort(LOOPBACK, self.web_port))
        [port] = await self._forward(settings, [web])
        up = await self._client_sees.wait(TunnelUp)
        await self._server_sees.wait(ClientAuthenticated)
        self._say("client 1", f"knows the id only; found and let in after {_ms(up.elapsed)}")
        self._say("", f"by {up.way}")
        await self._fetch_page(port)

    async def _wait_published(self) -> None:
        """The server publishes when it is at home on a relay, and says so."""
        while not (await self._server_sees.wait(Notice)).text.startswith("published"):
            pass

    async def _start_client(self) -> None:
        settings = EndpointSettings(
            bind=SocketAddr(LOOPBACK, 0), lan_discovery=False, peer_addrs=(self.server_address,)
        )
        sources = {
            "web": SourceUrl(Protocol.TCP, HostPort(LOOPBACK, self.web_port)),
            "echo": SourceUrl(Protocol.UDP, HostPort(LOOPBACK, self.echo_port)),
            "elsewhere": SourceUrl(Protocol.TCP, HostPort("127.0.0.2", self.web_port)),
        }
        ports = await self._forward(settings, list(sources.values()))
        self.local = dict(zip(sources, ports, strict=True))
        up = await self._client_sees.wait(TunnelUp)
        await self._server_sees.wait(ClientAuthenticated)
        self._say("client 2", f"knows the address too; let in after {_ms(up.elapsed)}, by {up.way}")
        self._say("", f"{LOOPBACK}:{self.local['web']} now leads to the web page")

    async def _fetch_page(self, port: int) -> None:
        start = time.perf_counter()
        page = await fetch(f"http://{LOOPBACK}:{port}/")
        elapsed = time.perf_counter() - start
        _check(page.status == 200, f"the page came with status {page.status}")
        self._say("web page", f"{page.size} bytes through the tunnel in {_ms(elapsed)}")

    async def _compare_download(self) -> None:
        start = time.perf_counter()
        download = await fetch(f"http://{LOOPBACK}:{self.local['web']}/data")
        elapsed = time.perf_counter() - start
        expected = hashlib.sha256(self._data).hexdigest()
        _check(download.sha256 == expected, "the download differs from what the service sent")
        rate = download.size * 8 / elapsed / 1e6
        self._say("download", f"{download.size >> 20} MiB, same SHA-256, {rate:.0f} Mbit/s")

    async def _ask_udp(self) -> None:
        start = time.perf_counter()
        same = await ask_echo(self.local["echo"], _QUESTIONS)
        elapsed = (time.perf_counter() - start) / _QUESTIONS
        _check(same == _QUESTIONS, f"only {same} of {_QUESTIONS} datagrams came back unchanged")
        self._say("UDP", f"{same} datagrams there and back, {_ms(elapsed)} each")

    async def _ask_for_what_is_not_allowed(self) -> None:
        _, writer = await asyncio.open_connection(LOOPBACK, self.local["elsewhere"])
        refused = await self._client_sees.wait(SessionRefused)
        writer.close()
        self._say("refused", f"{refused.reason} (as it should be)")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise DemoFailedError(what)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
