"""What `tunnel-rs demo` shows: a real server and client on loopback, step by step."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TypeVar

from tunnel_rs.cli.demo_services import LOOPBACK, ask_echo, fetch, udp_echo, web_service
from tunnel_rs.errors import LinkClosedError, TunnelError
from tunnel_rs.forward.client import ForwardClient
from tunnel_rs.forward.server import ForwardServer
from tunnel_rs.forward.settings import ClientSettings, ServerSettings, Tunnel
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.link import Link
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.tokens import generate_token
from tunnel_rs.reports import ClientAuthenticated, Listening, Report, SessionRefused, TunnelUp
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
        await self._start_server()
        await self._start_client()
        await self._fetch_page()
        await self._compare_download()
        await self._ask_udp()
        await self._ask_for_what_is_not_allowed()

    async def _start_services(self) -> None:
        self.web_port = await self._stack.enter_async_context(web_service(self._data))
        self.echo_port = await self._stack.enter_async_context(udp_echo())
        self._say("services", f"a web page on port {self.web_port}, a UDP echo on {self.echo_port}")

    async def _start_server(self) -> None:
        settings = EndpointSettings(
            secret_key=self.seed, bind=self.server_address, lan_discovery=False
        )
        endpoint = await Endpoint.bind(settings, accept=True, report=self._server_sees.report)
        self._stack.push_async_callback(endpoint.close)
        loopback = (ip_network("127.0.0.1/32"),)
        forward = ServerSettings(loopback, loopback, lambda: (self.token,))
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

    async def _start_client(self) -> None:
        settings = EndpointSettings(
            bind=SocketAddr(LOOPBACK, 0), lan_discovery=False, peer_addrs=(self.server_address,)
        )
        endpoint = await Endpoint.bind(settings, accept=False, report=self._client_sees.report)
        self._stack.push_async_callback(endpoint.close)

        async def connect() -> Link:
            return await endpoint.connect(self.endpoint_id, timeout=_TIMEOUT)

        sources = {
            "web": SourceUrl(Protocol.TCP, HostPort(LOOPBACK, self.web_port)),
            "echo": SourceUrl(Protocol.UDP, HostPort(LOOPBACK, self.echo_port)),
            "elsewhere": SourceUrl(Protocol.TCP, HostPort("127.0.0.2", self.web_port)),
        }
        anywhere = HostPort(LOOPBACK, 0)
        tunnels = tuple(Tunnel(source, anywhere) for source in sources.values())
        client = ForwardClient(
            ClientSettings(self.token, tunnels), connect, self._client_sees.report
        )
        self._tasks.spawn(client.run(), "client")
        self._stack.push_async_callback(client.close)
        for name in sources:
            self.local[name] = (await self._client_sees.wait(Listening)).address.port
        up = await self._client_sees.wait(TunnelUp)
        await self._server_sees.wait(ClientAuthenticated)
        self._say("client", f"connected, both sides proved, token taken in {_ms(up.elapsed)}")
        self._say("", f"{LOOPBACK}:{self.local['web']} now leads to the web page")

    async def _fetch_page(self) -> None:
        start = time.perf_counter()
        page = await fetch(f"http://{LOOPBACK}:{self.local['web']}/")
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
