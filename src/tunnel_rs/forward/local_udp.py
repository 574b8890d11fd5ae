"""Client side of UDP tunnels: each local peer of a listener has a flow of its own."""

import socket
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from tunnel_rs.forward.flow_table import FlowTable
from tunnel_rs.forward.local_tcp import ClientParts
from tunnel_rs.forward.settings import Tunnel
from tunnel_rs.net.bind import bind, local_address
from tunnel_rs.net.datagrams import Address, Batch, DatagramSocket
from tunnel_rs.reports import Listening
from tunnel_rs.values import SocketAddr


class UdpListener:
    """Forwards what arrives on `sockets`, and sends replies from where the question came to."""

    def __init__(
        self, parts: ClientParts, tunnel: Tunnel, sockets: Sequence[socket.socket]
    ) -> None:
        self.addresses: tuple[SocketAddr, ...] = tuple(map(local_address, sockets))
        self._source = tunnel.source
        self._flows = FlowTable(parts, parts.settings.max_flows)
        self._sockets = [
            DatagramSocket(sock, partial(self._received, index))
            for index, sock in enumerate(sockets)
        ]

    def close(self) -> None:
        """End all flows and close the sockets. Idempotent."""
        self._flows.close()
        for sock in self._sockets:
            sock.close()

    def _received(self, index: int, batch: Batch) -> None:
        by_peer: defaultdict[Address, list[bytes]] = defaultdict(list)
        for payload, address in batch:
            by_peer[address].append(payload)
        for address, payloads in by_peer.items():
            deliver = partial(self._sockets[index].send, address=address)
            self._flows.send((index, address), self._source, payloads, deliver)


async def listen_udp(parts: ClientParts, tunnel: Tunnel) -> UdpListener:
    """Forward every datagram to `tunnel.target`. Raises LocalError."""
    sockets = await bind(tunnel.target, socket.SOCK_DGRAM, parts.resolve)
    listener = UdpListener(parts, tunnel, sockets)
    for address in listener.addresses:
        parts.report(Listening(address, tunnel.source))
    return listener
