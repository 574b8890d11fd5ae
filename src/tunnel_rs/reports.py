"""What the programs tell about themselves while they run.

Features hand these frozen values to a `Reporter`; only `cli` turns them into text or JSON.
No report holds a secret.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunnel_rs.values import EndpointId, SocketAddr, SourceUrl


@dataclass(frozen=True, slots=True)
class Report:
    """Base of all reports."""


@dataclass(frozen=True, slots=True)
class ServerStarting(Report):
    """What a server is going to serve. `client_command` is what a user types to reach it."""

    endpoint_id: EndpointId
    auth_tokens: int
    allowed_tcp: tuple[str, ...]
    allowed_udp: tuple[str, ...]
    client_command: str


@dataclass(frozen=True, slots=True)
class ServerReady(Report):
    """The server can be reached. `ways` are words for people: addresses, "LAN", relay URLs."""

    endpoint_id: EndpointId
    addresses: tuple[SocketAddr, ...]
    ways: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RelayOnline(Report):
    """Peers can reach us through this relay from now on: it is our home. `relay` is its URL."""

    relay: str


@dataclass(frozen=True, slots=True)
class RelayLost(Report):
    """A relay that we were connected to is gone; it is tried again, and so are others."""

    relay: str
    reason: str


@dataclass(frozen=True, slots=True)
class PathChanged(Report):
    """What is sent to the peer goes another way than before, on the same connection: `direct
    192.0.2.7:4444`, `relay https://...`. `rtt` is in seconds. `peer` is None on a client, which
    has but one server."""

    way: str
    rtt: float | None
    before: str
    peer: EndpointId | None = None


@dataclass(frozen=True, slots=True)
class PathSeen:
    """One of the ways to a peer; `use` is `in use`, `spare` or `being tried`."""

    way: str
    use: str

    def __str__(self) -> str:
        return f"{self.way} ({self.use})"


@dataclass(frozen=True, slots=True)
class PathsSeen(Report):
    """All ways to the peer there are now, when that has changed. `peer` as in `PathChanged`."""

    paths: tuple[PathSeen, ...]
    peer: EndpointId | None = None


@dataclass(frozen=True, slots=True)
class ClientAuthenticated(Report):
    """Server side: a client has been let in `by` its `token` or its `key`. `name` is what the
    server's operator calls it, empty when it has none."""

    peer: EndpointId
    address: str
    name: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class ClientRefused(Report):
    """Server side: a client was turned away before it could ask for anything."""

    peer: EndpointId | None
    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClientGone(Report):
    """Server side: an authenticated client's link has ended. `sent` and `received` are payload
    bytes of all its sessions, as seen by the targets; `seconds` is how long it was there. In a VPN
    the bytes are those of its packets, and `addresses` what it had."""

    peer: EndpointId
    reason: str
    name: str = ""
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trying(Report):
    """Client side: a way to the server is being tried, for example `LAN` or `192.0.2.7:4444`."""

    way: str


@dataclass(frozen=True, slots=True)
class TunnelUp(Report):
    """Client side: connected and authenticated. `elapsed` is in seconds since dialling began."""

    peer: EndpointId
    way: str
    elapsed: float


@dataclass(frozen=True, slots=True)
class TunnelLost(Report):
    """Client side: the link has ended. `retry_in` is in seconds; None when there is no retry."""

    reason: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Listening(Report):
    """Client side: a local listener is open. `source` is None for a SOCKS5 listener."""

    address: SocketAddr
    source: SourceUrl | None


@dataclass(frozen=True, slots=True)
class SessionOpened(Report):
    """A forwarded connection or UDP flow has begun, on either side. On a server: for which client,
    and the address that `source` led to."""

    session: int
    source: SourceUrl
    peer: EndpointId | None = None
    name: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class SessionClosed(Report):
    """A forwarded connection or flow has ended. `sent` and `received` are payload bytes as seen
    by the local socket; `reason` is empty after a clean end."""

    session: int
    source: SourceUrl
    sent: int
    received: int
    reason: str
    peer: EndpointId | None = None
    name: str = ""
    target: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionRefused(Report):
    """A request to forward was turned down, by us (server) or by the server (client)."""

    source: str
    reason: str
    peer: EndpointId | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class RelayReady(Report):
    """A relay server can be used. `urls` are what to give to `--relay-url`; `access` says who may
    use it; addresses are None for what is off."""

    urls: tuple[str, ...]
    access: str
    http: SocketAddr
    https: SocketAddr | None
    quic: SocketAddr | None
    metrics: SocketAddr | None


@dataclass(frozen=True, slots=True)
class DiscoveryReady(Report):
    """A discovery server can be used. `urls` are what to give to `--dns-server`; `data` is the
    directory of its records, None when they are in memory."""

    urls: tuple[str, ...]
    origins: tuple[str, ...]
    http: SocketAddr | None
    https: SocketAddr | None
    dns: SocketAddr | None
    metrics: SocketAddr | None
    data: str | None


@dataclass(frozen=True, slots=True)
class VpnServerStarting(Report):
    """What a VPN server is going to do. `addresses` are its own, with prefix lengths."""

    endpoint_id: EndpointId
    auth_tokens: int
    device: str
    addresses: tuple[str, ...]
    client_command: str


@dataclass(frozen=True, slots=True)
class VpnClientJoined(Report):
    """Server side: a client has been let in by its token, and has these addresses in the VPN."""

    peer: EndpointId
    address: str
    addresses: tuple[str, ...]
    name: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class VpnUp(Report):
    """Client side: the device has these addresses, and the routes lead into it."""

    device: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopping(Report):
    """The program ends in order, because of a signal."""

    signal: str


@dataclass(frozen=True, slots=True)
class Notice(Report):
    """Anything else worth one line. `level` is `debug`, `info` or `warning`."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class PathStatus:
    """One way packets take to a peer. `kind` is `direct` or `relay`; `rtt` is in seconds, None
    when it is not known; `active`: data goes this way now."""

    address: str
    kind: str
    rtt: float | None
    active: bool = True


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A forwarded connection or UDP flow that is open. `sent` bytes were read from the local
    socket, `received` written to it; `seconds` is its age."""

    session: int
    source: SourceUrl
    target: str
    sent: int
    received: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A link that is up; `link` tells it from others to the same peer. Bytes are payload over all
    its sessions, rates bytes a second (None: not measured yet). `addresses` are what it has in a
    VPN."""

    peer: EndpointId
    name: str
    by: str
    seconds: float
    paths: tuple[PathStatus, ...]
    sent: int
    received: int
    sessions: tuple[SessionStatus, ...]
    link: int = 0
    send_rate: float | None = None
    receive_rate: float | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """A listener of a client. `source` is None for a SOCKS5 proxy."""

    tunnel: int
    source: SourceUrl | None
    addresses: tuple[SocketAddr, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong, at `time` (RFC 3339), of a `kind` that is counted."""

    time: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Penalty:
    """A source of wrong tokens whose answers are held back. `source` is an IP address, an IPv6 /64
    network, an EndpointId behind a relay, or `*`: everybody who has not shown a good token before.
    `seconds` are left of it; `failures` brought it about."""

    source: str
    seconds: float
    failures: int


@dataclass(frozen=True, slots=True)
class Penalties:
    """All sources that are penalised now: how many, and those with the longest time left."""

    sources: int = 0
    longest: tuple[Penalty, ...] = ()


@dataclass(frozen=True, slots=True)
class PacketStatus:
    """Packets that a VPN has carried, and those it has dropped, by the reason."""

    sent: int
    received: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """All there is to know about a running program. `docs/STATUS-JSON.md` explains each field."""

    program: str
    role: str
    version: str
    pid: int
    endpoint_id: EndpointId | None
    state: str
    reason: str
    started: str
    seconds: float
    peers: tuple[PeerStatus, ...]
    tunnels: tuple[TunnelStatus, ...]
    sessions_open: int
    sessions_begun: int
    sent: int
    received: int
    send_rate: float | None
    receive_rate: float | None
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    penalties: Penalties
    history: tuple[tuple[float, float], ...]
    packets: PacketStatus | None


Reporter = Callable[[Report], None]


def silent(_: Report) -> None:
    """A `Reporter` that drops everything."""
