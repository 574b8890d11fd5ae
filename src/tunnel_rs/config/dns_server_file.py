"""`dns_server.toml`: the keys of iroh-dns-server (spec `discovery.md` section 4) and some of our
own."""

import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tunnel_rs.config import kinds, server_kinds
from tunnel_rs.config.server_files import FileSchema, FileValues, Key, read_values
from tunnel_rs.errors import ConfigError
from tunnel_rs.selfhost.dns_settings import (
    DnsServerSettings,
    DnsSettings,
    HttpsSettings,
    PutRateLimit,
    ZoneStoreSettings,
)
from tunnel_rs.values import SocketAddr

DATA_DIR_VARIABLE = "IROH_DNS_DATA_DIR"
LOOPBACK = "127.0.0.1"
HTTP_PORT, HTTPS_PORT, DNS_PORT = 8080, 8443, 5300
METRICS_ADDR = SocketAddr(LOOPBACK, 9117)

_DNS = DnsSettings()
_STORE = ZoneStoreSettings()
_SERVER = DnsServerSettings()
_YEAR = 366 * 86_400.0

RATE_LIMIT = Key(
    "pkarr_put_rate_limit", server_kinds.choice(*PutRateLimit), PutRateLimit.SIMPLE.value
)
DATA_DIR: Key[Path | None] = Key("data_dir", kinds.FILE, None, variable=DATA_DIR_VARIABLE)
HTTP_ADDR = Key("http.bind_addr", server_kinds.IP, None)
HTTP_PORT_KEY = Key("http.port", server_kinds.PORT, HTTP_PORT)
HTTPS_ADDR = Key("https.bind_addr", server_kinds.IP, None)
HTTPS_PORT_KEY = Key("https.port", server_kinds.PORT, HTTPS_PORT)
DOMAINS: Key[tuple[str, ...]] = Key("https.domains", server_kinds.HOST_NAMES, ())
CERT_MODE = Key(
    "https.cert_mode", server_kinds.choice("manual", "self_signed", "lets_encrypt"), "manual"
)
CONTACT: Key[str | None] = Key("https.letsencrypt_contact", server_kinds.TEXT, None)
PROD = Key("https.letsencrypt_prod", kinds.SWITCH, False)
CERT_PATH: Key[Path | None] = Key("https.cert_path", kinds.FILE, None, ours=True)
KEY_PATH: Key[Path | None] = Key("https.key_path", kinds.FILE, None, ours=True)
DNS_ADDR = Key("dns.bind_addr", server_kinds.IP, None)
DNS_PORT_KEY = Key("dns.port", server_kinds.PORT, DNS_PORT)
SOA = Key("dns.default_soa", server_kinds.TEXT, _DNS.default_soa)
TTL = Key("dns.default_ttl", kinds.integer(0, 2**31 - 1, "seconds"), _DNS.default_ttl)
ORIGINS: Key[tuple[str, ...]] = Key("dns.origins", server_kinds.TEXTS, _DNS.origins)
RR_A: Key[IPv4Address | None] = Key("dns.rr_a", server_kinds.IPV4, None)
RR_AAAA: Key[IPv6Address | None] = Key("dns.rr_aaaa", server_kinds.IPV6, None)
RR_NS: Key[str | None] = Key("dns.rr_ns", server_kinds.TEXT, None)
SERVED_TYPES: Key[tuple[str, ...]] = Key(
    "dns.served_types", server_kinds.TEXTS, _DNS.served_types, ours=True
)
UDP_RATE = Key(
    "dns.responses_per_second",
    server_kinds.number(1, 1e6, "answers per second"),
    _DNS.responses_per_second,
    ours=True,
)
TCP_RATE = Key(
    "dns.tcp_queries_per_second",
    server_kinds.number(1, 1e6, "queries per second"),
    _DNS.tcp_queries_per_second,
    ours=True,
)
MAX_TCP = Key(
    "dns.max_tcp_connections", kinds.integer(1, 100_000), _DNS.max_tcp_connections, ours=True
)
MAINLINE = Key("mainline.enabled", kinds.SWITCH, False)
BOOTSTRAP: Key[tuple[str, ...]] = Key("mainline.bootstrap", server_kinds.TEXTS, ())
METRICS_DISABLED = Key("metrics.disabled", kinds.SWITCH, False)
METRICS_BIND_ADDR = Key("metrics.bind_addr", kinds.BIND_ADDRESS, METRICS_ADDR)
BATCH_SIZE = Key(
    "zone_store.max_batch_size", kinds.integer(1, 1_048_576, "records"), _STORE.max_batch_size
)
BATCH_TIME = Key(
    "zone_store.max_batch_time", server_kinds.duration(0.001, 60), _STORE.max_batch_time
)
EVICTION = Key("zone_store.eviction", server_kinds.duration(60, _YEAR), _STORE.eviction)
EVICTION_INTERVAL = Key(
    "zone_store.eviction_interval", server_kinds.duration(1, _YEAR), _STORE.eviction_interval
)
MAX_RECORDS = Key(
    "zone_store.max_records", kinds.integer(1, 100_000_000), _STORE.max_records, ours=True
)
IN_MEMORY = Key("zone_store.in_memory", kinds.SWITCH, False, ours=True)
PUTS_PER_SECOND = Key(
    "limits.puts_per_second",
    server_kinds.number(0.01, 1e6, "publications per second"),
    _SERVER.puts_per_second,
    ours=True,
)
PUT_BURST = Key("limits.put_burst", kinds.integer(1, 1_000_000), _SERVER.put_burst, ours=True)
MAX_HTTP = Key(
    "limits.max_http_connections",
    kinds.integer(1, 1_000_000),
    _SERVER.max_http_connections,
    ours=True,
)
PER_SOURCE = Key(
    "limits.max_connections_per_source",
    kinds.integer(1, 1_000_000),
    _SERVER.max_connections_per_source,
    ours=True,
)
HTTP_DEADLINE = Key(
    "limits.http_deadline", server_kinds.duration(1, 3600), _SERVER.http_deadline, ours=True
)

SCHEMA = FileSchema(
    keys=(
        RATE_LIMIT,
        DATA_DIR,
        HTTP_ADDR,
        HTTP_PORT_KEY,
        HTTPS_ADDR,
        HTTPS_PORT_KEY,
        DOMAINS,
        CERT_MODE,
        CONTACT,
        PROD,
        CERT_PATH,
        KEY_PATH,
        DNS_ADDR,
        DNS_PORT_KEY,
        SOA,
        TTL,
        ORIGINS,
        RR_A,
        RR_AAAA,
        RR_NS,
        SERVED_TYPES,
        UDP_RATE,
        TCP_RATE,
        MAX_TCP,
        MAINLINE,
        BOOTSTRAP,
        METRICS_DISABLED,
        METRICS_BIND_ADDR,
        BATCH_SIZE,
        BATCH_TIME,
        EVICTION,
        EVICTION_INTERVAL,
        MAX_RECORDS,
        IN_MEMORY,
        PUTS_PER_SECOND,
        PUT_BURST,
        MAX_HTTP,
        PER_SOURCE,
        HTTP_DEADLINE,
    ),
)


def load_dns_server(path: Path | None, environ: Mapping[str, str]) -> DnsServerSettings:
    """Settings of a discovery server from a file (None: the defaults) and the environment. A file
    without table `[http]` or `[https]` serves none of it. Raises ConfigError."""
    values = read_values(SCHEMA, path, environ)
    if values.get(MAINLINE):
        raise values.error(MAINLINE, "the BitTorrent DHT is not asked here; set it to false")
    http = None
    if path is None or "http" in values.tables:
        http = _address(values, HTTP_ADDR, HTTP_PORT_KEY)
    data_dir = _data_dir(values, environ)
    settings = DnsServerSettings(
        http=http,
        https=_https(values, environ) if "https" in values.tables else None,
        dns=_dns(values),
        metrics=None if values.get(METRICS_DISABLED) else values.get(METRICS_BIND_ADDR),
        zone_store=_zone_store(values),
        data_dir=None if values.get(IN_MEMORY) else data_dir,
        pkarr_put_rate_limit=PutRateLimit(values.get(RATE_LIMIT)),
        puts_per_second=values.get(PUTS_PER_SECOND),
        put_burst=values.get(PUT_BURST),
        max_http_connections=values.get(MAX_HTTP),
        max_connections_per_source=values.get(PER_SOURCE),
        http_deadline=values.get(HTTP_DEADLINE),
    )
    _check_zone(settings, values)
    return settings


def _address(
    values: FileValues, ip: Key[IPv4Address | IPv6Address | None], port: Key[int]
) -> SocketAddr:
    return SocketAddr(str(values.get(ip) or LOOPBACK), values.get(port))


def _data_dir(values: FileValues, environ: Mapping[str, str]) -> Path:
    """Source of the default: XDG Base Directory Specification; a relative path in the variable is
    ignored, as it says."""
    given = values.get(DATA_DIR)
    if given is not None:
        return given
    base = environ.get("XDG_DATA_HOME", "")
    directory = Path(base) if os.path.isabs(base) else Path("~/.local/share").expanduser()
    return directory / "tunnel-rs" / "dns-server"


def _https(values: FileValues, environ: Mapping[str, str]) -> HttpsSettings:
    mode = values.get(CERT_MODE)
    domain = values.get(DOMAINS)[0] if values.get(DOMAINS) else "localhost"
    if mode == "lets_encrypt":
        raise values.error(
            CERT_MODE,
            "certificates are not fetched here; get one with certbot or lego and set"
            " cert_mode = 'manual', cert_path and key_path",
        )
    if mode == "self_signed":
        raise values.error(
            CERT_MODE,
            "no certificate is made here; make one with `openssl req -x509 -newkey ec -pkeyopt"
            f" ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN={domain} -addext"
            f" subjectAltName=DNS:{domain} -keyout key.pem -out cert.pem` and set"
            " cert_mode = 'manual', cert_path and key_path",
        )
    directory = _data_dir(values, environ) / "cert"
    return HttpsSettings(
        _address(values, HTTPS_ADDR, HTTPS_PORT_KEY),
        values.get(CERT_PATH) or directory / f"{domain}.crt",
        values.get(KEY_PATH) or directory / f"{domain}.key",
        values.get(DOMAINS),
    )


def _dns(values: FileValues) -> DnsSettings:
    return DnsSettings(
        bind=_address(values, DNS_ADDR, DNS_PORT_KEY),
        origins=values.get(ORIGINS),
        default_soa=values.get(SOA),
        default_ttl=values.get(TTL),
        rr_a=values.get(RR_A),
        rr_aaaa=values.get(RR_AAAA),
        rr_ns=values.get(RR_NS),
        served_types=values.get(SERVED_TYPES),
        responses_per_second=values.get(UDP_RATE),
        tcp_queries_per_second=values.get(TCP_RATE),
        max_tcp_connections=values.get(MAX_TCP),
    )


def _zone_store(values: FileValues) -> ZoneStoreSettings:
    return ZoneStoreSettings(
        max_batch_size=values.get(BATCH_SIZE),
        max_batch_time=values.get(BATCH_TIME),
        eviction=values.get(EVICTION),
        eviction_interval=values.get(EVICTION_INTERVAL),
        max_records=values.get(MAX_RECORDS),
    )


def _check_zone(settings: DnsServerSettings, values: FileValues) -> None:
    assert settings.dns is not None
    try:
        settings.dns.zone()
    except ValueError as error:
        place = f"{values.path}: " if values.path is not None else ""
        raise ConfigError(f"{place}table [dns]: {error}") from None
