"""Turn merged values into the frozen settings of the features. Nothing below reads a mapping."""

from collections.abc import Iterator
from dataclasses import dataclass

from tunnel_rs.config import schema, transport_options
from tunnel_rs.config.keyfile import read_secret_key
from tunnel_rs.config.kinds import pair
from tunnel_rs.config.option import Option
from tunnel_rs.config.reach import read_reach
from tunnel_rs.config.sources import Rank, Values
from tunnel_rs.config.token_files import joined, read_clients, read_tokens
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.forward.settings import ClientSettings, Network, ServerSettings, Tunnel
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.proto.access import AccessList, Entry
from tunnel_rs.proto.grants import unreachable_rule
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import EndpointId, HostPort, Protocol, Secret, SourceUrl

_MAX_KEEP_ALIVE = TransportSettings().keep_alive


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything `tunnel-rs server` runs with."""

    forward: ServerSettings
    endpoint: EndpointSettings


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Everything `tunnel-rs client` runs with."""

    forward: ClientSettings
    endpoint: EndpointSettings
    server: EndpointId


def build_server(values: Values) -> ServerConfig:
    """Check that a server has all it needs, and read its key and token files.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    return ServerConfig(server_settings(values), endpoint_settings(values, secret_key(values)))


def server_settings(values: Values, *, running: bool = False) -> ServerSettings:
    """What clients may do: the part of a server's configuration that can change while it runs.

    Reads the files of tokens and client keys. A `running` server may be left with nobody who may
    come in: so the last one can be shut out. Raises UsageError or ConfigError.
    """
    allowed_tcp, allowed_udp = allowed_networks(values)
    access = access_list(values, may_be_empty=running)
    _refuse_rules_without_effect(access, allowed_tcp, allowed_udp)
    return ServerSettings(
        allowed_tcp=allowed_tcp,
        allowed_udp=allowed_udp,
        access=access,
        max_sessions=values.get(schema.MAX_SESSIONS),
        udp_idle_timeout=values.get(schema.UDP_IDLE_TIMEOUT),
    )


def allowed_networks(values: Values) -> tuple[tuple[Network, ...], tuple[Network, ...]]:
    """Whose TCP and whose UDP ports clients may ask for. Raises when that is nothing."""
    allowed_tcp, allowed_udp = values.get(schema.ALLOWED_TCP), values.get(schema.ALLOWED_UDP)
    if not allowed_tcp and not allowed_udp:
        advice = ", for example 127.0.0.0/8; without one nothing may be forwarded"
        options = schema.ALLOWED_TCP, schema.ALLOWED_UDP
        raise values.missing("allowed network", *options, advice=advice)
    return allowed_tcp, allowed_udp


def build_client(values: Values, *, needs_tunnels: bool = True) -> ClientConfig:
    """Check that a client has all it needs, and read its token file. Without `needs_tunnels` it may
    listen nowhere.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    server = values.get(schema.SERVER_NODE_ID)
    if server is None:
        advice = " (the server prints it as EndpointId)"
        raise values.missing("server", schema.SERVER_NODE_ID, advice=advice)
    stdio = values.get(schema.STDIO)
    forward = ClientSettings(
        stdio=stdio_source(values) if stdio else None,
        tunnels=() if stdio else tunnels(values, needed=needs_tunnels),
        socks5=values.get(schema.SOCKS5),
        auth_token=auth_token(values),
        # A stream on stdin and stdout cannot be resumed: when the link is lost, it is over.
        reconnect=values.get(schema.RECONNECT) and not stdio,
        connect_timeout=values.get(schema.CONNECT_TIMEOUT),
        udp_idle_timeout=values.get(schema.UDP_IDLE_TIMEOUT),
    )
    file = values.get(schema.CLIENT_SECRET_FILE)
    key = None if file is None else read_secret_key(file)
    return ClientConfig(forward, endpoint_settings(values, key), server)


def exposed_secrets(values: Values) -> tuple[str, ...]:
    """The flags that put a secret on the command line, where all users of a machine see it."""
    origins = [values.origin(option) for option in values.options if option.kind.secret]
    if any(relay and relay.token for relay in values.get(schema.RELAY_URLS)):
        origins.append(values.origin(schema.RELAY_URLS))
    return tuple(origin.where for origin in origins if origin.rank is Rank.COMMAND_LINE)


def endpoint_settings(values: Values, key: Secret[bytes] | None) -> EndpointSettings:
    """How peers are found and reached. Raises UsageError or ConfigError."""
    reach = read_reach(values)
    return EndpointSettings(
        secret_key=key,
        bind=values.get(schema.BIND),
        lan_discovery=not reach.relay_only,
        peer_addrs=values.get(schema.PEER_ADDRS),
        relays=reach.relays,
        public_relays=reach.public_relays,
        relay_only=reach.relay_only,
        direct_only=values.get(schema.DIRECT_ONLY),
        stun_servers=values.get(schema.STUN_SERVERS),
        port_mapping=_may_map_ports(values) and not reach.relay_only,
        relay_ca_file=values.get(schema.RELAY_CA_FILE),
        discovery=reach.discovery,
        transport=transport(values),
    )


def _may_map_ports(values: Values) -> bool:
    """Only where there is the option: a VPN's packets to the router would go into the VPN."""
    return schema.PORT_MAPPING in schema.options_for(values.role) and values.get(
        schema.PORT_MAPPING
    )


def transport(values: Values) -> TransportSettings:
    """How the QUIC connection behaves."""
    receive_window = values.get(transport_options.RECEIVE_WINDOW)
    send_window = values.get(transport_options.SEND_WINDOW)
    idle_timeout = values.get(transport_options.IDLE_TIMEOUT)
    return TransportSettings(
        congestion_controller=values.get(transport_options.CONGESTION),
        receive_window=receive_window,
        send_window=receive_window if send_window is None else send_window,
        idle_timeout=idle_timeout,
        # Two chances to be heard within the idle timeout.
        keep_alive=min(_MAX_KEEP_ALIVE, idle_timeout / 3),
        fast_path=values.get(transport_options.FAST_PATH),
        offload=values.get(transport_options.OFFLOAD),
        datagrams=values.get(transport_options.UDP_DATAGRAMS),
        multipath=values.get(transport_options.MULTIPATH),
    )


def secret_key(values: Values) -> Secret[bytes]:
    key, file = values.get(schema.SECRET), values.get(schema.SECRET_FILE)
    if key is not None:
        return key
    if file is not None:
        return read_secret_key(file)
    program = values.table.program
    advice = f"; make one with `{program} generate-server-key -o FILE`"
    raise values.missing("server key", schema.SECRET_FILE, schema.SECRET, advice=advice)


def access_list(values: Values, *, may_be_empty: bool = False) -> AccessList:
    """Who may come in. Raises UsageError or ConfigError, also when that is nobody, unless it
    `may_be_empty`."""
    clients = _clients(values)
    tokens = token_entries(values, required=not (clients or may_be_empty))
    return AccessList(tokens, clients)


def token_entries(values: Values, *, required: bool) -> tuple[Entry[Secret[str]], ...]:
    """The accepted tokens, with what each grants. Raises UsageError or ConfigError, also when there
    is none and one is `required`."""
    given, file = values.get(schema.AUTH_TOKENS), values.get(schema.AUTH_TOKENS_FILE)
    if required and not given and file is None:
        program = values.table.program
        advice = f"; make one with `{program} generate-token`"
        options = schema.AUTH_TOKENS, schema.AUTH_TOKENS_FILE
        raise values.missing("auth token", *options, advice=advice)
    from_file = read_tokens(file, may_be_empty=bool(given) or not required) if file else ()
    return joined(map(Entry, given), from_file)


def _clients(values: Values) -> tuple[Entry[EndpointId], ...]:
    given, file = values.get(schema.ALLOWED_CLIENTS), values.get(schema.ALLOWED_CLIENTS_FILE)
    return joined(map(Entry, given), read_clients(file) if file else ())


def _refuse_rules_without_effect(
    access: AccessList, tcp: tuple[Network, ...], udp: tuple[Network, ...]
) -> None:
    """A token can only narrow what the server allows: a network outside is a mistake."""
    for entry in access.entries:
        for key, rules, allowed in ("tcp", entry.grant.tcp, tcp), ("udp", entry.grant.udp, udp):
            rule = unreachable_rule(rules, allowed)
            if rule is not None:
                raise ConfigError(
                    f"{entry.where}: {key}: {rule.network} is outside the networks that "
                    f"--allowed-{key} gives; add it there, or take it away here"
                )


def auth_token(values: Values) -> Secret[str]:
    """The token to show; the empty one when the server is to know us by our key."""
    token, file = values.get(schema.AUTH_TOKEN), values.get(schema.AUTH_TOKEN_FILE)
    if token is not None:
        return token
    if file is None:
        if values.get(schema.CLIENT_SECRET_FILE) is not None:
            return Secret("")
        raise values.missing("auth token", schema.AUTH_TOKEN_FILE, schema.AUTH_TOKEN)
    tokens = read_tokens(file)
    if len(tokens) > 1:
        raise ConfigError(f"{file}: holds {len(tokens)} tokens; a client needs a file with one")
    return tokens[0].credential


def stdio_source(values: Values) -> SourceUrl:
    """What stdin and stdout are forwarded to. Raises UsageError or ConfigError."""
    sources = values.get(schema.SOURCE)
    if not sources:
        raise values.missing("source for --stdio", schema.SOURCE)
    origin = values.origin(schema.SOURCE)
    if len(sources) > 1:
        raise origin.error(f"given {len(sources)} times; --stdio forwards one source")
    if sources[0].protocol is not Protocol.TCP:
        raise origin.error(f"{sources[0]}: --stdio carries a byte stream; use a tcp:// source")
    return sources[0]


def tunnels(values: Values, *, needed: bool = True) -> tuple[Tunnel, ...]:
    """The tunnels, if `needed` at least one unless there is SOCKS5. Raises UsageError or
    ConfigError."""
    found = values.get(schema.TUNNELS) or tuple(_pairs(values))
    if needed and not found and values.get(schema.SOCKS5) is None:
        if values.origin(schema.TUNNELS).rank is not Rank.DEFAULT:
            raise values.origin(schema.TUNNELS).error("is empty; add a tunnel")
        advice = " (or --socks5)"
        raise values.missing("source", schema.SOURCE, advice=advice)
    _refuse_same_target(values, found)
    return found


def _pairs(values: Values) -> Iterator[Tunnel]:
    sources, targets = values.get(schema.SOURCE), values.get(schema.TARGET)
    if sources and not targets:
        raise values.missing("target", schema.TARGET, advice=" (host:port to listen on)")
    if targets and not sources:
        raise values.missing("source", schema.SOURCE, advice=" (tcp://host:port)")
    if len(sources) != len(targets):
        raise _unpaired(values, schema.SOURCE if len(sources) > len(targets) else schema.TARGET)
    for source, target in zip(sources, targets, strict=True):
        try:
            yield pair(source, target)
        except ValueError as error:
            raise values.origin(schema.TARGET).error(str(error)) from None


def _unpaired(values: Values, longer: Option[object]) -> TunnelError:
    count = (
        f"{len(values.get(schema.SOURCE))} source(s), {len(values.get(schema.TARGET))} target(s)"
    )
    return values.origin(longer).error(f"{count}; give one --target for each --source, in order")


def _refuse_same_target(values: Values, tunnels: tuple[Tunnel, ...]) -> None:
    seen: set[tuple[Protocol, HostPort]] = set()
    socks5 = values.get(schema.SOCKS5)
    if socks5 is not None and socks5.port:
        seen.add((Protocol.TCP, socks5))
    for tunnel in tunnels:
        place = tunnel.source.protocol, tunnel.target
        if tunnel.target.port and place in seen:
            kind = UsageError if values.file is None else ConfigError
            raise kind(f"{tunnel.target} is the target of two tunnels; choose another port for one")
        seen.add(place)
