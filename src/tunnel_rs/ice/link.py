"""A QUIC connection over ICE, as a link."""

from tunnel_rs.net.ice_agent import IceAgent
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.reports import PathStatus
from tunnel_rs.values import EndpointId, SourceUrl

ICE_LOST = "ice disconnected"
"""Reason of a close, with code 0, when ICE hears nothing of the peer any more; the original's."""


class IceLink:
    """See `net.link.Link`. Streams are the connection's own: payload takes no detour."""

    def __init__(
        self,
        connection: QuicConnection,
        agent: IceAgent,
        peer: EndpointId,
        fixed_source: SourceUrl | None,
    ) -> None:
        self.connection = connection
        self.peer = peer
        self.fixed_source = fixed_source
        self._agent = agent
        agent.on_consent_lost(lambda: self.close(0, ICE_LOST))

    @property
    def address(self) -> str:
        """How the peer is reached: kind of path, and both addresses."""
        address = self.connection.engine.address
        assert isinstance(address, tuple)
        return self._agent.face.describe(address)

    @property
    def paths(self) -> tuple[PathStatus, ...]:
        address = self.connection.engine.address
        assert isinstance(address, tuple)
        kind = "relay" if self._agent.face.is_relayed(address) else "direct"
        return (PathStatus(self.address, kind, self.connection.rtt),)

    async def ping(self) -> float:
        return await self.connection.ping()

    async def open_stream(self) -> QuicStream:
        return await self.connection.open_stream()

    async def accept_stream(self) -> QuicStream:
        return await self.connection.accept_stream()

    def open_window(self) -> None:
        self.connection.open_window()

    def close(self, code: int, reason: str) -> None:
        self.connection.close(code, reason)

    async def drain(self) -> None:
        await self.connection.drain()

    async def wait_closed(self) -> Exception:
        return await self.connection.wait_closed()
