"""What a discovery server is told to do. Built by `config`, frozen.

Fields are named after the keys of iroh-dns-server where that has them (spec `discovery.md`
section 4).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tunnel_rs.proto.dns_wire import parse_name
from tunnel_rs.proto.dns_zone import SERVABLE_TYPES, StartOfAuthority, ZoneSettings
from tunnel_rs.values import SocketAddr


class PutRateLimit(StrEnum):
    """How publications are counted against their senders."""

    DISABLED = "disabled"
    SIMPLE = "simple"
    """By the address of the TCP connection."""

    SMART = "smart"
    """By what a reverse proxy says in `Forwarded`, `X-Forwarded-For` or `X-Real-IP`. Only behind a
    proxy: anybody can write these headers."""


@dataclass(frozen=True, slots=True)
class HttpsSettings:
    """HTTPS beside or instead of HTTP, from PEM files."""

    bind: SocketAddr
    cert_path: Path
    key_path: Path
    domains: tuple[str, ...] = ()
    """Names of the server, to tell people what to type. Empty: those in the certificate."""


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """The authoritative DNS server, on UDP and TCP, and what it serves beside the records."""

    bind: SocketAddr = SocketAddr("127.0.0.1", 5300)
    """On a machine with several addresses name one: replies to UDP queries come from the address
    the system picks when this is a wildcard."""

    origins: tuple[str, ...] = ("dns.localhost.",)
    """Domains that records are served under; `.` is allowed."""

    default_soa: str = "ns.dns.localhost. hostmaster.dns.localhost. 0 10800 3600 604800 30"
    """Primary server, mailbox, serial, refresh, retry, expire, minimum. The minimum is how long
    resolvers remember that an endpoint is unknown: keep it short."""

    default_ttl: int = 30
    """TTL in seconds of what is not out of a signed packet."""

    rr_a: IPv4Address | None = None
    rr_aaaa: IPv6Address | None = None
    """Addresses of every origin, and of `rr_ns`."""

    rr_ns: str | None = None
    """Name server of every origin."""

    served_types: tuple[str, ...] = ("TXT",)
    """Types served out of packets. iroh needs TXT alone; with A, AAAA or CNAME anybody who
    publishes can put hosts under your domain."""

    responses_per_second: float = 100.0
    """UDP answers to one network (IPv4 /24, IPv6 /56); beyond, half of the queries are told to use
    TCP and the others are dropped, so that forged queries turn nobody into a target."""

    tcp_queries_per_second: float = 200.0
    """Queries over TCP and HTTP from one address (IPv6: /64)."""

    max_tcp_connections: int = 256

    def zone(self) -> ZoneSettings:
        """The checked form. Raises ValueError."""
        unknown = sorted(set(self.served_types) - set(SERVABLE_TYPES))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(sorted(SERVABLE_TYPES))}")
        if not 0 <= self.default_ttl < 2**31:
            raise ValueError(f"a TTL of {self.default_ttl} is outside 0..2147483647")
        return ZoneSettings(
            origins=tuple(parse_name(origin) for origin in self.origins),
            soa=StartOfAuthority.parse(self.default_soa),
            ttl=self.default_ttl,
            a=self.rr_a,
            aaaa=self.rr_aaaa,
            ns=parse_name(self.rr_ns) if self.rr_ns is not None else None,
            served_types=frozenset(SERVABLE_TYPES[name] for name in self.served_types),
        )


@dataclass(frozen=True, slots=True)
class ZoneStoreSettings:
    """How records are kept. Times are seconds."""

    max_batch_size: int = 1024
    """Records written to disk together at most."""

    max_batch_time: float = 1.0
    """How long a record may wait to be written; that much is lost by a crash."""

    eviction: float = 7 * 86_400.0
    """Age, by its own timestamp, at which a record is dropped."""

    eviction_interval: float = 3600.0

    max_records: int = 100_000
    """Beyond this the oldest is dropped for a new one; about 1.5 kB of disk each."""


@dataclass(frozen=True, slots=True)
class DnsServerSettings:
    """A whole discovery server."""

    http: SocketAddr | None = SocketAddr("127.0.0.1", 8080)
    https: HttpsSettings | None = None
    dns: DnsSettings | None = field(default_factory=DnsSettings)
    metrics: SocketAddr | None = None
    zone_store: ZoneStoreSettings = ZoneStoreSettings()
    data_dir: Path | None = None
    """Directory of the record store. None: records are forgotten at the end."""

    pkarr_put_rate_limit: PutRateLimit = PutRateLimit.SIMPLE
    puts_per_second: float = 4.0
    """Publications from one address (IPv6: /64), on average."""

    put_burst: int = 8
    """Publications at once: endpoints publish twice when they start."""

    max_http_connections: int = 1024
    max_connections_per_source: int = 64
    http_deadline: float = 30.0
    """Seconds after which an HTTP or DNS connection is ended, busy or not."""
