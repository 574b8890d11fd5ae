import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aioquic.quic.packet import QuicProtocolVersion
from tests.net.test_qad import KEY, PEM, TRUST, discovery
from tests.support.relay_network import until
from tests.support.relay_peers import make_certificate, write_certificate

from tunnel_rs.errors import ConfigError, LocalError, UnreachableError
from tunnel_rs.proto.qad import QadClient, ServerIdentity, Trust
from tunnel_rs.selfhost import qad as module
from tunnel_rs.selfhost.qad import QadListener, read_identity
from tunnel_rs.values import SocketAddr

LOOPBACK = SocketAddr("127.0.0.1", 0)
IDENTITY = ServerIdentity.from_pem(PEM, KEY)


class Counts:
    def __init__(self) -> None:
        self.accepted = self.refused = 0

    def accept(self) -> None:
        self.accepted += 1

    def refuse(self) -> None:
        self.refused += 1


@asynccontextmanager
async def listening(
    address: SocketAddr = LOOPBACK, max_connections: int = 10
) -> AsyncIterator[tuple[QadListener, Counts]]:
    counts = Counts()
    listener = QadListener(
        address,
        IDENTITY,
        max_connections=max_connections,
        on_accepted=counts.accept,
        on_refused=counts.refuse,
    )
    listener.start()
    try:
        yield listener, counts
    finally:
        listener.close()


def initial(number: int = 0) -> bytes:
    """The first datagram of a client that will never say more."""
    client = QadClient("localhost", Trust(pem=PEM))
    client.connect(("127.0.0.1", 1), 0.0)
    return client.datagrams_to_send(0.0)[0][0]


async def test_the_wildcard_serves_both_families() -> None:
    async with listening(SocketAddr("::", 0)) as (listener, counts), discovery() as (asking, sock):
        where = SocketAddr("127.0.0.1", listener.bound.port)
        session = asking.dial(where, "localhost", TRUST)
        assert await session.observed() == sock.address
        assert counts.accepted == 1
        assert [port.socket.address.is_ipv6 for port in listener._ports] == [True, False]


async def test_one_connection_too_many_is_refused() -> None:
    async with listening(max_connections=1) as (listener, counts), discovery() as (asking, _):
        await asking.dial(listener.bound, "localhost", TRUST).observed()
        second = asking.dial(listener.bound, "localhost", TRUST)
        with pytest.raises(UnreachableError, match="server is busy"):
            await second.observed()
        assert (counts.accepted, counts.refused) == (1, 1)


async def test_one_source_cannot_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PER_SOURCE", 1)
    async with listening() as (listener, counts), discovery() as (asking, _):
        await asking.dial(listener.bound, "localhost", TRUST).observed()
        with pytest.raises(UnreachableError, match="server is busy"):
            await asking.dial(listener.bound, "localhost", TRUST).observed()
        assert counts.refused == 1


async def test_under_load_newcomers_prove_their_address_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_ABOVE", 0)
    async with listening() as (listener, counts), discovery() as (asking, sock):
        session = asking.dial(listener.bound, "localhost", TRUST)
        assert await session.observed() == sock.address
        assert session._client._retry_source_connection_id is not None
        assert counts.accepted == 1


async def test_a_forged_retry_token_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_ABOVE", 0)
    async with listening() as (listener, _), discovery() as (_asking, _sock):
        client = QadClient("localhost", TRUST)
        client._peer_token = b"forged"
        client.connect(("127.0.0.1", 1), 0.0)
        datagram = memoryview(client.datagrams_to_send(0.0)[0][0])
        assert listener.admit(listener._ports[0], datagram, ("127.0.0.1", 1)) is None
        assert listener.connection_count == 0


async def test_who_says_nothing_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT", 0.02)
    async with listening() as (listener, _):
        port, datagram = listener._ports[0], initial()
        port.receive_train(memoryview(datagram), len(datagram), ("127.0.0.1", 9))
        port.end_batch()
        assert listener.connection_count == 1 and port.drivers
        await until(lambda: listener.connection_count == 0)
        assert not port.drivers and not listener._by_source and not listener._handshakes


async def test_who_has_finished_is_forgotten() -> None:
    async with listening() as (listener, _), discovery() as (asking, _sock):
        session = asking.dial(listener.bound, "localhost", TRUST)
        await session.observed()
        session.close()
        await until(lambda: listener.connection_count == 0)
        assert not listener._ports[0].drivers and not listener._by_source


async def test_handshakes_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKES_PER_SECOND", 1.0)
    async with listening() as (listener, counts):
        for _ in range(3):
            datagram = initial()
            listener.admit(listener._ports[0], memoryview(datagram), ("127.0.0.1", 9))
        assert (listener.connection_count, counts.refused) == (1, 2)


@pytest.mark.parametrize("size", [0, 1, 5, 21, 1200, 1400])
async def test_noise_makes_no_connection(size: int) -> None:
    async with listening() as (listener, _):
        for first in (0x00, 0x40, 0xC0, 0xFF):
            datagram = (bytes([first]) + os.urandom(size))[:size]
            if datagram:
                listener._ports[0].receive_train(memoryview(datagram), size, ("127.0.0.1", 9))
        listener._ports[0].end_batch()
        listener._ports[0].writable()
        assert listener.connection_count == 0


async def test_a_forged_initial_takes_no_place() -> None:
    async with listening() as (listener, _):
        datagram = bytearray(initial())
        datagram[200] ^= 1
        port = listener._ports[0]
        port.receive_train(memoryview(datagram), len(datagram), ("127.0.0.1", 9))
        port.end_batch()
        assert listener.connection_count == 0 and not port.drivers


async def test_another_version_is_answered_with_ours() -> None:
    loop = asyncio.get_running_loop()
    async with listening() as (listener, _):
        transport, protocol = await loop.create_datagram_endpoint(
            Collector, remote_addr=("127.0.0.1", listener.bound.port)
        )
        transport.sendto(bytes([0xC0]) + bytes([9, 9, 9, 9, 8]) + bytes(8) + b"\0" + bytes(1200))
        answer = await protocol.first
        transport.close()
    assert answer[1:5] == bytes(4)
    assert answer.endswith(QuicProtocolVersion.VERSION_1.to_bytes(4, "big"))


class Collector(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.first.done():
            self.first.set_result(data)


async def test_newcomers_see_a_certificate_that_was_replaced() -> None:
    other, key = make_certificate("localhost")
    async with listening() as (listener, _), discovery() as (asking, _sock):
        listener.identity = ServerIdentity.from_pem(other, key)
        await asking.dial(listener.bound, "localhost", Trust(pem=other)).observed()
        with pytest.raises(UnreachableError):
            await asking.dial(listener.bound, "localhost", TRUST).observed()


async def test_a_port_in_use_is_told_and_nothing_stays_open() -> None:
    async with listening() as (first, _):
        second = QadListener(first.bound, IDENTITY, max_connections=1)
        with pytest.raises(LocalError, match="in use by another program"):
            second.start()
    async with listening() as (taken, _):
        wildcard = QadListener(SocketAddr("::", taken.bound.port), IDENTITY, max_connections=1)
        with pytest.raises(LocalError):
            wildcard.start()
        assert not wildcard._ports


def test_pem_files_are_read(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    assert read_identity(certificate, key).chain == []


def test_pem_files_that_are_none_are_told(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        read_identity(tmp_path / "missing", key)
    with pytest.raises(ConfigError, match="do not make a certificate"):
        read_identity(key, key)
    with pytest.raises(ConfigError, match="do not make a certificate"):
        read_identity(certificate, certificate)
