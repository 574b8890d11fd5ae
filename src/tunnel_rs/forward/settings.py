"""What the forwarding server and client are told to do. Built by `config`, frozen."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from tunnel_rs.proto.access import AccessList
from tunnel_rs.values import HostPort, Secret, SourceUrl

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What clients may do. An empty list of networks denies that protocol."""

    allowed_tcp: tuple[Network, ...]
    allowed_udp: tuple[Network, ...]
    access: AccessList
    """Who may come in, and what each may do at most. Each is bounded by the lists above too."""

    max_sessions: int = 100
    """Concurrent forwarded streams, over all clients."""

    udp_idle_timeout: float = 60.0
    """Seconds after which a UDP flow without traffic is closed."""

    auth_timeout: float = 10.0
    """Seconds a new connection has to authenticate."""

    connect_timeout: float = 10.0
    """Seconds to reach a target, over all of its addresses."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One local listener and what it leads to."""

    source: SourceUrl
    target: HostPort


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client forwards. Exactly one of: tunnels, socks5 (both may be combined), stdio."""

    auth_token: Secret[str] | None
    """None: links that `connect` gives need no token, the transport has authenticated both."""

    tunnels: tuple[Tunnel, ...] = ()
    socks5: HostPort | None = None
    stdio: SourceUrl | None = None
    reconnect: bool = True
    eager: bool = True
    """Whether a server that is away may be tried every few seconds: an attempt bothers nobody
    else."""

    connect_timeout: float = 10.0
    """Seconds one attempt to reach the server may take."""

    pending_timeout: float = 30.0
    """Seconds a new local connection waits for the tunnel to come (back) up."""

    max_flows: int = 1024
    """UDP flows per listener, and local connections that may wait for the tunnel."""

    udp_idle_timeout: float = 60.0
    """Seconds after which a UDP flow without traffic is closed."""
