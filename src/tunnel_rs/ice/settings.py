"""How sessions over ICE are set up. Built by `config`, frozen."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tunnel_rs.net.ice_gather import IceServers
from tunnel_rs.net.link import Link
from tunnel_rs.proto.nostr_events import KIND
from tunnel_rs.proto.nostr_keys import NostrPublicKey, NostrSecretKey
from tunnel_rs.proto.signalling import Encryption
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
class Service:
    """What a server does for its clients; the feature behind it is no business of ours."""

    check: Callable[[SourceUrl], Awaitable[None]]
    """Raises TargetError unless the source may be asked for."""

    serve: Callable[[Link], Awaitable[None]]
    """Serves a link, whose peer is authenticated, until it ends."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """What a client asks for while a session is signalled."""

    source: SourceUrl | None
    """The (first) source; None when every stream will name its own (SOCKS5)."""

    needs_requests: bool = False
    """Several sources, or SOCKS5: the peer must be able to hear a request on each stream."""


@dataclass(frozen=True, slots=True)
class NostrSettings:
    """How sessions are signalled over Nostr relays."""

    key: NostrSecretKey
    peer: NostrPublicKey
    relays: tuple[str, ...]

    republish_interval: float = 5.0
    """Seconds until a client repeats its request; doubles each time, up to a minute."""

    max_wait: float = 120.0
    """Seconds a client waits for an offer."""

    max_sessions: int = 10
    """Sessions a server has at a time; 0: no limit of its own."""

    encryption: Encryption = Encryption.AUTO

    kind: int = KIND
    """Of the events, the same on both sides; relays may block the original's."""
