"""What there is to see of a VPN server or client: the same as of programs that forward
connections. What they count as sessions is clients there, and connections to the server here."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from tunnel_rs.reports import PacketStatus, PeerStatus, Penalties, TunnelStatus
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.session import Session


@dataclass(frozen=True, slots=True)
class Presence:
    """How many are there, how many there have been, and the bytes of all of them."""

    open: int
    begun: int
    totals: tuple[int, int]

    def __len__(self) -> int:
        return self.open


class ObservedServer:
    """A `VpnServer`. `sent` is what went to clients."""

    tunnels: tuple[TunnelStatus, ...] = ()

    def __init__(self, server: VpnServer) -> None:
        self._server = server
        self._now = asyncio.get_running_loop().time

    @property
    def sessions(self) -> Presence:
        server = self._server
        return Presence(len(server.sessions), server.begun, server.totals)

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        return tuple(map(self._peer, self._server.sessions))

    def _peer(self, session: Session) -> PeerStatus:
        return PeerStatus(
            session.link.peer,
            session.held.name,
            session.held.by,
            round(self._now() - session.since, 3),
            session.link.paths,
            session.traffic.sent_bytes,
            session.traffic.received_bytes,
            (),
            session.number,
            addresses=session.leases.texts,
        )

    @property
    def packets(self) -> PacketStatus:
        traffic = self._server.traffic
        dropped = Counter(traffic.dropped)
        dropped.update(self._server.switch.dropped)
        return PacketStatus(traffic.sent_packets, traffic.received_packets, dict(dropped))

    @property
    def penalties(self) -> Penalties:
        return self._server.penalties

    @property
    def moved(self) -> dict[int, tuple[int, int]]:
        """Bytes to and from each client, by the number of its session."""
        return {
            session.number: (session.traffic.sent_bytes, session.traffic.received_bytes)
            for session in self._server.sessions
        }


class ObservedClient:
    """A `VpnClient`. `sent` is what went to the server."""

    tunnels: tuple[TunnelStatus, ...] = ()
    penalties = Penalties()

    def __init__(self, client: VpnClient) -> None:
        self._client = client
        self._now = asyncio.get_running_loop().time

    @property
    def sessions(self) -> Presence:
        client = self._client
        return Presence(int(client.link is not None), client.begun, self._bytes)

    @property
    def _bytes(self) -> tuple[int, int]:
        return self._client.traffic.sent_bytes, self._client.traffic.received_bytes

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The server, while there is a connection to it."""
        link = self._client.link
        if link is None:
            return ()
        seconds = round(self._now() - self._client.since, 3)
        return (PeerStatus(link.peer, "", "", seconds, link.paths, *self._bytes, ()),)

    @property
    def packets(self) -> PacketStatus:
        traffic = self._client.traffic
        return PacketStatus(traffic.sent_packets, traffic.received_packets, dict(traffic.dropped))

    @property
    def moved(self) -> dict[int, tuple[int, int]]:
        return {} if self._client.link is None else {0: self._bytes}
