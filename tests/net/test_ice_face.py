from typing import Any

import pytest
from aioice.candidate import Candidate

from tunnel_rs.net.ice_connection import IceConnection, IceProtocol
from tunnel_rs.net.ice_face import RELAY_BUFFER, IceFace
from tunnel_rs.net.ice_gather import host_candidate
from tunnel_rs.net.ice_socket import IceSocket
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.values import SocketAddr

PEER = ("198.51.100.1", 4000)


class Inner:
    """aioice's TURN client, as far as it is used."""

    def __init__(self) -> None:
        self.peer_to_channel: dict[tuple[str, int], int] = {}
        self.sent: list[bytes] = []
        self.waiting = 0
        self.transport = self

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def _send(self, data: bytes) -> None:
        self.sent.append(data)


class RelayTransport:
    """aioice's `TurnTransport`: slow, one task for each datagram."""

    def __init__(self) -> None:
        self._TurnTransport__inner_protocol = Inner()
        self.slow: list[bytes] = []

    def sendto(self, data: bytes, addr: Any) -> None:
        self.slow.append(data)
        self._TurnTransport__inner_protocol.peer_to_channel[addr] = 0x4000


async def relayed() -> tuple[IceFace, IceProtocol, RelayTransport]:
    connection = IceConnection(controlling=True, username="u" * 16, password="p" * 22)
    face = IceFace(connection)
    protocol = IceProtocol(connection)
    transport = RelayTransport()
    protocol.connection_made(transport)  # type: ignore[arg-type]
    protocol.local_candidate = Candidate("1", 1, "udp", 1, "203.0.113.1", 9, "relay")
    face.relays[protocol.id] = protocol
    return face, protocol, transport


async def test_a_relay_is_written_to_directly_once_it_has_a_channel() -> None:
    face, protocol, transport = await relayed()
    inner = transport._TurnTransport__inner_protocol
    path = (protocol.id, *PEER)
    assert face.send_train(b"abcd", 2, path)
    assert transport.slow == [b"ab"] and inner.sent == [b"\x40\0\0\2cd"]
    inner.waiting = RELAY_BUFFER
    assert face.send_train(b"dropped", 7, path)
    assert len(inner.sent) == 1
    face._slow_path_at[path] = 0.0
    face.send_train(b"again", 5, path)
    assert transport.slow[-1] == b"again"


async def test_a_relayed_path_is_called_so_and_gets_smaller_datagrams() -> None:
    face, protocol, _ = await relayed()
    path = (protocol.id, *PEER)
    assert face.describe(path) == "relayed, 203.0.113.1:9 -> 198.51.100.1:4000"
    assert face.largest_datagram(path) == 1400
    assert face.text(path) == "198.51.100.1:4000" and face.error(path) == ""


@pytest.mark.parametrize(
    ("kind", "words"),
    [("host", "direct"), ("srflx", "through NAT"), ("relay", "relayed"), (None, "through NAT")],
)
async def test_a_path_is_called_by_its_longest_way(kind: str | None, words: str) -> None:
    connection = IceConnection(controlling=True, username="u" * 16, password="p" * 22)
    face = IceFace(connection)
    udp = UdpSocket.bind(SocketAddr("127.0.0.1", 0))
    ice = IceSocket(udp, connection, on_batch=face.end_batch, on_writable=face.writable)
    ice.protocol.local_candidate = host_candidate(udp.address, 0)
    face.sockets[ice.protocol.id] = ice
    connection.adopt(ice.protocol)
    if kind is not None:
        await connection.add_remote_candidate(Candidate("1", 1, "udp", 1, *PEER, kind))
    path = (ice.protocol.id, *PEER)
    assert face.describe(path).startswith(f"{words}, 127.0.0.1:")
    assert face.reaches(path) and not face.reaches(("x", 1)) and not face.reaches((999, *PEER))
    assert not face.validates(path)
    await connection.close()
    assert face.send_train(b"late", 4, path)


async def test_what_comes_is_handed_to_the_sink_until_the_face_is_closed() -> None:
    face, protocol, _ = await relayed()
    calls: list[Any] = []

    class Sink:
        def receive_train(self, train: memoryview, segment_size: int, address: Any) -> None:
            calls.append((bytes(train), segment_size, address))

        def end_batch(self) -> None:
            calls.append("end")

        def writable(self) -> None:
            calls.append("writable")

    face.deliver_to(Sink())
    path = (protocol.id, *PEER)
    face._received(path, memoryview(b"ab"), 2)
    face.writable()
    assert calls == [(b"ab", 2, path), "end", "writable"]
    face.close()
    face._received(path, memoryview(b"ab"), 2)
    face.end_batch()
    face.writable()
    assert len(calls) == 3
