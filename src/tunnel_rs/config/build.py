"""Turn merged values into the frozen settings of the features. Nothing below reads a mapping."""

from collections.abc import Iterator
from dataclasses import dataclass

from tunnel_rs.config import schema, transport_options
from tunnel_rs.config.keyfile import read_secret_key
from tunnel_rs.config.kinds import pair
from tunnel_rs.config.option import Option
from tunnel_rs.config.reach import read_reach
from tunnel_rs.config.sources import Rank, Values
from tunnel_rs.config.tables import options_for
from tunnel_rs.config.token_files import read_tokens
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.forward.settings import ClientSettings, ServerSettings, Tunnel
from tunnel_rs.iroh.settings import EndpointSettings
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


def server_settings(values: Values) -> ServerSettings:
    """What clients may do: the part of a server's configuration that can change while it runs.

    Reads the token file. Raises UsageError or ConfigError.
    """
    allowed_tcp, allowed_udp = values.get(schema.ALLOWED_TCP), values.get(schema.ALLOWED_UDP)
    if not allowed_tcp and not allowed_udp:
        advice = ", for example 127.0.0.0/8; without one nothing may be forwarded"
        options = schema.ALLOWED_TCP, schema.ALLOWED_UDP
        raise values.missing("allowed network", *options, advice=advice)
    tokens = auth_tokens(values)
    return ServerSettings(
        allowed_tcp=allowed_tcp,
        allowed_udp=allowed_udp,
        tokens=lambda: tokens,
        max_sessions=values.get(schema.MAX_SESSIONS),
        udp_idle_timeout=values.get(schema.UDP_IDLE_TIMEOUT),
    )


def build_client(values: Values) -> ClientConfig:
    """Check that a client has all it needs, and read its token file.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    server = values.get(schema.SERVER_NODE_ID)
    if server is None:
        advice = " (the server prints it as EndpointId)"
        raise values.missing("server", schema.SERVER_NODE_ID, advice=advice)
    stdio = values.get(schema.STDIO)
    forward = ClientSettings(
        stdio=_stdio_source(values) if stdio else None,
        tunnels=() if stdio else _tunnels(values),
        socks5=values.get(schema.SOCKS5),
        auth_token=auth_token(values),
        # A stream on stdin and stdout cannot be resumed: when the link is lost, it is over.
        reconnect=values.get(schema.RECONNECT) and not stdio,
        connect_timeout=values.get(schema.CONNECT_TIMEOUT),
        udp_idle_timeout=values.get(schema.UDP_IDLE_TIMEOUT),
    )
    return ClientConfig(forward, endpoint_settings(values, None), server)


def exposed_secrets(values: Values) -> tuple[str, ...]:
    """The flags that put a secret on the command line, where all users of a machine see it."""
    origins = [values.origin(option) for option in options_for(values.role) if option.kind.secret]
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
        transport=_transport(values),
    )


def _may_map_ports(values: Values) -> bool:
    """Only where there is the option: a VPN's packets to the router would go into the VPN."""
    return schema.PORT_MAPPING in options_for(values.role) and values.get(schema.PORT_MAPPING)


def _transport(values: Values) -> TransportSettings:
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
    )


def secret_key(values: Values) -> Secret[bytes]:
    key, file = values.get(schema.SECRET), values.get(schema.SECRET_FILE)
    if key is not None:
        return key
    if file is not None:
        return read_secret_key(file)
    advice = "; make one with `tunnel-rs generate-server-key -o FILE`"
    raise values.missing("server key", schema.SECRET_FILE, schema.SECRET, advice=advice)


def auth_tokens(values: Values) -> tuple[Secret[str], ...]:
    tokens, file = values.get(schema.AUTH_TOKENS), values.get(schema.AUTH_TOKENS_FILE)
    if not tokens and file is None:
        advice = "; make one with `tunnel-rs generate-token`"
        options = schema.AUTH_TOKENS, schema.AUTH_TOKENS_FILE
        raise values.missing("auth token", *options, advice=advice)
    from_file = read_tokens(file) if file else ()
    return tuple(dict.fromkeys(tokens + from_file))


def auth_token(values: Values) -> Secret[str]:
    token, file = values.get(schema.AUTH_TOKEN), values.get(schema.AUTH_TOKEN_FILE)
    if token is not None:
        return token
    if file is None:
        raise values.missing("auth token", schema.AUTH_TOKEN_FILE, schema.AUTH_TOKEN)
    tokens = read_tokens(file)
    if len(tokens) > 1:
        raise ConfigError(f"{file}: holds {len(tokens)} tokens; a client needs a file with one")
    return tokens[0]


def _stdio_source(values: Values) -> SourceUrl:
    sources = values.get(schema.SOURCE)
    if not sources:
        raise values.missing("source for --stdio", schema.SOURCE)
    origin = values.origin(schema.SOURCE)
    if len(sources) > 1:
        raise origin.error(f"given {len(sources)} times; --stdio forwards one source")
    if sources[0].protocol is not Protocol.TCP:
        raise origin.error(f"{sources[0]}: --stdio carries a byte stream; use a tcp:// source")
    return sources[0]


def _tunnels(values: Values) -> tuple[Tunnel, ...]:
    tunnels = values.get(schema.TUNNELS) or tuple(_pairs(values))
    if not tunnels and values.get(schema.SOCKS5) is None:
        if values.origin(schema.TUNNELS).rank is not Rank.DEFAULT:
            raise values.origin(schema.TUNNELS).error("is empty; add a tunnel")
        advice = " (or --socks5)"
        raise values.missing("source", schema.SOURCE, advice=advice)
    _refuse_same_target(values, tunnels)
    return tunnels


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
