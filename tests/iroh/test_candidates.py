"""Tests of `tunnel_rs.iroh.candidates`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

import pytest
from tests.support.relay_peers import make_certificate, write_certificate
from tests.support.sockets import until
from tests.support.stun_server import binding_answer, stun_server

from tunnel_rs.errors import ConfigError
from tunnel_rs.iroh.candidates import Candidates
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.interfaces import Interface
from tunnel_rs.net.pinholes import Pinholes
from tunnel_rs.net.router_port import RouterPort
from tunnel_rs.net.udp import SockAddr, UdpSocket
from tunnel_rs.proto.qad import ServerIdentity
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.reports import Report
from tunnel_rs.selfhost.qad import QadListener
from tunnel_rs.values import HostPort, SocketAddr

LO = Interface("lo", 1, (IPv4Address("127.0.0.1"),), (IPv6Address("::1"),))
CABLE = Interface("eth0", 2, (IPv4Address("192.168.1.2"),), (IPv6Address("2001:db8::2"),))
MAPPED = SocketAddr("198.51.100.21", 7)
ROUTER = SocketAddr("203.0.113.5", 9)


class Sink:
    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None: ...

    def end_batch(self) -> None: ...

    def writable(self) -> None: ...


class FakeRouter:
    def __init__(self, port: int, on_change: Callable[[Any], None], on_problem: Any) -> None:
        self.port, self._on_change = port, on_change
        self.external: SocketAddr | None = None
        self.looks = self.closed = 0

    def start(self) -> None: ...

    def network_changed(self) -> None:
        self.looks += 1

    def grant(self, external: SocketAddr | None) -> None:
        self.external = external
        self._on_change(external)

    async def close(self) -> None:
        self.closed += 1


class FakePinholes:
    def __init__(self, port: int, own: Callable[[], Any], on_change: Any, on_problem: Any) -> None:
        self.port, self.own, self._on_change = port, own, on_change
        self.external: list[SocketAddr] = []
        self.looks = self.closed = 0

    def start(self) -> None: ...

    def network_changed(self) -> None:
        self.looks += 1

    def grant(self, external: SocketAddr) -> None:
        self.external = [external]
        self._on_change(external)

    async def close(self) -> None:
        self.closed += 1


class Scene:
    def __init__(self, sockets: Sequence[UdpSocket], settings: EndpointSettings) -> None:
        self.sockets = sockets
        self.interfaces = [LO, CABLE]
        self.routers: list[FakeRouter] = []
        self.pinholes: list[FakePinholes] = []
        self.reports: list[Report] = []
        self.changes = 0
        self.candidates = Candidates(
            sockets,
            Sink(),
            settings,
            self.reports.append,
            self._changed,
            scan=lambda: self.interfaces,
            make_router_port=self._make_router,
            make_pinholes=self._make_pinholes,
        )

    def _changed(self) -> None:
        self.changes += 1

    def _make_pinholes(self, *given: Any) -> Pinholes:
        self.pinholes.append(FakePinholes(*given))
        return cast(Pinholes, self.pinholes[-1])

    def _make_router(self, *given: Any) -> RouterPort:
        self.routers.append(FakeRouter(*given))
        return cast(RouterPort, self.routers[-1])


@asynccontextmanager
async def scene(
    settings: EndpointSettings | None = None, *bound: SocketAddr
) -> AsyncIterator[Scene]:
    sockets = [UdpSocket.bind(each) for each in bound or (SocketAddr("0.0.0.0", 0),)]
    one = Scene(sockets, settings or EndpointSettings())
    one.candidates.start()
    try:
        yield one
    finally:
        await one.candidates.close()
        for sock in sockets:
            sock.close()


async def test_our_own_addresses_are_known_at_once_and_loopback_is_not_told_to_peers() -> None:
    async with scene() as one:
        port = one.sockets[0].address.port
        lan = SocketAddr("192.168.1.2", port)
        assert one.candidates.addresses == (lan, SocketAddr("127.0.0.1", port))
        assert one.candidates.to_punch == (lan,)
        assert one.changes == 1


async def test_on_a_machine_without_a_network_loopback_is_told() -> None:
    async with scene() as one:
        one.interfaces = [LO]
        one.candidates.network_changed()
        assert [each.ip for each in one.candidates.to_punch] == ["127.0.0.1"]


async def test_each_family_has_its_own_port() -> None:
    async with scene(None, SocketAddr("0.0.0.0", 0), SocketAddr("::", 0)) as one:
        ports = [sock.address.port for sock in one.sockets]
        assert one.candidates.to_punch == (
            SocketAddr("192.168.1.2", ports[0]),
            SocketAddr("2001:db8::2", ports[1]),
        )


async def test_a_change_of_the_interfaces_is_told_and_nothing_else_is() -> None:
    async with scene() as one:
        one.candidates.network_changed()
        assert one.changes == 1
        one.interfaces = []
        one.candidates.network_changed()
        assert one.changes == 2
        assert one.candidates.addresses == ()


async def test_the_address_a_stun_server_sees_comes_first() -> None:
    def outside(request: bytes, source: tuple[str, int]) -> bytes:
        return binding_answer(request, MAPPED.ip, MAPPED.port)

    async with stun_server(outside) as (_, where):
        settings = EndpointSettings(stun_servers=(HostPort("127.0.0.1", where.port),))
        async with scene(settings) as one:
            assert one.changes == 1
            one.candidates.ask(())
            await until(lambda: one.changes == 2)
            assert one.candidates.to_punch[0] == MAPPED
            assert one.candidates.addresses[-1] == MAPPED


async def test_when_a_direct_path_fails_it_is_asked_anew_how_we_look_from_outside() -> None:
    answers = iter([MAPPED, ROUTER])

    def outside(request: bytes, source: tuple[str, int]) -> bytes:
        seen = next(answers)
        return binding_answer(request, seen.ip, seen.port)

    async with stun_server(outside) as (_, where):
        settings = EndpointSettings(stun_servers=(HostPort("127.0.0.1", where.port),))
        async with scene(settings) as one:
            one.candidates.ask(())
            await until(lambda: one.candidates.to_punch[0] == MAPPED)
            one.candidates.check()
            await until(lambda: one.candidates.to_punch[0] == ROUTER)


async def test_a_relay_with_https_is_asked(tmp_path: Any) -> None:
    pem, key = make_certificate("localhost")
    listener = QadListener(
        SocketAddr("127.0.0.1", 0), ServerIdentity.from_pem(pem, key), max_connections=4
    )
    listener.start()
    try:
        certificate = write_certificate(tmp_path, "localhost")[0]
        certificate.write_bytes(pem)
        settings = EndpointSettings(relay_ca_file=certificate, qad_port=listener.bound.port)
        async with scene(settings) as one:
            urls = ["http://localhost/", "https://localhost:8443/"]
            one.candidates.ask([RelayUrl.parse(url) for url in urls])
            local = SocketAddr("127.0.0.1", one.sockets[0].address.port)
            await until(lambda: one.candidates.to_punch[0] == local)
    finally:
        listener.close()


async def test_a_port_of_the_routers_is_asked_for_when_that_is_wanted() -> None:
    async with scene(EndpointSettings(port_mapping=True)) as one:
        assert one.routers == []
        one.candidates.ask(())
        one.candidates.ask(())
        [router] = one.routers
        assert router.port == one.sockets[0].address.port
        router.grant(ROUTER)
        assert one.candidates.to_punch[0] == ROUTER
        one.candidates.network_changed()
        assert router.looks == 1
        router.grant(None)
        assert ROUTER not in one.candidates.addresses
    assert router.closed == 1


async def test_a_router_is_asked_to_let_strangers_in_to_each_of_our_addresses_of_ipv6() -> None:
    sockets = SocketAddr("0.0.0.0", 0), SocketAddr("::", 0)
    async with scene(EndpointSettings(port_mapping=True), *sockets) as one:
        one.candidates.ask(())
        one.candidates.ask(())
        [pinholes] = one.pinholes
        port = one.sockets[1].address.port
        assert pinholes.port == port
        assert pinholes.own() == [IPv6Address("2001:db8::2"), IPv6Address("::1")]
        before = one.candidates.to_punch
        pinholes.grant(SocketAddr("2001:db8::2", port))
        assert set(one.candidates.to_punch) == set(before)  # nothing new to be told
        translated = SocketAddr("2001:db8:ffff::2", port)
        pinholes.grant(translated)
        assert one.candidates.to_punch[0] == translated
        one.candidates.network_changed()
        assert pinholes.looks == 1
    assert pinholes.closed == 1


@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        (EndpointSettings(), SocketAddr("0.0.0.0", 0)),
        (EndpointSettings(port_mapping=True), SocketAddr("127.0.0.1", 0)),
        (EndpointSettings(port_mapping=True), SocketAddr("::1", 0)),
    ],
)
async def test_no_router_is_asked_in_vain(settings: EndpointSettings, bound: SocketAddr) -> None:
    async with scene(settings, bound) as one:
        one.candidates.ask(())
        assert one.routers == [] and one.pinholes == []


async def test_a_bad_file_of_authorities_is_told(tmp_path: Any) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    with pytest.raises(ConfigError, match="not PEM"):
        Scene([], replace(EndpointSettings(), relay_ca_file=bad))
