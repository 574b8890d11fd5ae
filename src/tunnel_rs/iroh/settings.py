"""How peers are found and dialled in iroh mode. Built by `config`, frozen."""

from dataclasses import dataclass
from pathlib import Path

from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.proto.qad import DEFAULT_PORT
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import HostPort, Secret, SocketAddr


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One endpoint: our identity, our sockets, and which ways of finding peers are on.

    By default nothing is asked for and nothing is told outside the local network; the public
    relays and discovery that users get by default are filled in by `config`.
    """

    secret_key: Secret[bytes] | None = None
    """Ed25519 seed, 32 bytes. None: a fresh one for this run."""

    bind: SocketAddr | None = None
    """Local UDP address. None: any address, random port, IPv4 and IPv6."""

    lan_discovery: bool = True
    """Announce and look up peers by multicast DNS on the local network."""

    peer_addrs: tuple[SocketAddr, ...] = ()
    """Known direct addresses of the server (client only)."""

    relays: tuple[RelayUrl, ...] = ()
    """Relays: a server is at home on the nearest, a client looks for the server on all of them."""

    public_relays: bool = False
    """`relays` are everybody's, not the user's own: a client leaves discovery a head start before
    it asks them for a server that is probably on one of them only."""

    relay_only: bool = False
    """Use the given relays and nothing else: no UDP socket, no discovery of any kind."""

    direct_only: bool = False
    """Relays are good for finding each other; what is forwarded never passes through one (client
    only)."""

    stun_servers: tuple[HostPort, ...] = ()
    """Asked how our sockets look from outside, where no relay tells."""

    qad_port: int = DEFAULT_PORT
    """UDP port of the relays' QUIC address discovery; asked only of relays with https."""

    port_mapping: bool = False
    """Ask the router for a port (PCP, NAT-PMP, UPnP)."""

    relay_ca_file: Path | None = None
    """PEM file of certificate authorities trusted for relays beside the system's."""

    discovery: DiscoverySettings = DiscoverySettings()
    """Where our record is published, and where those of others are looked up."""

    mark: int | None = None
    """Mark (SO_MARK) of our own packets, by which a VPN on this machine lets them pass (Linux)."""

    own_device: str | None = None
    """Network interface that leads through this endpoint itself, as the TUN device of a VPN does:
    it is no way for peers to reach us."""

    transport: TransportSettings = TransportSettings()
