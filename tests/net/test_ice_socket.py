import asyncio
import socket
from typing import Any

from tests.support.sockets import until

from tunnel_rs.net.ice_connection import IceConnection
from tunnel_rs.net.ice_gather import host_candidate
from tunnel_rs.net.ice_socket import IceSocket
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.values import SocketAddr


class Seen(IceConnection):
    """Writes down what the socket passes on."""

    def __init__(self) -> None:
        super().__init__(controlling=True, username="u" * 16, password="p" * 22)
        self.trains: list[tuple[bytes, int]] = []

    def payload(self, protocol: Any, train: memoryview, segment_size: int, addr: Any) -> None:
        self.trains.append((bytes(train), segment_size))


def made() -> tuple[IceSocket, Seen, list[bytes]]:
    connection = Seen()
    udp = UdpSocket.bind(SocketAddr("127.0.0.1", 0))
    ice = IceSocket(udp, connection, on_batch=lambda: None, on_writable=lambda: None)
    ice.protocol.local_candidate = host_candidate(udp.address, 0)
    connection.adopt(ice.protocol)
    stun: list[bytes] = []
    ice.protocol.stun_received = lambda data, addr: stun.append(data)  # type: ignore[method-assign]
    return ice, connection, stun


async def test_stun_is_sorted_out_of_trains() -> None:
    ice, connection, stun = made()
    quic, check = b"\x40" * 4, b"\x01" * 4
    ice.receive_train(memoryview(quic * 3), 4, ("192.0.2.1", 9))
    assert connection.trains == [(quic * 3, 4)] and not stun
    connection.trains.clear()
    ice.receive_train(memoryview(quic + check + quic + b"\x03"), 4, ("192.0.2.1", 9))
    assert connection.trains == [(quic, 4), (quic, 4)] and stun == [check, b"\x03"]
    await connection.close()


async def test_datagrams_arrive_from_a_real_socket_and_go_out() -> None:
    ice, connection, _ = made()
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind(("127.0.0.1", 0))
        where = ice.get_extra_info("sockname")
        peer.sendto(b"\x40hello", where)
        await until(lambda: connection.trains == [(b"\x40hello", 6)])
        ice.sendto(b"back", peer.getsockname())
        assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"back"
        await connection.close()
        assert ice.is_closing()
        ice.sendto(b"late", peer.getsockname())
    assert ice.get_extra_info("peername", "none") == "none"
