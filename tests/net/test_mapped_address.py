"""Tests of `tunnel_rs.net.mapped_address`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.relay_peers import make_certificate
from tests.support.sockets import until
from tests.support.stun_server import binding_answer, stun_server
from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import TargetError
from tunnel_rs.net import mapped_address as module
from tunnel_rs.net.mapped_address import ASK_AGAIN, ASK_SOON, SOON_FOR, MappedAddress
from tunnel_rs.net.udp import SockAddr, UdpSocket
from tunnel_rs.proto.qad import ServerIdentity, Trust
from tunnel_rs.selfhost.qad import QadListener
from tunnel_rs.values import HostPort, SocketAddr

PEM, KEY = make_certificate("localhost")
LOOPBACK = SocketAddr("127.0.0.1", 0)


class Inner:
    def __init__(self) -> None:
        self.got: list[bytes] = []

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        self.got.append(bytes(train))

    def end_batch(self) -> None: ...

    def writable(self) -> None: ...


class Scene:
    def __init__(self, sock: UdpSocket) -> None:
        self.sock = sock
        self.inner = Inner()
        self.told: list[SocketAddr | None] = []
        self.hosts = {"localhost": ["::1", "127.0.0.1"], "relay.example": ["127.0.0.1"]}
        self.mapped = MappedAddress(
            sock, self.inner, self._changed, trust=Trust(pem=PEM), resolve=self._resolve
        )

    def _changed(self) -> None:
        self.told.append(self.mapped.address)

    async def _resolve(self, host: str) -> list[str]:
        if host not in self.hosts:
            raise TargetError(f"{host}: cannot be resolved")
        return self.hosts[host]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    sock = UdpSocket.bind(LOOPBACK)
    one = Scene(sock)
    one.mapped.start()
    try:
        yield one
    finally:
        await one.mapped.close()
        await one.mapped.close()
        sock.close()


@asynccontextmanager
async def relay() -> AsyncIterator[HostPort]:
    listener = QadListener(LOOPBACK, ServerIdentity.from_pem(PEM, KEY), max_connections=10)
    listener.start()
    try:
        yield HostPort("localhost", listener.bound.port)
    finally:
        listener.close()


async def test_a_relay_tells_our_address() -> None:
    async with relay() as where, scene() as one:
        one.mapped.ask([where], [])
        await until(lambda: bool(one.told))
        assert one.told == [one.sock.address]


async def test_nobody_is_asked_before_there_is_anybody() -> None:
    async with relay() as where, scene() as one:
        assert not len(one.mapped._scope)
        one.mapped.ask([where], [])
        one.mapped.ask([where], [])
        await until(lambda: bool(one.told))
        assert len(one.mapped._scope) == 1


async def test_the_next_relay_is_asked_when_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.7)
    async with relay() as where, scene() as one:
        silent = HostPort("relay.example", one.sock.address.port)
        one.mapped.ask([HostPort("unknown.example", 1), silent, where], [])
        await until(lambda: bool(one.told))
        assert one.told == [one.sock.address]


async def test_without_a_relay_a_stun_server_is_asked() -> None:
    def outside(request: bytes, source: tuple[str, int]) -> bytes:
        return binding_answer(request, "198.51.100.21", 7)

    async with stun_server(outside) as (_, where), scene() as one:
        server = HostPort("localhost", where.port)
        one.mapped.ask([], [HostPort("unknown.example", 1), server])
        await until(lambda: bool(one.told))
        assert one.told == [SocketAddr("198.51.100.21", 7)]


async def test_a_changed_network_makes_all_be_asked_anew() -> None:
    answers = iter([("198.51.100.21", 7), ("203.0.113.9", 8)])

    def outside(request: bytes, source: tuple[str, int]) -> bytes:
        return binding_answer(request, *next(answers))

    async with stun_server(outside) as (_, where), scene() as one:
        one.mapped.ask([], [HostPort("localhost", where.port)])
        await until(lambda: len(one.told) == 1)
        one.mapped.network_changed()
        await until(lambda: len(one.told) == 2)
        assert one.told[-1] == SocketAddr("203.0.113.9", 8)


async def test_a_changed_network_makes_the_relay_be_asked_anew() -> None:
    async with relay() as where, scene() as one:
        one.mapped.ask([where], [])
        await until(lambda: one.mapped._session is not None)
        session = one.mapped._session
        one.mapped.network_changed()
        await until(lambda: one.mapped._session not in (None, session))
        assert one.told == [one.sock.address]


async def test_a_relay_that_goes_away_is_asked_again() -> None:
    async with scene() as one:
        async with relay() as where:
            one.mapped.ask([where], [])
            await until(lambda: one.mapped._session is not None)
        await until(lambda: one.mapped._session is None)


async def test_a_check_asks_anew_but_not_again_and_again() -> None:
    asked = []

    def outside(request: bytes, source: tuple[str, int]) -> bytes:
        asked.append(source)
        return binding_answer(request, "198.51.100.21", len(asked))

    async with stun_server(outside) as (_, where), scene() as one:
        one.mapped.check()  # nobody has been asked, so nobody is asked again
        one.mapped.ask([], [HostPort("localhost", where.port)])
        await until(lambda: len(one.told) == 1)
        one.mapped.check()
        await until(lambda: len(one.told) == 2)
        one.mapped.check()
        assert not one.mapped._wake.is_set()


@virtual_time
async def test_who_did_not_answer_is_asked_often_at_first_and_then_less_often() -> None:
    asked: list[float] = []
    loop = asyncio.get_running_loop()
    sock = UdpSocket.bind(LOOPBACK)

    async def unknown(host: str) -> list[str]:
        asked.append(loop.time() - began)
        raise TargetError(f"{host}: cannot be resolved")

    mapped = MappedAddress(sock, Inner(), lambda: None, trust=Trust(pem=PEM), resolve=unknown)
    mapped.start()
    began = loop.time()
    mapped.ask([HostPort("relay.example", 7842)], [])
    await asyncio.sleep(300.0)
    soon = [at for at in asked if at < SOON_FOR]
    assert soon == pytest.approx([ASK_SOON * n for n in range(30)])
    late = [at for at in asked if at > SOON_FOR]
    assert late == pytest.approx([SOON_FOR + ASK_AGAIN * n for n in range(1, 5)])
    mapped.network_changed()
    asked.clear()
    await asyncio.sleep(SOON_FOR - 1.0)
    assert len(asked) == 30
    await mapped.close()
    sock.close()


async def test_everything_else_reaches_the_user_of_the_socket() -> None:
    async with scene() as one:
        one.sock.send_train(b"\x40 quic", 6, (one.sock.address.ip, one.sock.address.port))
        await until(lambda: bool(one.inner.got))
        assert one.inner.got == [b"\x40 quic"]
