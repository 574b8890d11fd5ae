"""QUIC endpoints of our own on loopback sockets, with a path between them that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.recorder import Recorder
from tunnel_rs.net.quic import QuicEndpoint, UdpFace
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.net.udp import SockAddr, UdpSocket, sock_addr
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import EndpointId, Secret, SocketAddr

DEFAULTS = TransportSettings()


class Path(UdpFace):
    """A face that can lose everything it sends, or be full."""

    def __init__(self, socket: UdpSocket) -> None:
        super().__init__(socket)
        self.cut = False
        self.full = False
        self.sent: list[tuple[bytes, int, Any]] = []

    def send_train(self, train: bytes | memoryview, segment_size: int, address: Any) -> bool:
        if self.full:
            return False
        self.sent.append((bytes(train), segment_size, address))
        return True if self.cut else super().send_train(train, segment_size, address)


@dataclass
class End:
    """One endpoint on one socket."""

    quic: QuicEndpoint
    path: Path
    socket: UdpSocket
    dialled: list[QuicConnection] = field(default_factory=list)

    @property
    def id(self) -> EndpointId:
        return self.quic.identity.endpoint_id

    @property
    def address(self) -> SockAddr:
        return sock_addr(self.socket.address)

    def dial(self, server: "End", settings: TransportSettings = DEFAULTS) -> QuicConnection:
        connection = self.quic.dial(server.id, [server.address], settings)
        self.dialled.append(connection)
        return connection


def open_end(
    seed: int,
    *,
    accept: bool = False,
    settings: TransportSettings = DEFAULTS,
    bind: str = "127.0.0.1:0",
    offload: bool = True,
) -> End:
    """An endpoint with the key of `seed`. Close `quic` at the end."""
    socket = UdpSocket.bind(SocketAddr.parse(bind, allow_port_zero=True), offload=offload)
    quic = QuicEndpoint(Identity(Secret(bytes([seed]) * 32)), settings, accept=accept)
    path = Path(socket)
    quic.add_face(path)
    socket.start(quic)
    return End(quic, path, socket)


@dataclass
class Pair:
    """A server and a client, connected."""

    server: End
    client: End
    there: QuicConnection
    """The server's end of the link."""
    here: QuicConnection
    """The client's."""

    async def streams(self) -> tuple[QuicStream, QuicStream]:
        """A stream opened by the client: its end, and the server's."""
        ours = await self.here.open_stream()
        ours.write(b"!")
        theirs = await self.there.accept_stream()
        head = Recorder(theirs)
        await until(lambda: bool(head.data))
        return ours, theirs


@asynccontextmanager
async def connected(
    settings: TransportSettings = DEFAULTS,
    *,
    dialling: TransportSettings = DEFAULTS,
    bind: str = "127.0.0.1:0",
    offload: bool = True,
    open_window: bool = True,
) -> AsyncIterator[Pair]:
    """A connected pair; both endpoints are closed at the end."""
    server = open_end(1, accept=True, settings=settings, bind=bind, offload=offload)
    client = open_end(2, settings=dialling, bind=bind, offload=offload)
    try:
        here = client.dial(server, dialling)
        there = await server.quic.accept()
        await here.handshaken
        if open_window:
            there.open_window()
        yield Pair(server, client, there, here)
    finally:
        client.quic.close(0, "done")
        server.quic.close(0, "done")


async def until(condition: Any, *, turns: int = 100_000) -> None:
    """Let the event loop turn until `condition` holds; time that a clock must pass is given it."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0.0005)
    raise AssertionError("it never came to that")
