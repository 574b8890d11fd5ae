"""How sessions over ICE are set up. Built by `config`, frozen."""

from dataclasses import dataclass

from tunnel_rs.net.ice_gather import IceServers
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import SourceUrl


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What all sessions have in common."""

    servers: IceServers = IceServers()
    transport: TransportSettings = TransportSettings()

    connect_timeout: float = 30.0
    """Seconds that ICE may take, once both sides know each other's candidates."""

    handshake_timeout: float = 15.0
    """Seconds that the QUIC handshake may take then."""

    hosts: tuple[str, ...] | None = None
    """Addresses of this machine to use; None: all that are of use."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """What a client asks for while a session is signalled."""

    source: SourceUrl | None
    """The (first) source; None when every stream will name its own (SOCKS5)."""

    needs_requests: bool = False
    """Several sources, or SOCKS5: the peer must be able to hear a request on each stream."""
