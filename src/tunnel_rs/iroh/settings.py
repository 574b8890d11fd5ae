"""How peers are found and dialled in iroh mode. Built by `config`, frozen."""

from dataclasses import dataclass

from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import Secret, SocketAddr


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One endpoint: our identity, our sockets, and which ways of finding peers are on."""

    secret_key: Secret[bytes] | None = None
    """Ed25519 seed, 32 bytes. None: a fresh one for this run."""

    bind: SocketAddr | None = None
    """Local UDP address. None: any address, random port, IPv4 and IPv6."""

    lan_discovery: bool = True
    """Announce and look up peers by multicast DNS on the local network."""

    peer_addrs: tuple[SocketAddr, ...] = ()
    """Known direct addresses of the server (client only)."""

    mark: int | None = None
    """Mark (SO_MARK) of our own packets, by which a VPN on this machine lets them pass (Linux)."""

    transport: TransportSettings = TransportSettings()
