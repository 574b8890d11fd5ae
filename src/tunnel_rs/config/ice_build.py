"""Turn merged values of `tunnel-rs-ice` into the frozen settings of the features."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunnel_rs.config import ice_schema as schema
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.kinds import pair
from tunnel_rs.config.nostr_keyfile import read_nostr_key
from tunnel_rs.config.option import Option
from tunnel_rs.config.sources import Rank, Values
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.forward.settings import ClientSettings, ServerSettings, Tunnel
from tunnel_rs.ice.settings import ClientRequest, NostrSettings, SessionSettings
from tunnel_rs.net.ice_gather import IceServers
from tunnel_rs.proto.access import AccessList
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import HostPort, Protocol, SourceUrl

MANUAL_PATIENCE = 3600.0
"""Seconds a client waits for somebody to paste the answer."""

_SIGNALLING_GRACE = 15.0
"""Seconds to gather candidates, and for the QUIC handshake, beside signalling and ICE."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """How manual blocks are carried; None is the terminal."""

    offer_file: Path | None
    answer_file: Path | None
    qr: bool


@dataclass(frozen=True, slots=True)
class IceServerConfig:
    """Everything `tunnel-rs-ice server` runs with. `nostr` is None in manual mode."""

    mode: Mode
    forward: ServerSettings
    session: SessionSettings
    exchange: Exchange
    nostr: NostrSettings | None


@dataclass(frozen=True, slots=True)
class IceClientConfig:
    """Everything `tunnel-rs-ice client` runs with. `nostr` is None in manual mode."""

    mode: Mode
    forward: ClientSettings
    request: ClientRequest
    session: SessionSettings
    exchange: Exchange
    nostr: NostrSettings | None


def build_server(values: Values, mode: Mode) -> IceServerConfig:
    """Check that a server has all it needs, and read its key file.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    return IceServerConfig(
        mode, server_settings(values), _session(values), _exchange(values), _nostr(values, mode)
    )


def server_settings(values: Values) -> ServerSettings:
    """What the client may do. Raises UsageError or ConfigError."""
    allowed_tcp, allowed_udp = values.get(schema.ALLOWED_TCP), values.get(schema.ALLOWED_UDP)
    if not allowed_tcp and not allowed_udp:
        advice = ", for example 127.0.0.0/8; without one nothing may be forwarded"
        options = schema.ALLOWED_TCP, schema.ALLOWED_UDP
        raise values.missing("allowed network", *options, advice=advice)
    return ServerSettings(
        allowed_tcp=allowed_tcp,
        allowed_udp=allowed_udp,
        access=AccessList(),
        udp_idle_timeout=values.get(schema.UDP_IDLE_TIMEOUT),
    )


def build_client(values: Values, mode: Mode) -> IceClientConfig:
    """Check that a client has all it needs, and read its key file.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    stdio = values.get(schema.STDIO)
    stdio_source = _stdio_source(values, mode) if stdio else None
    tunnels = () if stdio else _tunnels(values)
    socks5 = values.get(schema.SOCKS5)
    session = _session(values)
    nostr = _nostr(values, mode)
    patience = MANUAL_PATIENCE if nostr is None else nostr.max_wait
    forward = ClientSettings(
        auth_token=None,
        stdio=stdio_source,
        tunnels=tunnels,
        socks5=socks5,
        # People carry the blocks of manual mode: they have to start again by themselves.
        reconnect=mode is Mode.NOSTR and values.get(schema.RECONNECT) and not stdio,
        connect_timeout=patience + session.connect_timeout + _SIGNALLING_GRACE,
        pending_timeout=max(30.0, patience) if mode is Mode.MANUAL or stdio else 30.0,
        udp_idle_timeout=values.get(schema.UDP_IDLE_TIMEOUT),
    )
    source = stdio_source or (tunnels[0].source if tunnels else None)
    several = len({tunnel.source for tunnel in tunnels}) > 1
    request = ClientRequest(source, needs_requests=several or socks5 is not None)
    return IceClientConfig(mode, forward, request, session, _exchange(values), nostr)


def _session(values: Values) -> SessionSettings:
    stun = () if values.get(schema.NO_STUN) else values.get(schema.STUN_SERVERS)
    receive_window = values.get(schema.RECEIVE_WINDOW)
    send_window = values.get(schema.SEND_WINDOW)
    default = TransportSettings().send_window
    transport = TransportSettings(
        congestion_controller=values.get(schema.CONGESTION),
        receive_window=receive_window,
        send_window=max(default, receive_window) if send_window is None else send_window,
    )
    return SessionSettings(
        servers=IceServers(stun, values.get(schema.TURN_SERVERS)),
        transport=transport,
        connect_timeout=values.get(schema.CONNECT_TIMEOUT),
    )


def _exchange(values: Values) -> Exchange:
    return Exchange(
        values.get(schema.OFFER_FILE), values.get(schema.ANSWER_FILE), values.get(schema.QR)
    )


def _nostr(values: Values, mode: Mode) -> NostrSettings | None:
    if mode is not Mode.NOSTR:
        return None
    peer = values.get(schema.PEER_NPUB)
    key, file = values.get(schema.NSEC), values.get(schema.NSEC_FILE)
    if key is None and file is None:
        advice = "; make one with `tunnel-rs-ice generate-nostr-key -o FILE`"
        raise values.missing("Nostr key", schema.NSEC_FILE, schema.NSEC, advice=advice)
    if peer is None:
        advice = " (the other side prints it; `tunnel-rs-ice show-npub` does too)"
        raise values.missing("npub of the other side", schema.PEER_NPUB, advice=advice)
    if key is None:
        assert file is not None
        key = read_nostr_key(file)
    if key.public_key == peer:
        raise values.origin(schema.PEER_NPUB).error(
            "is our own key; each side needs a key of its own, and the npub of the other"
        )
    relays = values.get(schema.RELAYS)
    if not relays:
        raise values.origin(schema.RELAYS).error("is empty; name a relay that both sides use")
    return NostrSettings(
        key=key,
        peer=peer,
        relays=tuple(dict.fromkeys(relays)),
        republish_interval=values.get(schema.REPUBLISH_INTERVAL),
        max_wait=values.get(schema.MAX_WAIT),
        max_sessions=values.get(schema.MAX_SESSIONS),
        encryption=values.get(schema.ENCRYPTION),
    )


def _stdio_source(values: Values, mode: Mode) -> SourceUrl:
    sources = values.get(schema.SOURCE)
    if not sources:
        raise values.missing("source for --stdio", schema.SOURCE)
    origin = values.origin(schema.SOURCE)
    if len(sources) > 1:
        raise origin.error(f"given {len(sources)} times; --stdio forwards one source")
    if sources[0].protocol is not Protocol.TCP:
        raise origin.error(f"{sources[0]}: --stdio carries a byte stream; use a tcp:// source")
    files = values.get(schema.OFFER_FILE), values.get(schema.ANSWER_FILE)
    if mode is Mode.MANUAL and None in files:
        raise UsageError(
            "--stdio: stdin and stdout carry the stream, so the blocks need --offer-file and "
            "--answer-file"
        )
    return sources[0]


def _tunnels(values: Values) -> tuple[Tunnel, ...]:
    tunnels = values.get(schema.TUNNELS) or tuple(_pairs(values))
    if not tunnels and values.get(schema.SOCKS5) is None:
        raise values.missing("source", schema.SOURCE, advice=" (or --socks5)")
    seen: set[tuple[Protocol, HostPort]] = set()
    for tunnel in tunnels:
        place = tunnel.source.protocol, tunnel.target
        if tunnel.target.port and place in seen:
            kind = UsageError if values.file is None else ConfigError
            raise kind(f"{tunnel.target} is the target of two tunnels; choose another port for one")
        seen.add(place)
    return tunnels


def _pairs(values: Values) -> Iterator[Tunnel]:
    sources, targets = values.get(schema.SOURCE), values.get(schema.TARGET)
    if sources and not targets:
        raise values.missing("target", schema.TARGET, advice=" (host:port to listen on)")
    if targets and not sources:
        raise values.missing("source", schema.SOURCE, advice=" (tcp://host:port)")
    if len(sources) != len(targets):
        longer: Option[object] = schema.SOURCE if len(sources) > len(targets) else schema.TARGET
        raise _unpaired(values, longer)
    for source, target in zip(sources, targets, strict=True):
        try:
            yield pair(source, target)
        except ValueError as error:
            raise values.origin(schema.TARGET).error(str(error)) from None


def _unpaired(values: Values, longer: Option[object]) -> TunnelError:
    sources, targets = len(values.get(schema.SOURCE)), len(values.get(schema.TARGET))
    return values.origin(longer).error(
        f"{sources} source(s), {targets} target(s); give one --target for each --source, in order"
    )


def exposed_secrets(values: Values) -> tuple[str, ...]:
    """The flags that put a secret on the command line, where all users of a machine see it."""
    origins = [values.origin(o) for o in schema.all_options(values.role) if o.kind.secret]
    return tuple(origin.where for origin in origins if origin.rank is Rank.COMMAND_LINE)
