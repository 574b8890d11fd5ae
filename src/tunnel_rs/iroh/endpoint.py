"""Our end in iroh mode: one key and its sockets, peers dialled and accepted by EndpointId."""

import os

from tunnel_rs.errors import LinkClosedError, LocalError
from tunnel_rs.iroh.dial import Dialler, dialling
from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.iroh.ways import GivenAddresses, Lan, Way
from tunnel_rs.net.interfaces import local_interfaces, reachable_addresses
from tunnel_rs.net.quic import QuicEndpoint, UdpFace
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.reports import Reporter
from tunnel_rs.values import EndpointId, Secret, SocketAddr

SILENCE = 10.0
"""Seconds without any answer, while asking, after which a client looks for the server again."""


class Endpoint:
    """Make one with `bind`; then `connect`, or `accept` in a loop; `close` at the end."""

    def __init__(
        self,
        settings: EndpointSettings,
        quic: QuicEndpoint,
        sockets: list[UdpSocket],
        lan: LanDiscovery | None,
        report: Reporter,
    ) -> None:
        self._settings = settings
        self._quic = quic
        self._sockets = sockets
        self._lan = lan
        self._report = report
        self._closed = False

    @classmethod
    async def bind(
        cls, settings: EndpointSettings, *, accept: bool, report: Reporter
    ) -> "Endpoint":
        """Open the sockets and, with `accept`, take connections and announce ourselves. Raises
        LocalError."""
        seed = settings.secret_key or Secret(os.urandom(32))
        quic = QuicEndpoint(Identity(seed), settings.transport, accept=accept)
        sockets = _bind_sockets(settings.bind, mirror=accept)
        for socket in sockets:
            quic.add_face(UdpFace(socket))
            socket.start(quic)
        lan = LanDiscovery(report) if settings.lan_discovery else None
        endpoint = cls(settings, quic, sockets, lan, report)
        try:
            await endpoint._start_discovery(accept)
        except BaseException:
            await endpoint.close()
            raise
        return endpoint

    async def _start_discovery(self, announce: bool) -> None:
        if self._lan is not None:
            await self._lan.start()
            if announce:
                self._lan.announce(self.endpoint_id, self._bound)

    @property
    def endpoint_id(self) -> EndpointId:
        return self._quic.identity.endpoint_id

    @property
    def addresses(self) -> tuple[SocketAddr, ...]:
        """Where we can be reached directly, loopback last."""
        return reachable_addresses(self._bound(), local_interfaces())

    @property
    def ways(self) -> tuple[str, ...]:
        """For people: by which ways a client can find us."""
        return ("LAN",) if self._lan is not None else ()

    def _bound(self) -> list[SocketAddr]:
        return [socket.address for socket in self._sockets]

    async def connect(self, peer: EndpointId, *, timeout: float) -> QuicConnection:
        """Dial `peer` on all ways. Raises PeerNotFoundError, UnreachableError, WrongPeerError;
        LinkClosedError once closed."""
        if self._closed:
            raise LinkClosedError(0, "the endpoint was closed")
        ways: list[Way] = []
        if self._settings.peer_addrs:
            ways.append(GivenAddresses(self._settings.peer_addrs))
        if self._lan is not None:
            ways.append(Lan(self._lan))
        settings = dialling(self._settings.transport, SILENCE)
        return await Dialler(self._quic, peer, ways, settings, self._report).run(timeout)

    async def accept(self) -> QuicConnection:
        """Next client whose handshake is complete; it is not authenticated yet. Raises
        LinkClosedError once closed."""
        return await self._quic.accept()

    async def close(self, code: int = 0, reason: str = "done") -> None:
        """Close all connections with `code` and `reason`, and the sockets. Idempotent."""
        self._closed = True
        self._quic.close(code, reason)
        if self._lan is not None:
            await self._lan.close()


def _bind_sockets(address: SocketAddr | None, *, mirror: bool) -> list[UdpSocket]:
    """One socket for `address`; by default one for each address family there is."""
    if address is not None:
        return [UdpSocket.bind(address, mirror=mirror)]
    sockets: list[UdpSocket] = []
    for ip in ("0.0.0.0", "::"):
        try:
            sockets.append(UdpSocket.bind(SocketAddr(ip, 0), mirror=mirror))
        except LocalError as exc:
            error = exc
    if not sockets:
        raise error
    return sockets
