"""One UDP socket that carries both the STUN of an ICE agent and the trains of a QUIC endpoint."""

import asyncio
from collections.abc import Callable
from typing import Any

from tunnel_rs.net.ice_connection import IceConnection, IceProtocol, is_stun
from tunnel_rs.net.udp import SockAddr, UdpSocket, sock_addr
from tunnel_rs.values import SocketAddr


class IceSocket:
    """A host socket: the sink of a `UdpSocket`, and the transport of an aioice protocol."""

    def __init__(
        self,
        socket: UdpSocket,
        connection: IceConnection,
        *,
        on_batch: Callable[[], None],
        on_writable: Callable[[], None],
    ) -> None:
        self.socket = socket
        self.protocol = IceProtocol(connection)
        self._connection = connection
        self._on_batch = on_batch
        self._on_writable = on_writable
        self._closed = False
        self._sockname = socket.address
        self.protocol.connection_made(self)  # type: ignore[arg-type]
        socket.start(self)

    # What the socket calls.

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        heads = train[::segment_size]
        if not any(head <= 3 for head in heads):
            self._connection.payload(self.protocol, train, segment_size, address)
            return
        for start in range(0, len(train), segment_size):
            datagram = train[start : start + segment_size]
            if is_stun(datagram):
                self.protocol.stun_received(bytes(datagram), address)
            else:
                self._connection.payload(self.protocol, datagram, segment_size, address)

    def end_batch(self) -> None:
        self._on_batch()

    def writable(self) -> None:
        self._on_writable()

    # What aioice calls: an `asyncio.DatagramTransport`, as far as it is used.

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._closed:
            # A full socket loses the packet; STUN asks again.
            self.socket.send_train(data, len(data), sock_addr(SocketAddr(addr[0], addr[1])))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.socket.close()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sockname":
            return (self._sockname.ip, self._sockname.port)
        return default
