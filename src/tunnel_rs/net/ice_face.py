"""The sockets and relay allocations of one ICE session, as a face of a QUIC endpoint.

The address of a connection is an `ice_connection.PathKey`: which socket or relay of ours, and where
the peer is. So replies leave on the path the last packet came by (spec `ice.md` section 1.6).
"""

import asyncio
import struct
from typing import Any

from aioice.candidate import Candidate
from aioice.ice import StunProtocol

from tunnel_rs.net.ice_connection import IceConnection, IceProtocol, PathKey
from tunnel_rs.net.ice_socket import IceSocket
from tunnel_rs.net.udp import TrainSink
from tunnel_rs.proto.ice_candidates import CandidateType
from tunnel_rs.values import SocketAddr

RELAY_BUFFER = 1 << 20
"""Bytes that may wait on a TCP connection to a relay; beyond, datagrams are dropped."""

RELAY_SLOW_PATH = 60.0
"""Seconds after which one datagram goes through aioice, which refreshes the channel when due."""

_LARGEST_RELAYED = 1400
_LARGEST_ON_IPV4, _LARGEST_ON_IPV6, _LARGEST_ON_LOOPBACK = 1452, 1432, 16_384

_TYPE_NAMES = {
    CandidateType.HOST: "direct",
    CandidateType.SERVER_REFLEXIVE: "through NAT",
    CandidateType.PEER_REFLEXIVE: "through NAT",
    CandidateType.RELAYED: "relayed",
}


class IceFace:
    """See `net.quic.Face`. The agent that made it adds and closes sockets and relays."""

    def __init__(self, connection: IceConnection) -> None:
        self.sockets: dict[int, IceSocket] = {}
        self.relays: dict[int, IceProtocol] = {}
        self._connection = connection
        self._slow_path_at: dict[PathKey, float] = {}
        self._sink: TrainSink | None = None
        connection.sink = self._received

    def deliver_to(self, sink: TrainSink) -> None:
        """Hand on what the peer sends, from now on; `sink` is the endpoint."""
        self._sink = sink

    def close(self) -> None:
        """The endpoint is done; the sockets are the agent's to close."""
        self._sink = None

    def describe(self, path: PathKey) -> str:
        """A path for people: how, and between which addresses."""
        local = self._local_candidate(path[0])
        via = f"{SocketAddr(local.host, local.port)} -> " if local else ""
        return f"{_TYPE_NAMES[self._worst_type(path)]}, {via}{SocketAddr(path[1], path[2])}"

    def is_relayed(self, path: PathKey) -> bool:
        """Whether a TURN server is in between."""
        return self._worst_type(path) is CandidateType.RELAYED

    def _worst_type(self, path: PathKey) -> CandidateType:
        local = self._local_candidate(path[0])
        types = (
            CandidateType(local.type) if local else CandidateType.HOST,
            self._type_of(SocketAddr(path[1], path[2])),
        )
        return max(types, key=list(CandidateType).index)

    def _received(self, path: PathKey, train: memoryview, segment_size: int) -> None:
        if self._sink is not None:
            self._sink.receive_train(train, segment_size, path)  # type: ignore[arg-type]
            if path[0] in self.relays:
                self._sink.end_batch()

    def end_batch(self) -> None:
        if self._sink is not None:
            self._sink.end_batch()

    def writable(self) -> None:
        if self._sink is not None:
            self._sink.writable()

    def reaches(self, path: object) -> bool:
        """See `net.quic.Face`: a path over one of our sockets or relays."""
        return isinstance(path, tuple) and len(path) == 3 and self._protocol(path[0]) is not None

    def send_train(self, train: bytes | memoryview, segment_size: int, path: Any) -> bool:
        """See `net.quic.Face`."""
        number, ip, port = path
        socket = self.sockets.get(number)
        if socket is not None:
            if socket.is_closing():
                return True
            to = (ip, port, 0, 0) if ":" in ip else (ip, port)
            return socket.socket.send_train(train, segment_size, to)
        view = memoryview(train)
        for start in range(0, len(view), segment_size):
            self._send_relayed(number, view[start : start + segment_size], (ip, port))
        return True

    def _send_relayed(self, number: int, datagram: memoryview, to: tuple[str, int]) -> None:
        """aioice makes a task for each datagram; once there is a channel, we write to it."""
        transport: Any = self.relays[number].transport
        inner = transport._TurnTransport__inner_protocol
        if inner.transport.is_closing():
            return
        channel = inner.peer_to_channel.get(to)
        now = asyncio.get_running_loop().time()
        if channel is None or now >= self._slow_path_at.get((number, *to), 0.0):
            self._slow_path_at[number, *to] = now + RELAY_SLOW_PATH
            transport.sendto(bytes(datagram), to)
        elif inner.transport.get_write_buffer_size() < RELAY_BUFFER:
            inner._send(struct.pack("!HH", channel, len(datagram)) + datagram)

    def text(self, path: Any) -> str:
        """See `net.quic.Face`."""
        return str(SocketAddr(path[1], path[2]))

    def error(self, path: Any) -> str:
        """See `net.quic.Face`."""
        number, ip, port = path
        socket = self.sockets.get(number)
        if socket is None:
            return ""
        return socket.socket.error((ip, port, 0, 0) if ":" in ip else (ip, port))

    def largest_datagram(self, path: Any) -> int:
        """See `net.quic.Face`."""
        number, ip, _ = path
        if number in self.relays or self._type_of(SocketAddr(ip, path[2])) == "relay":
            return _LARGEST_RELAYED
        if ip == "::1" or ip.startswith("127."):
            return _LARGEST_ON_LOOPBACK
        return _LARGEST_ON_IPV6 if ":" in ip else _LARGEST_ON_IPV4

    def receive_room(self) -> None:
        """Not known."""

    def validates(self, path: object) -> bool:
        """See `net.quic.Face`: every address has proved itself by ICE."""
        return False

    def _local_candidate(self, number: int) -> Candidate | None:
        protocol = self._protocol(number)
        return None if protocol is None else protocol.local_candidate

    def _protocol(self, number: int) -> StunProtocol | None:
        socket = self.sockets.get(number)
        return socket.protocol if socket is not None else self.relays.get(number)

    def _type_of(self, remote: SocketAddr) -> CandidateType:
        for candidate in self._connection.remote_candidates:
            if (candidate.host, candidate.port) == (remote.ip, remote.port):
                return CandidateType(candidate.type)
        return CandidateType.PEER_REFLEXIVE
