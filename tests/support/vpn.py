"""Stand-ins for what a VPN changes on a machine, and a server and client on memory links."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from tests.support.memory_link import MemoryLink, Sizes, link_pair
from tests.support.sockets import until
from tunnel_rs.errors import LocalError
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.net.host_network import Address, DeviceConfig, ForwardingConfig, RouteConfig
from tunnel_rs.net.tun import OnPackets
from tunnel_rs.proto.access import of_tokens
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_handshake import (
    VpnRequest,
    VpnResponse,
    decode_response,
    encode_request,
)
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD
from tunnel_rs.reports import Report
from tunnel_rs.values import Secret
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.settings import ServerSettings

TOKEN, OTHER_TOKEN = Secret("iAAAAAAAAAAAAAAAAA"), Secret("iabcdefghijklmnopg")


class FakeTun:
    """A TUN device in memory."""

    name = "tun-test"

    def __init__(self, *, can_offload: bool = True) -> None:
        self.can_offload = can_offload
        self.written: list[Offloaded] = []
        self.takes = True
        self.answers: list[bytes] = []
        """What the system sends when something is written."""

        self.offload = False
        self.reading = False
        self.closed = False
        self._on_packets: OnPackets | None = None
        self._on_lost: Callable[[OSError], None] | None = None

    def start(self, on_packets: OnPackets, on_lost: Callable[[OSError], None]) -> None:
        self._on_packets, self._on_lost, self.reading = on_packets, on_lost, True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = self._on_packets is not None

    def write(self, header: bytes, packet: bytes) -> bool:
        if self.takes:
            self.written.append((header, packet))
        return self.takes

    def read_now(self) -> None:
        answers, self.answers = self.answers, []
        if answers:
            self.bring(*answers)

    def set_offload(self, wanted: bool) -> None:
        self.offload = wanted

    def close(self) -> None:
        self.closed = True

    def bring(self, *packets: bytes | Offloaded) -> None:
        """The system sends packets into the device."""
        assert self._on_packets is not None
        self._on_packets([(NO_OFFLOAD, p) if isinstance(p, bytes) else p for p in packets])

    def vanish(self) -> None:
        assert self._on_lost is not None
        self._on_lost(OSError(77, "File descriptor in bad state"))

    @property
    def packets(self) -> list[bytes]:
        return [packet for _, packet in self.written]


class FakeHost:
    """Notes what is asked for."""

    mark: int | None = None

    def __init__(self) -> None:
        self.has_ipv6 = True
        self.cleaned = 0
        self.devices: list[DeviceConfig] = []
        self.routes: list[RouteConfig] = []
        self.forwarding: list[ForwardingConfig] = []
        self.excluded: list[str] = []
        self.refuses = ""
        self.undone = 0

    async def clean(self, device: str | None, *, client: bool) -> None:
        self.cleaned += 1

    async def set_device(self, device: str, config: DeviceConfig) -> None:
        if self.refuses:
            raise LocalError(self.refuses)
        self.devices.append(config)

    async def set_routes(self, device: str, config: RouteConfig) -> None:
        self.routes.append(config)

    async def exclude(self, address: Address) -> None:
        self.excluded.append(str(address))

    async def set_forwarding(self, device: str, config: ForwardingConfig) -> None:
        self.forwarding.append(config)

    async def undo(self) -> None:
        self.undone += 1


def server_settings(**changes: Any) -> ServerSettings:
    fields: dict[str, Any] = {
        "access": of_tokens(TOKEN, OTHER_TOKEN),
        "network4": IPv4Network("10.7.0.0/24"),
        "network6": IPv6Network("fd07::/64"),
        "stable_addresses": False,
        "auth_timeout": 5.0,
    }
    return ServerSettings(**{**fields, **changes})


class Guest:
    """A client of a server, played by the test."""

    def __init__(self, link: MemoryLink, serving: "asyncio.Task[None]") -> None:
        self.link = link
        self.serving = serving

    async def ask(self, request: VpnRequest) -> VpnResponse:
        exchange = Exchange(await self.link.open_stream())
        exchange.send_encoded(encode_request(request))
        exchange.stream.write_eof()
        return decode_response(await exchange.receive())


class ServerBench:
    """One server on a device in memory; `connect` brings in clients."""

    def __init__(self, **settings: Any) -> None:
        self.reports: list[Report] = []
        self.tun = FakeTun(can_offload=settings.pop("can_offload", True))
        self.host = FakeHost()
        self.server = VpnServer(
            server_settings(**settings), self.tun, self.host, self.reports.append
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "ServerBench":
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()
        await asyncio.gather(*self._tasks)

    def connect(self, *, address: str = "192.0.2.9:4242", sizes: Sizes | None = None) -> Guest:
        client, server = link_pair(sizes, address=address)
        serving = asyncio.create_task(self.server.serve(server))
        self._tasks.append(serving)
        return Guest(client, serving)

    async def until_sessions(self, count: int) -> None:
        await until(lambda: len(self.server.sessions) == count)
