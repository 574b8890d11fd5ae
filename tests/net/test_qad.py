import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.relay_peers import make_certificate, write_certificate

from tunnel_rs.errors import ConfigError, UnreachableError
from tunnel_rs.net import qad as module
from tunnel_rs.net.qad import MAX_SESSIONS, AddressDiscovery, system_trust
from tunnel_rs.net.udp import SockAddr, UdpSocket
from tunnel_rs.proto.qad import ServerIdentity, Trust
from tunnel_rs.selfhost.qad import QadListener
from tunnel_rs.values import SocketAddr

PEM, KEY = make_certificate("localhost")
TRUST = Trust(pem=PEM)
LOOPBACK = SocketAddr("127.0.0.1", 0)


class Inner:
    """What uses the socket besides."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, int]] = []
        self.batches = 0
        self.writables = 0

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        self.got.append((bytes(train), segment_size))

    def end_batch(self) -> None:
        self.batches += 1

    def writable(self) -> None:
        self.writables += 1


@asynccontextmanager
async def server() -> AsyncIterator[QadListener]:
    listener = QadListener(LOOPBACK, ServerIdentity.from_pem(PEM, KEY), max_connections=10)
    listener.start()
    try:
        yield listener
    finally:
        listener.close()


@asynccontextmanager
async def discovery(
    inner: Inner | None = None,
) -> AsyncIterator[tuple[AddressDiscovery, UdpSocket]]:
    sock = UdpSocket.bind(LOOPBACK)
    asking = AddressDiscovery(sock, inner)
    sock.start(asking)
    try:
        yield asking, sock
    finally:
        asking.close()
        sock.close()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_a_server_tells_how_it_sees_the_socket(name: str) -> None:
    async with server() as listener, discovery() as (asking, sock):
        session = asking.dial(listener.bound, name, TRUST)
        assert await session.observed() == sock.address
        assert session.address == sock.address
        assert session.round_trip is not None and session.was_answered


async def test_the_socket_goes_on_serving_its_user() -> None:
    inner = Inner()
    async with server() as listener, discovery(inner) as (asking, _):
        session = asking.dial(listener.bound, "localhost", TRUST)
        await session.observed()
        assert inner.got == []
        asking.receive_train(memoryview(b"\x40not ours"), 5, ("127.0.0.1", 1))
        # From the server's own address too, when it is not of our connection.
        asking.receive_train(memoryview(b"\x40strange"), 8, ("127.0.0.1", listener.bound.port))
        assert inner.got == [(b"\x40not ours", 5), (b"\x40strange", 8)]
        assert inner.batches
        asking.writable()
        assert inner.writables == 1


async def test_a_wrong_certificate_is_told_at_once() -> None:
    async with server() as listener, discovery() as (asking, _):
        session = asking.dial(listener.bound, "other.example", TRUST)
        with pytest.raises(UnreachableError, match="doesn't match"):
            await session.observed()
        assert session.was_answered
        assert not asking._open and not asking._sessions


async def test_nobody_there_is_told_after_the_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_rs.proto.qad.IDLE_TIMEOUT", 0.01)
    monkeypatch.setattr("tunnel_rs.proto.qad.INITIAL_RTT", 0.001)
    silent = UdpSocket.bind(LOOPBACK)
    async with discovery() as (asking, _):
        session = asking.dial(silent.address, "localhost", TRUST)
        with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:\d+: no answer$"):
            await session.observed()
        assert not session.was_answered
    silent.close()


async def test_a_closed_session_tells_the_server_and_its_waiters() -> None:
    async with server() as listener, discovery() as (asking, _):
        session = asking.dial(listener.bound, "localhost", TRUST)
        waiter = asyncio.create_task(session.observed())
        await asyncio.sleep(0)
        session.close()
        session.close()
        with pytest.raises(UnreachableError, match="closed"):
            await waiter
        assert not asking._open and not asking._sessions


async def test_the_connection_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.01)
    async with server() as listener, discovery() as (asking, _):
        session = asking.dial(listener.bound, "localhost", TRUST)
        await session.observed()
        client = session._client
        before = client._packet_number
        async with asyncio.timeout(5):
            while client._packet_number < before + 5:  # noqa: ASYNC110
                await asyncio.sleep(0)


async def test_the_number_of_sessions_is_bounded() -> None:
    async with discovery() as (asking, sock):
        for _ in range(MAX_SESSIONS):
            asking.dial(sock.address, "localhost", TRUST)
        with pytest.raises(RuntimeError, match="sessions are open"):
            asking.dial(sock.address, "localhost", TRUST)


def test_a_ca_file_is_trusted_besides_the_systems(tmp_path: Path) -> None:
    certificate, _ = write_certificate(tmp_path)
    assert system_trust(certificate).pem == certificate.read_bytes()
    assert system_trust().pem is None
    assert system_trust(certificate).directory == system_trust().directory


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"relay_ca_file .*ca.pem: "):
        system_trust(file)
