"""Every option of `tunnel-rs-vpn` once; those it shares with `tunnel-rs` are in `schema`."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from tunnel_rs.config import operation_options, schema, transport_options, vpn_kinds
from tunnel_rs.config.kinds import NETWORKS, SWITCH, integer
from tunnel_rs.config.option import VPN_BOTH, VPN_CLIENT, VPN_SERVER, Exclusion, Option
from tunnel_rs.vpn.settings import DEFAULT_MTU, Address, Network, Spoofing

NETWORK: Option[IPv4Interface | None] = Option(
    "network",
    vpn_kinds.NETWORK4,
    None,
    VPN_SERVER,
    "IPv4 network of the VPN, for example 10.0.0.0/24; clients get addresses of it.",
    key="iroh.network",
    flags=("--network",),
    metavar="CIDR",
)
NETWORK6: Option[IPv6Interface | None] = Option(
    "network6",
    vpn_kinds.NETWORK6,
    None,
    VPN_SERVER,
    "IPv6 network of the VPN, for example fd00::/64; clients get addresses of it.",
    key="iroh.network6",
    flags=("--network6",),
    metavar="CIDR",
)
SERVER_IP: Option[IPv4Address | None] = Option(
    "server_ip",
    vpn_kinds.ADDRESS4,
    None,
    VPN_SERVER,
    "The server's own address in the IPv4 network; default: the first one for a host.",
    key="iroh.server_ip",
)
SERVER_IP6: Option[IPv6Address | None] = Option(
    "server_ip6",
    vpn_kinds.ADDRESS6,
    None,
    VPN_SERVER,
    "The server's own address in the IPv6 network; default: the first one for a host.",
    key="iroh.server_ip6",
)
MTU: Option[int] = Option(
    "mtu",
    integer(576, 1500, "bytes"),
    DEFAULT_MTU,
    VPN_BOTH,
    "Most bytes of a packet on the TUN device; with IPv6 1280 at least.",
    key="iroh.mtu",
    flags=("--mtu",),
    metavar="BYTES",
)
DEVICE: Option[str | None] = Option(
    "device",
    vpn_kinds.DEVICE,
    None,
    VPN_BOTH,
    "Name of the TUN device; default: the system chooses one.",
    key="iroh.device",
    flags=("--device",),
    metavar="NAME",
)
OFFLOAD: Option[bool] = Option(
    "device_offload",
    SWITCH,
    True,
    VPN_BOTH,
    "Exchange packets larger than the MTU where both ends can (Linux); costs far less CPU time.",
    key="iroh.offload",
)
MAX_CLIENTS: Option[int] = Option(
    "max_clients",
    integer(1, 10_000),
    254,
    VPN_SERVER,
    "Most clients at a time; further ones are told that the server is full.",
    key="iroh.max_clients",
)
CHANNEL_SIZE: Option[int] = Option(
    "client_channel_size",
    integer(1, 65_536, "packets"),
    1024,
    VPN_SERVER,
    "Packets for a client that may wait beyond those that are on their way to it.",
    key="iroh.client_channel_size",
)
WRITER_CHANNEL_SIZE: Option[int] = Option(
    "tun_writer_channel_size",
    integer(1, 65_536, "packets"),
    512,
    VPN_SERVER,
    "Accepted for files of other versions; without effect, as packets to the device never wait.",
    key="iroh.tun_writer_channel_size",
)
KEEPALIVE: Option[int | None] = Option(
    "keepalive_secs",
    integer(1, 86_400, "seconds"),
    None,
    VPN_BOTH,
    "Accepted for files of other versions; without effect, as it always was.",
    key="iroh.keepalive_secs",
)
DROP_ON_FULL: Option[bool] = Option(
    "drop_on_full",
    SWITCH,
    False,
    VPN_SERVER,
    "Drop packets for a client that does not keep up at once; off: all wait for it for a second.",
    key="iroh.drop_on_full",
)
SPOOFING_CHECK: Option[Spoofing] = Option(
    "spoofing_check",
    vpn_kinds.SPOOFING,
    Spoofing.STRICT,
    VPN_SERVER,
    "Source addresses a client may use: strict: its own; loose: any that nobody has; off: any.",
    key="iroh.spoofing_check",
)
NO_SPOOFING_CHECK: Option[bool] = Option(
    "disable_spoofing_check",
    SWITCH,
    False,
    VPN_SERVER,
    'Older way to write spoofing_check = "off"; there is no check of source addresses then.',
    key="iroh.disable_spoofing_check",
)
CLIENT_ISOLATION: Option[bool] = Option(
    "client_isolation",
    SWITCH,
    True,
    VPN_SERVER,
    "Drop packets from one client to another.",
    key="iroh.client_isolation",
)
STABLE_ADDRESSES: Option[bool] = Option(
    "stable_addresses",
    SWITCH,
    True,
    VPN_SERVER,
    "Set an address aside for the holder of each token, the same one at every start.",
    key="iroh.stable_addresses",
)
ALLOWED_DESTINATIONS: Option[tuple[Network, ...]] = Option(
    "allowed_destinations",
    NETWORKS,
    (),
    VPN_SERVER,
    "Networks clients may send to, besides the server's own addresses; none: anywhere.",
    key="iroh.allowed_destinations",
    flags=("--allowed-destination",),
    metavar="CIDR",
)
FORWARD: Option[bool] = Option(
    "forward",
    SWITCH,
    False,
    VPN_SERVER,
    "Have the kernel forward packets of clients to other networks while the server runs (Linux).",
    key="iroh.forward",
    flags=("--forward",),
)
MASQUERADE: Option[bool] = Option(
    "masquerade",
    SWITCH,
    False,
    VPN_SERVER,
    "Give forwarded packets the address of the interface they leave by; implies forward (Linux).",
    key="iroh.masquerade",
    flags=("--masquerade",),
)
PUSH_DNS: Option[tuple[Address, ...]] = Option(
    "push_dns",
    vpn_kinds.ADDRESSES,
    (),
    VPN_SERVER,
    "Resolvers that clients are told to use.",
    key="iroh.push_dns",
)
PUSH_DOMAINS: Option[tuple[str, ...]] = Option(
    "push_domains",
    vpn_kinds.DOMAINS,
    (),
    VPN_SERVER,
    "Domains whose names clients look up at those resolvers; none: all names.",
    key="iroh.push_domains",
)
NAT64_ENABLED: Option[bool] = Option(
    "nat64_enabled",
    SWITCH,
    False,
    VPN_SERVER,
    "Let IPv6 clients reach IPv4 hosts as 64:ff9b::a.b.c.d.",
    key="iroh.nat64.enabled",
)
NAT64_SOURCE: Option[IPv4Address | None] = Option(
    "nat64_source_ip",
    vpn_kinds.ADDRESS4,
    None,
    VPN_SERVER,
    "IPv4 address that stands for all NAT64 clients; default: the highest one of the network.",
    key="iroh.nat64.source_ip",
)
NAT64_PORTS: Option[tuple[int, int]] = Option(
    "nat64_port_range",
    vpn_kinds.PORT_RANGE,
    (32_768, 65_535),
    VPN_SERVER,
    "First and last port used for NAT64.",
    key="iroh.nat64.port_range",
)
NAT64_TCP: Option[int] = Option(
    "nat64_tcp_timeout",
    integer(1, 86_400, "seconds"),
    300,
    VPN_SERVER,
    "Seconds without a packet after which a NAT64 TCP connection is forgotten.",
    key="iroh.nat64.tcp_timeout_secs",
)
NAT64_UDP: Option[int] = Option(
    "nat64_udp_timeout",
    integer(1, 86_400, "seconds"),
    30,
    VPN_SERVER,
    "Seconds without a packet after which a NAT64 UDP flow is forgotten.",
    key="iroh.nat64.udp_timeout_secs",
)
NAT64_ICMP: Option[int] = Option(
    "nat64_icmp_timeout",
    integer(1, 86_400, "seconds"),
    30,
    VPN_SERVER,
    "Seconds without a packet after which a NAT64 ping is forgotten.",
    key="iroh.nat64.icmp_timeout_secs",
)
ROUTES: Option[tuple[Network, ...]] = Option(
    "routes",
    vpn_kinds.ROUTES,
    (),
    VPN_CLIENT,
    "Networks reached through the VPN, besides its own; 0.0.0.0/0: everything.",
    key="iroh.routes",
    flags=("--route",),
    metavar="CIDR",
)
ROUTES6: Option[tuple[Network, ...]] = Option(
    "routes6",
    vpn_kinds.ROUTES6,
    (),
    VPN_CLIENT,
    "IPv6 networks reached through the VPN, besides its own; ::/0: everything.",
    key="iroh.routes6",
    flags=("--route6",),
    metavar="CIDR",
)
AUTO_RECONNECT: Option[bool] = Option(
    "auto_reconnect",
    SWITCH,
    True,
    VPN_CLIENT,
    "Connect again when the connection is lost; device and routes stay up meanwhile.",
    key="iroh.auto_reconnect",
    flags=("--auto-reconnect",),
)
MAX_ATTEMPTS: Option[int | None] = Option(
    "max_reconnect_attempts",
    integer(1, 1_000_000),
    None,
    VPN_CLIENT,
    "Attempts in a row that may fail before the client gives up; default: any number.",
    key="iroh.max_reconnect_attempts",
    flags=("--max-reconnect-attempts",),
    metavar="N",
)
KILL_SWITCH: Option[bool] = Option(
    "kill_switch",
    SWITCH,
    False,
    VPN_CLIENT,
    "Block what the routes cover when the client is killed, until it runs again (Linux).",
    key="iroh.kill_switch",
    flags=("--kill-switch",),
)
ACCEPT_DNS: Option[bool] = Option(
    "accept_dns",
    SWITCH,
    True,
    VPN_CLIENT,
    "Use the resolvers that the server names, while the VPN is up.",
    key="iroh.accept_dns",
    flags=("--accept-dns",),
)
RESOLVERS: Option[tuple[Address, ...]] = Option(
    "resolvers",
    vpn_kinds.ADDRESSES,
    (),
    VPN_CLIENT,
    "Resolvers to use while the VPN is up, instead of those the server names.",
    key="iroh.resolvers",
    flags=("--resolver",),
    metavar="IP",
)
_TRANSPORT: tuple[Option[object], ...] = (
    KEEPALIVE,
    schema.BIND,
    schema.RELAY_URLS,
    schema.RELAY_TOKEN,
    schema.RELAY_TOKEN_FILE,
    schema.RELAY_CA_FILE,
    schema.DNS_SERVER,
    schema.DNS_SERVER_CA_FILE,
    schema.STAGING,
    *transport_options.TRANSPORT,
    transport_options.MULTIPATH,
)

SERVER_OPTIONS: tuple[Option[object], ...] = (
    NETWORK,
    NETWORK6,
    SERVER_IP,
    SERVER_IP6,
    schema.AUTH_TOKENS,
    schema.AUTH_TOKENS_FILE,
    schema.SECRET,
    schema.SECRET_FILE,
    MTU,
    DEVICE,
    FORWARD,
    MASQUERADE,
    CLIENT_ISOLATION,
    ALLOWED_DESTINATIONS,
    STABLE_ADDRESSES,
    SPOOFING_CHECK,
    NO_SPOOFING_CHECK,
    PUSH_DNS,
    PUSH_DOMAINS,
    MAX_CLIENTS,
    CHANNEL_SIZE,
    WRITER_CHANNEL_SIZE,
    DROP_ON_FULL,
    OFFLOAD,
    NAT64_ENABLED,
    NAT64_SOURCE,
    NAT64_PORTS,
    NAT64_TCP,
    NAT64_UDP,
    NAT64_ICMP,
    schema.PUBLISH_DIRECT,
    *operation_options.OPERATIONS,
    *_TRANSPORT,
)
CLIENT_OPTIONS: tuple[Option[object], ...] = (
    schema.SERVER_NODE_ID,
    schema.AUTH_TOKEN,
    schema.AUTH_TOKEN_FILE,
    ROUTES,
    ROUTES6,
    MTU,
    DEVICE,
    AUTO_RECONNECT,
    MAX_ATTEMPTS,
    schema.CONNECT_TIMEOUT,
    KILL_SWITCH,
    ACCEPT_DNS,
    RESOLVERS,
    OFFLOAD,
    schema.PEER_ADDRS,
    operation_options.CONTROL_SOCKET,
    operation_options.METRICS_BIND,
    *_TRANSPORT,
)

EXCLUSIONS = (
    Exclusion(schema.AUTH_TOKENS, schema.AUTH_TOKENS_FILE, together_on_command_line=True),
    Exclusion(schema.AUTH_TOKEN, schema.AUTH_TOKEN_FILE),
    Exclusion(schema.SECRET, schema.SECRET_FILE),
    Exclusion(schema.RELAY_TOKEN, schema.RELAY_TOKEN_FILE),
    Exclusion(SPOOFING_CHECK, NO_SPOOFING_CHECK),
)
