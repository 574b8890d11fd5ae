"""Every option once: its names, how it is written, its default, who may use it, what it means.

The command line, the environment, configuration files, their checks and the reference in
`docs/CONFIGURATION.md` are all read from `OPTIONS`. To add an option, add a row.
"""

from pathlib import Path

from tunnel_rs.config import kinds
from tunnel_rs.config.kinds import ListenAddress
from tunnel_rs.config.operation_options import OPERATIONS
from tunnel_rs.config.option import BOTH, CLIENT, SERVER, Exclusion, Option, Refused, Role
from tunnel_rs.config.transport_options import MULTIPATH, TRANSPORT, UDP_DATAGRAMS
from tunnel_rs.forward.settings import Network, Tunnel
from tunnel_rs.proto.iroh_defaults import STAGING_VARIABLE
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import EndpointId, HostPort, Secret, SocketAddr, SourceUrl

MODE = "iroh"
"""The only `mode` of files for the program `tunnel-rs`."""


ALLOWED_TCP: Option[tuple[Network, ...]] = Option(
    "allowed_tcp",
    kinds.NETWORKS,
    (),
    SERVER,
    "Networks whose TCP ports clients may ask for; none means no TCP.",
    key="iroh.allowed_sources.tcp",
    flags=("--allowed-tcp",),
    metavar="CIDR",
)
ALLOWED_UDP: Option[tuple[Network, ...]] = Option(
    "allowed_udp",
    kinds.NETWORKS,
    (),
    SERVER,
    "Networks whose UDP ports clients may ask for; none means no UDP.",
    key="iroh.allowed_sources.udp",
    flags=("--allowed-udp",),
    metavar="CIDR",
)
AUTH_TOKENS: Option[tuple[Secret[str], ...]] = Option(
    "auth_tokens",
    kinds.TOKENS,
    (),
    SERVER,
    "Tokens that clients may show.",
    key="iroh.auth_tokens",
    flags=("--auth-tokens",),
    metavar="TOKEN",
    variable="TUNNEL_RS_AUTH_TOKENS",
)
AUTH_TOKENS_FILE: Option[Path | None] = Option(
    "auth_tokens_file",
    kinds.FILE,
    None,
    SERVER,
    "File with one token a line, # begins a comment; options behind a token limit what its holder "
    "may do. Read again on SIGHUP.",
    key="iroh.auth_tokens_file",
    flags=("--auth-tokens-file",),
    metavar="FILE",
    variable="TUNNEL_RS_AUTH_TOKENS_FILE",
)
ALLOWED_CLIENTS: Option[tuple[EndpointId, ...]] = Option(
    "allowed_clients",
    kinds.CLIENT_IDS,
    (),
    SERVER,
    "EndpointId of a client that needs no token: its key is enough.",
    key="iroh.allowed_clients",
    flags=("--allowed-client",),
    metavar="ID",
)
ALLOWED_CLIENTS_FILE: Option[Path | None] = Option(
    "allowed_clients_file",
    kinds.FILE,
    None,
    SERVER,
    "File with one such EndpointId a line, with the same options behind it as in a tokens file. "
    "Read again on SIGHUP.",
    key="iroh.allowed_clients_file",
    flags=("--allowed-clients-file",),
    metavar="FILE",
)
MAX_SESSIONS: Option[int] = Option(
    "max_sessions",
    kinds.integer(1, 100_000),
    100,
    SERVER,
    "Most connections and UDP flows forwarded at a time, over all clients.",
    key="iroh.max_sessions",
    flags=("--max-sessions",),
    metavar="N",
)
SECRET: Option[Secret[bytes] | None] = Option(
    "secret",
    kinds.SECRET_KEY,
    None,
    SERVER,
    "The server's secret key itself; --secret-file keeps it out of the process list.",
    key="iroh.secret",
    flags=("--secret",),
    metavar="BASE64",
    variable="TUNNEL_RS_SECRET",
)
SECRET_FILE: Option[Path | None] = Option(
    "secret_file",
    kinds.FILE,
    None,
    SERVER,
    "File with the server's secret key, from `tunnel-rs generate-server-key`.",
    key="iroh.secret_file",
    flags=("--secret-file",),
    metavar="FILE",
    variable="TUNNEL_RS_SECRET_FILE",
)
CLIENT_SECRET_FILE: Option[Path | None] = Option(
    "client_secret_file",
    kinds.FILE,
    None,
    CLIENT,
    "File with our own secret key, from `tunnel-rs generate-server-key`, where the server lets us "
    "in by its EndpointId instead of a token. Without one each run has a fresh key.",
    key="iroh.secret_file",
    flags=("--secret-file",),
    metavar="FILE",
    # Not the server's: both may run in one environment, and must not be the same endpoint.
    variable="TUNNEL_RS_CLIENT_SECRET_FILE",
)
SERVER_NODE_ID: Option[EndpointId | None] = Option(
    "server_node_id",
    kinds.ENDPOINT_ID,
    None,
    CLIENT,
    "EndpointId of the server: 64 hex digits or 52 base32 characters.",
    key="iroh.server_node_id",
    flags=("-n", "--server-node-id"),
    metavar="ID",
)
SOURCE: Option[tuple[SourceUrl, ...]] = Option(
    "source",
    kinds.SOURCES,
    (),
    CLIENT,
    "What to reach, as seen from the server: tcp://host:port or udp://host:port.",
    key="iroh.request_source",
    aliases=("iroh.source",),
    flags=("-s", "--source"),
    metavar="URL",
)
TARGET: Option[tuple[ListenAddress, ...]] = Option(
    "target",
    kinds.LISTEN_ADDRESSES,
    (),
    CLIENT,
    "Where to listen for it: host:port; localhost means IPv4 and IPv6, port 0 any free one.",
    key="iroh.target",
    flags=("-t", "--target"),
    metavar="ADDR",
)
TUNNELS: Option[tuple[Tunnel, ...]] = Option(
    "tunnels",
    kinds.TUNNELS,
    (),
    CLIENT,
    "Several tunnels over one connection: one [[iroh.tunnels]] table with source and target each.",
    key="iroh.tunnels",
)
SOCKS5: Option[HostPort | None] = Option(
    "socks5",
    kinds.HOST_PORT,
    None,
    CLIENT,
    "Listen here as a SOCKS5 proxy (CONNECT and UDP ASSOCIATE), with or without tunnels beside it.",
    key="iroh.socks5",
    flags=("--socks5",),
    metavar="ADDR",
)
STDIO: Option[bool] = Option(
    "stdio",
    kinds.SWITCH,
    False,
    CLIENT,
    "Forward stdin and stdout instead of listening, for `ssh -o ProxyCommand`.",
    flags=("--stdio",),
)
AUTH_TOKEN: Option[Secret[str] | None] = Option(
    "auth_token",
    kinds.TOKEN,
    None,
    CLIENT,
    "Token to show to the server; --auth-token-file keeps it out of the process list.",
    key="iroh.auth_token",
    flags=("--auth-token",),
    metavar="TOKEN",
    variable="TUNNEL_RS_AUTH_TOKEN",
)
AUTH_TOKEN_FILE: Option[Path | None] = Option(
    "auth_token_file",
    kinds.FILE,
    None,
    CLIENT,
    "File with the token to show to the server.",
    key="iroh.auth_token_file",
    flags=("--auth-token-file",),
    metavar="FILE",
    variable="TUNNEL_RS_AUTH_TOKEN_FILE",
)
PEER_ADDRS: Option[tuple[SocketAddr, ...]] = Option(
    "peer_addrs",
    kinds.PEER_ADDRESSES,
    (),
    CLIENT,
    "A known direct address of the server, tried at once beside discovery.",
    key="iroh.peer_addrs",
    flags=("--peer-addr",),
    metavar="IP:PORT",
)
RELAY_URLS: Option[tuple[RelayUrl | None, ...]] = Option(
    "relay_urls",
    kinds.RELAYS,
    (),
    BOTH,
    "Relays to use instead of the public ones, which both sides must be able to reach; one that "
    "wants an access token may carry it as ?token=. `none`: no relay at all.",
    key="iroh.relay_urls",
    flags=("--relay-url",),
    metavar="URL",
)
RELAY_ONLY: Option[bool] = Option(
    "relay_only",
    kinds.SWITCH,
    False,
    BOTH,
    "Use the relays given by --relay-url and nothing else: no UDP, no discovery of any kind.",
    flags=("--relay-only",),
)
DIRECT_ONLY: Option[bool] = Option(
    "direct_only",
    kinds.SWITCH,
    False,
    CLIENT,
    "Forward over direct paths only. Relays help to find one and carry nothing else; when there is "
    "no direct path within the connect timeout, the attempt fails.",
    key="iroh.direct_only",
    flags=("--direct-only",),
)
STUN_SERVERS: Option[tuple[HostPort, ...]] = Option(
    "stun_servers",
    kinds.STUN_SERVERS,
    (),
    BOTH,
    "STUN servers that tell our address as seen from outside, asked where no relay tells it.",
    key="iroh.stun_servers",
    flags=("--stun-server",),
    metavar="HOST[:PORT]",
)
PORT_MAPPING: Option[bool] = Option(
    "port_mapping",
    kinds.SWITCH,
    True,
    BOTH,
    "Ask the router for a port that leads to us (PCP, NAT-PMP, UPnP), so that peers reach us "
    "directly; it is given back at the end.",
    key="iroh.port_mapping",
    flags=("--port-mapping",),
)
RELAY_TOKEN: Option[Secret[str] | None] = Option(
    "relay_token",
    kinds.RELAY_TOKEN,
    None,
    BOTH,
    "Access token for the relays in relay_urls that carry none.",
    key="iroh.relay_token",
    variable="TUNNEL_RS_RELAY_TOKEN",
)
RELAY_TOKEN_FILE: Option[Path | None] = Option(
    "relay_token_file",
    kinds.FILE,
    None,
    BOTH,
    "File with that access token.",
    key="iroh.relay_token_file",
    flags=("--relay-token-file",),
    metavar="FILE",
    variable="TUNNEL_RS_RELAY_TOKEN_FILE",
)
RELAY_CA_FILE: Option[Path | None] = Option(
    "relay_ca_file",
    kinds.FILE,
    None,
    BOTH,
    "PEM file of certificate authorities trusted for relays beside the system's.",
    key="iroh.relay_ca_file",
    flags=("--relay-ca-file",),
    metavar="FILE",
)
DNS_SERVER: Option[str | None] = Option(
    "dns_server",
    kinds.DNS_SERVER,
    None,
    BOTH,
    "Discovery server (pkarr) to use instead of the public one, as a URL with its path. `none`: "
    "no discovery over the internet; relays, LAN discovery and known addresses stay on.",
    key="iroh.dns_server",
    flags=("--dns-server",),
    metavar="URL",
)
DNS_SERVER_CA_FILE: Option[Path | None] = Option(
    "dns_server_ca_file",
    kinds.FILE,
    None,
    BOTH,
    "PEM file of certificate authorities trusted for the discovery server beside the system's.",
    key="iroh.dns_server_ca_file",
)
PUBLISH_DIRECT: Option[bool] = Option(
    "publish_direct_addresses",
    kinds.SWITCH,
    False,
    SERVER,
    "Publish our IP addresses too, not only the relay: who knows the EndpointId sees where we are.",
    key="iroh.publish_direct_addresses",
)
STAGING: Option[bool] = Option(
    "staging",
    kinds.FORCED,
    False,
    BOTH,
    "Use iroh's staging relays and discovery in place of the public ones.",
    variable=STAGING_VARIABLE,
)
RECONNECT: Option[bool] = Option(
    "reconnect",
    kinds.SWITCH,
    True,
    CLIENT,
    "Connect again when the connection is lost, and keep the listeners open meanwhile.",
    key="iroh.reconnect",
    flags=("--reconnect",),
)
CONNECT_TIMEOUT: Option[float] = Option(
    "connect_timeout",
    kinds.seconds(0.1, 600),
    10.0,
    CLIENT,
    "Seconds that one attempt to reach the server may take.",
    key="iroh.connect_timeout",
    flags=("--connect-timeout",),
    metavar="SECONDS",
)
UDP_IDLE_TIMEOUT: Option[float] = Option(
    "udp_idle_timeout",
    kinds.seconds(1, 86_400),
    60.0,
    BOTH,
    "Seconds after which a UDP flow without traffic is closed.",
    key="iroh.udp_idle_timeout",
)
BIND: Option[SocketAddr | None] = Option(
    "bind",
    kinds.BIND_ADDRESS,
    None,
    BOTH,
    "Local UDP address of the transport; default: any address, IPv4 and IPv6, and a random port.",
    key="iroh.bind",
    flags=("--bind",),
    metavar="IP:PORT",
)
OPTIONS: tuple[Option[object], ...] = (
    SERVER_NODE_ID,
    SOURCE,
    TARGET,
    TUNNELS,
    SOCKS5,
    STDIO,
    ALLOWED_TCP,
    ALLOWED_UDP,
    AUTH_TOKENS,
    AUTH_TOKENS_FILE,
    ALLOWED_CLIENTS,
    ALLOWED_CLIENTS_FILE,
    AUTH_TOKEN,
    AUTH_TOKEN_FILE,
    SECRET,
    SECRET_FILE,
    CLIENT_SECRET_FILE,
    MAX_SESSIONS,
    PEER_ADDRS,
    BIND,
    RELAY_URLS,
    RELAY_ONLY,
    DIRECT_ONLY,
    STUN_SERVERS,
    PORT_MAPPING,
    RELAY_TOKEN,
    RELAY_TOKEN_FILE,
    RELAY_CA_FILE,
    DNS_SERVER,
    DNS_SERVER_CA_FILE,
    PUBLISH_DIRECT,
    STAGING,
    RECONNECT,
    CONNECT_TIMEOUT,
    UDP_IDLE_TIMEOUT,
    *OPERATIONS,
    *TRANSPORT,
    UDP_DATAGRAMS,
    MULTIPATH,
)


EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion(AUTH_TOKENS, AUTH_TOKENS_FILE, together_on_command_line=True),
    Exclusion(ALLOWED_CLIENTS, ALLOWED_CLIENTS_FILE, together_on_command_line=True),
    Exclusion(AUTH_TOKEN, AUTH_TOKEN_FILE),
    Exclusion(SECRET, SECRET_FILE),
    Exclusion(SOURCE, TUNNELS),
    Exclusion(TARGET, TUNNELS),
    Exclusion(STDIO, TARGET),
    Exclusion(STDIO, TUNNELS),
    Exclusion(STDIO, SOCKS5),
    Exclusion(RELAY_TOKEN, RELAY_TOKEN_FILE),
    Exclusion(RELAY_ONLY, BIND),
    Exclusion(RELAY_ONLY, PEER_ADDRS),
    Exclusion(RELAY_ONLY, DIRECT_ONLY),
    Exclusion(RELAY_ONLY, STUN_SERVERS),
)


REFUSED: tuple[Refused, ...] = (
    Refused(
        "not accepted in a file; it is an option of the command line only", key="iroh.relay_only"
    ),
)


def options_for(role: Role) -> tuple[Option[object], ...]:
    """The options one side understands, in the order of the table."""
    return tuple(option for option in OPTIONS if role in option.roles)
