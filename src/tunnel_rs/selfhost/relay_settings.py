"""What a relay server is told to do. Field names are the keys of iroh-relay's `relay.toml` where
they exist there (spec `relay.md` section 5). Built by `config`, frozen."""

from dataclasses import dataclass
from pathlib import Path

from tunnel_rs.proto.relay_access import (
    AccessPolicy,
    AccessService,
    AllowList,
    DenyList,
    Everyone,
    SharedToken,
)
from tunnel_rs.values import SocketAddr

DEFAULT_HTTP_ADDR = SocketAddr("::", 80)
DEV_HTTP_ADDR = SocketAddr("::", 3340)
DEFAULT_HTTPS_PORT = 443
DEFAULT_QUIC_PORT = 7842


@dataclass(frozen=True, slots=True)
class RelayTls:
    """Table `[tls]`: the certificate is read from PEM files, and again on `reload`."""

    manual_cert_path: Path
    """Certificate chain, the server's own first."""

    manual_key_path: Path
    """Private key of the first certificate."""

    https_bind_addr: SocketAddr = SocketAddr("::", DEFAULT_HTTPS_PORT)

    hostname: tuple[str, ...] = ()
    """Names of the relay, to tell people what to type. Empty: those in the certificate."""

    reload_interval: float | None = None
    """Seconds after which the files are read again unasked (`cert_mode = "Reloading"`)."""


@dataclass(frozen=True, slots=True)
class RelayQuic:
    """QUIC address discovery: endpoints learn how their UDP socket looks from here."""

    cert_path: Path
    """As `RelayTls.manual_cert_path`; also in development mode, where relay traffic is plain."""

    key_path: Path

    bind_addr: SocketAddr = SocketAddr("::", DEFAULT_QUIC_PORT)
    """`[::]` stands for every address, IPv4 too."""

    max_connections: int = 4096
    """+ Endpoints connected at one time; each costs about 75 kB."""


@dataclass(frozen=True, slots=True)
class ClientRxLimit:
    """Table `[limits.client.rx]`: how fast one client may send to us. Above it we read slower, so
    that TCP holds the client back; nothing is dropped."""

    bytes_per_second: int
    max_burst_bytes: int | None = None
    """None: a tenth of a second's worth."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Table `[limits]`. What iroh-relay does not have is marked +."""

    accept_conn_limit: float | None = None
    """New connections per second, over all addresses. None: no limit. (iroh-relay reads this key
    and the next and does nothing with them.)"""

    accept_conn_burst: int = 100
    """Connections accepted at once above `accept_conn_limit`."""

    client_rx: ClientRxLimit | None = None
    """None: a client may send as fast as it can."""

    max_connections: int = 16_384
    """+ TCP connections at one time; costs about 25 kB each while idle."""

    max_connections_per_address: int | None = 512
    """+ The same for one IPv4 address or IPv6 /64 network. None is right behind a proxy, where all
    clients come from one address."""

    queue_packets: int = 512
    """+ Packets waiting for one client; more are dropped."""

    queue_bytes: int = 2_097_152
    """+ Bytes waiting for one client; more are dropped."""

    write_timeout: float = 2.0
    """+ Seconds a write to a client may take before the client is dropped."""

    handshake_timeout: float = 30.0
    """+ Seconds a TCP connection has to become a relay connection."""


@dataclass(frozen=True, slots=True)
class RelayServerSettings:
    """A relay server. With `tls`, relay traffic is served on `https_bind_addr`, and the plain HTTP
    port answers `/generate_204` only; without it, everything is plain HTTP: for development, or
    behind a proxy that speaks TLS."""

    enable_relay: bool = True
    """False: all routes but `/relay`."""

    http_bind_addr: SocketAddr = DEFAULT_HTTP_ADDR

    tls: RelayTls | None = None

    quic: RelayQuic | None = None
    """Keys `enable_quic_addr_discovery` and `tls.quic_bind_addr`."""

    access: AccessPolicy = Everyone()

    access_file: Path | None = None
    """+ EndpointIds that are allowed, one a line; the file is watched. Who is listed in it may use
    the relay as well as those `access.allowlist` names; so it needs an `AllowList` in `access`."""

    access_file_interval: float = 1.0
    """+ Seconds between two looks at `access_file`."""

    limits: RelayLimits = RelayLimits()

    enable_metrics: bool = True

    metrics_bind_addr: SocketAddr = SocketAddr("127.0.0.1", 9090)
    """Serves `/metrics`. Loopback here; iroh-relay binds every address."""

    @property
    def access_in_words(self) -> str:
        """Who may use the relay, for people; without secrets."""
        watched = f", and those in {self.access_file}" if self.access_file else ""
        match self.access:
            case Everyone():
                return "everyone who knows the address"
            case AllowList(endpoint_ids):
                return f"{len(endpoint_ids)} endpoint(s) of the allow-list{watched}"
            case DenyList(endpoint_ids):
                return f"everyone but {len(endpoint_ids)} endpoint(s)"
            case SharedToken(tokens):
                return f"who presents one of {len(tokens)} token(s)"
            case AccessService(url):
                return f"whom {url} allows"
