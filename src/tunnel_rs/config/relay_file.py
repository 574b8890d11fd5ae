"""`relay.toml`: the keys of iroh-relay (spec `relay.md` section 5) and some of our own."""

from collections.abc import Mapping
from pathlib import Path

from tunnel_rs.config import kinds, server_kinds
from tunnel_rs.config.server_files import FileSchema, FileValues, Key, read_values
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.relay_access import (
    AccessPolicy,
    AccessService,
    AllowList,
    DenyList,
    Everyone,
    SharedToken,
)
from tunnel_rs.selfhost.relay_settings import (
    DEFAULT_HTTP_ADDR,
    DEFAULT_HTTPS_PORT,
    DEFAULT_QUIC_PORT,
    DEV_HTTP_ADDR,
    ClientRxLimit,
    RelayLimits,
    RelayQuic,
    RelayServerSettings,
    RelayTls,
)
from tunnel_rs.values import EndpointId, Secret, SocketAddr

TOKEN_VARIABLE = "IROH_RELAY_ACCESS_TOKEN"
BEARER_VARIABLE = "IROH_RELAY_HTTP_BEARER_TOKEN"
RELOAD_INTERVAL = 86_400.0
"""Seconds between two looks at the certificate with `cert_mode = "Reloading"`."""

_LIMITS = RelayLimits()
_DEFAULTS = RelayServerSettings()
_LETS_ENCRYPT = (
    "certificates are not fetched here; get one with certbot or lego, name its files in"
    " manual_cert_path and manual_key_path, and send SIGHUP when they are renewed"
)

ENABLE_RELAY = Key("enable_relay", kinds.SWITCH, True)
HTTP_BIND_ADDR: Key[SocketAddr | None] = Key("http_bind_addr", kinds.BIND_ADDRESS, None)
ENABLE_QAD = Key("enable_quic_addr_discovery", kinds.SWITCH, False)
ENABLE_METRICS = Key("enable_metrics", kinds.SWITCH, True)
METRICS_BIND_ADDR = Key("metrics_bind_addr", kinds.BIND_ADDRESS, _DEFAULTS.metrics_bind_addr)
KEY_CACHE_CAPACITY: Key[int | None] = Key(
    "key_cache_capacity", kinds.integer(0, 1_000_000_000), None
)
HTTPS_BIND_ADDR: Key[SocketAddr | None] = Key("tls.https_bind_addr", kinds.BIND_ADDRESS, None)
QUIC_BIND_ADDR: Key[SocketAddr | None] = Key("tls.quic_bind_addr", kinds.BIND_ADDRESS, None)
HOSTNAME: Key[tuple[str, ...]] = Key("tls.hostname", server_kinds.HOST_NAMES, ())
CERT_MODE = Key(
    "tls.cert_mode", server_kinds.choice("Manual", "Reloading", "LetsEncrypt"), "Manual"
)
CERT_DIR = Key("tls.cert_dir", kinds.FILE, Path("."))
CERT_PATH: Key[Path | None] = Key("tls.manual_cert_path", kinds.FILE, None)
KEY_PATH: Key[Path | None] = Key("tls.manual_key_path", kinds.FILE, None)
PROD_TLS = Key("tls.prod_tls", kinds.SWITCH, True)
CONTACT: Key[str | None] = Key("tls.contact", server_kinds.TEXT, None)

ACCEPT_CONN_LIMIT: Key[float | None] = Key(
    "limits.accept_conn_limit", server_kinds.number(0.01, 1e6, "connections per second"), None
)
ACCEPT_CONN_BURST = Key(
    "limits.accept_conn_burst", kinds.integer(1, 1_000_000), _LIMITS.accept_conn_burst
)
BYTES_PER_SECOND: Key[int | None] = Key(
    "limits.client.rx.bytes_per_second", kinds.integer(1, 2**32 - 1, "bytes"), None
)
MAX_BURST_BYTES: Key[int | None] = Key(
    "limits.client.rx.max_burst_bytes", kinds.integer(1, 2**32 - 1, "bytes"), None
)
MAX_CONNECTIONS = Key(
    "limits.max_connections", kinds.integer(1, 1_000_000), _LIMITS.max_connections, ours=True
)
PER_ADDRESS = Key(
    "limits.max_connections_per_address",
    kinds.integer(0, 1_000_000),
    _LIMITS.max_connections_per_address or 0,
    ours=True,
)
MAX_QAD: Key[int] = Key("limits.max_quic_connections", kinds.integer(1, 100_000), 4096, ours=True)
QUEUE_PACKETS = Key(
    "limits.queue_packets", kinds.integer(1, 1_000_000), _LIMITS.queue_packets, ours=True
)
QUEUE_BYTES = Key(
    "limits.queue_bytes", kinds.integer(65_536, 2**30, "bytes"), _LIMITS.queue_bytes, ours=True
)
WRITE_TIMEOUT = Key(
    "limits.write_timeout", server_kinds.duration(0.1, 600), _LIMITS.write_timeout, ours=True
)
HANDSHAKE_TIMEOUT = Key(
    "limits.handshake_timeout",
    server_kinds.duration(1, 600),
    _LIMITS.handshake_timeout,
    ours=True,
)

ACCESS = Key("access", server_kinds.choice("everyone"), "everyone")
ALLOWLIST: Key[tuple[EndpointId, ...]] = Key("access.allowlist", server_kinds.ENDPOINT_IDS, ())
DENYLIST: Key[tuple[EndpointId, ...]] = Key("access.denylist", server_kinds.ENDPOINT_IDS, ())
SHARED_TOKEN: Key[tuple[Secret[str], ...]] = Key(
    "access.shared_token", server_kinds.SHARED_TOKENS, (), variable=TOKEN_VARIABLE
)
SERVICE_URL: Key[str | None] = Key("access.http.url", server_kinds.URL, None)
BEARER_TOKEN: Key[Secret[str] | None] = Key(
    "access.http.bearer_token", server_kinds.SHARED_TOKEN, None, variable=BEARER_VARIABLE
)
ALLOWLIST_FILE: Key[Path | None] = Key("access.allowlist_file", kinds.FILE, None, ours=True)
FILE_INTERVAL = Key(
    "access.allowlist_file_interval",
    server_kinds.duration(0.01, 3600),
    _DEFAULTS.access_file_interval,
    ours=True,
)

SCHEMA = FileSchema(
    keys=(
        ENABLE_RELAY,
        HTTP_BIND_ADDR,
        ENABLE_QAD,
        ENABLE_METRICS,
        METRICS_BIND_ADDR,
        KEY_CACHE_CAPACITY,
        HTTPS_BIND_ADDR,
        QUIC_BIND_ADDR,
        HOSTNAME,
        CERT_MODE,
        CERT_DIR,
        CERT_PATH,
        KEY_PATH,
        PROD_TLS,
        CONTACT,
        ACCEPT_CONN_LIMIT,
        ACCEPT_CONN_BURST,
        BYTES_PER_SECOND,
        MAX_BURST_BYTES,
        MAX_CONNECTIONS,
        PER_ADDRESS,
        MAX_QAD,
        QUEUE_PACKETS,
        QUEUE_BYTES,
        WRITE_TIMEOUT,
        HANDSHAKE_TIMEOUT,
        ACCESS,
        ALLOWLIST,
        DENYLIST,
        SHARED_TOKEN,
        SERVICE_URL,
        BEARER_TOKEN,
        ALLOWLIST_FILE,
        FILE_INTERVAL,
    ),
    refused={"tls.dangerous_http_only": "give the option --dev instead"},
)


def load_relay(
    path: Path | None, environ: Mapping[str, str], *, dev: bool = False
) -> RelayServerSettings:
    """Settings of a relay from a file (None: the defaults) and the environment. `dev`: plain HTTP
    on port 3340 whatever `[tls]` says. Raises ConfigError."""
    values = read_values(SCHEMA, path, environ)
    http = values.get(HTTP_BIND_ADDR) or (DEV_HTTP_ADDR if dev else DEFAULT_HTTP_ADDR)
    has_tls = "tls" in values.tables
    if has_tls and values.get(CERT_MODE) == "LetsEncrypt" and not dev:
        raise values.error(CERT_MODE, _LETS_ENCRYPT)
    return RelayServerSettings(
        enable_relay=values.get(ENABLE_RELAY),
        http_bind_addr=http,
        tls=_tls(values, http) if has_tls and not dev else None,
        quic=_quic(values, http),
        access=_access(values),
        access_file=values.get(ALLOWLIST_FILE),
        access_file_interval=values.get(FILE_INTERVAL),
        limits=_limits(values),
        enable_metrics=values.get(ENABLE_METRICS),
        metrics_bind_addr=values.get(METRICS_BIND_ADDR),
    )


def _https_bind_addr(values: FileValues, http: SocketAddr) -> SocketAddr:
    return values.get(HTTPS_BIND_ADDR) or SocketAddr(http.ip, DEFAULT_HTTPS_PORT)


def _certificate(values: FileValues) -> tuple[Path, Path]:
    directory = values.get(CERT_DIR)
    return (
        values.get(CERT_PATH) or directory / "default.crt",
        values.get(KEY_PATH) or directory / "default.key",
    )


def _tls(values: FileValues, http: SocketAddr) -> RelayTls:
    interval = RELOAD_INTERVAL if values.get(CERT_MODE) == "Reloading" else None
    return RelayTls(
        *_certificate(values),
        https_bind_addr=_https_bind_addr(values, http),
        hostname=values.get(HOSTNAME),
        reload_interval=interval,
    )


def _quic(values: FileValues, http: SocketAddr) -> RelayQuic | None:
    if not values.get(ENABLE_QAD):
        return None
    if "tls" not in values.tables:
        raise values.error(ENABLE_QAD, "needs a certificate; add [tls], or set it to false")
    default = SocketAddr(_https_bind_addr(values, http).ip, DEFAULT_QUIC_PORT)
    bind_addr = values.get(QUIC_BIND_ADDR) or default
    return RelayQuic(*_certificate(values), bind_addr, values.get(MAX_QAD))


def _limits(values: FileValues) -> RelayLimits:
    rate = values.get(BYTES_PER_SECOND)
    burst = values.get(MAX_BURST_BYTES)
    if burst is not None and rate is None:
        raise values.error(MAX_BURST_BYTES, "needs bytes_per_second beside it")
    return RelayLimits(
        accept_conn_limit=values.get(ACCEPT_CONN_LIMIT),
        accept_conn_burst=values.get(ACCEPT_CONN_BURST),
        client_rx=ClientRxLimit(rate, burst) if rate is not None else None,
        max_connections=values.get(MAX_CONNECTIONS),
        max_connections_per_address=values.get(PER_ADDRESS) or None,
        queue_packets=values.get(QUEUE_PACKETS),
        queue_bytes=values.get(QUEUE_BYTES),
        write_timeout=values.get(WRITE_TIMEOUT),
        handshake_timeout=values.get(HANDSHAKE_TIMEOUT),
    )


def _access(values: FileValues) -> AccessPolicy:
    """The one policy that is given. A token in the environment replaces those of the file, and is
    never silently without effect."""
    allows = values.is_given(ALLOWLIST) or values.is_given(ALLOWLIST_FILE)
    policies: dict[Key[object], AccessPolicy] = {}
    if values.is_given(ACCESS):
        policies[ACCESS] = Everyone()
    if allows:
        key = ALLOWLIST if values.is_given(ALLOWLIST) else ALLOWLIST_FILE
        policies[key] = AllowList(frozenset(values.get(ALLOWLIST)))
    if values.is_given(DENYLIST):
        policies[DENYLIST] = DenyList(frozenset(values.get(DENYLIST)))
    if values.is_given(SHARED_TOKEN):
        policies[SHARED_TOKEN] = _shared_token(values)
    url = values.get(SERVICE_URL)
    if url is not None:
        policies[SERVICE_URL] = AccessService(url, values.get(BEARER_TOKEN))
    elif "access.http" in values.tables:
        raise values.error(SERVICE_URL, "is missing; name the URL to ask")
    _refuse_second(values, list(policies))
    if not policies and "access" in values.tables:
        raise ConfigError(
            f"{values.path}: access: says nothing about who may use the relay; write"
            ' access = "everyone", or give one of allowlist, denylist, shared_token, http'
        )
    return next(iter(policies.values()), Everyone())


def _shared_token(values: FileValues) -> SharedToken:
    tokens = values.get(SHARED_TOKEN)
    if not tokens:
        raise values.error(SHARED_TOKEN, "is empty, so that nobody could enter; add a token")
    return SharedToken(tokens)


def _refuse_second(values: FileValues, keys: list[Key[object]]) -> None:
    if len(keys) > 1:
        other = values.origin(keys[0]).key
        raise values.error(keys[1], f"cannot be given beside {other}; keep one of them")
