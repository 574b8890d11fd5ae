"""Turn merged values of `tunnel-rs-ice` into the frozen settings of the features."""

from dataclasses import dataclass, replace
from pathlib import Path

from tunnel_rs.config import ice_schema as schema
from tunnel_rs.config import schema as shared
from tunnel_rs.config.build import allowed_networks, stdio_source, transport, tunnels
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.nostr_keyfile import read_nostr_key
from tunnel_rs.config.sources import Values
from tunnel_rs.config.transport_options import SEND_WINDOW
from tunnel_rs.errors import UsageError
from tunnel_rs.forward.settings import ClientSettings, ServerSettings
from tunnel_rs.ice.settings import ClientRequest, NostrSettings, SessionSettings
from tunnel_rs.net.ice_gather import IceServers
from tunnel_rs.proto.access import AccessList
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import SourceUrl

MAX_STREAMS = 1000
"""Connections and UDP flows that a server forwards at a time: 100 for each of ten sessions, which
is what the original's clients may open."""

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


def build_server(values: Values) -> IceServerConfig:
    """Check that a server has all it needs, and read its key file.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    mode = Mode(values.mode)
    return IceServerConfig(
        mode, server_settings(values), _session(values), _exchange(values), _nostr(values, mode)
    )


def server_settings(values: Values) -> ServerSettings:
    """What the client may do: the part of the configuration that can change while a server runs,
    with `max_sessions` below. Raises UsageError or ConfigError."""
    allowed_tcp, allowed_udp = allowed_networks(values)
    return ServerSettings(
        allowed_tcp=allowed_tcp,
        allowed_udp=allowed_udp,
        access=AccessList(),
        max_sessions=MAX_STREAMS,
        udp_idle_timeout=values.get(shared.UDP_IDLE_TIMEOUT),
    )


def max_sessions(values: Values) -> int:
    """Sessions a server has at a time; 0: no limit of its own."""
    return values.get(schema.MAX_SESSIONS)


def build_client(values: Values) -> IceClientConfig:
    """Check that a client has all it needs, and read its key file.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    mode = Mode(values.mode)
    stdio = _stdio_source(values, mode) if values.get(shared.STDIO) else None
    to_listen = () if stdio else tunnels(values)
    socks5 = values.get(shared.SOCKS5)
    session = _session(values)
    nostr = _nostr(values, mode)
    patience = MANUAL_PATIENCE if nostr is None else nostr.max_wait
    forward = ClientSettings(
        auth_token=None,
        stdio=stdio,
        tunnels=to_listen,
        socks5=socks5,
        # People carry the blocks of manual mode: they have to start again by themselves.
        reconnect=mode is Mode.NOSTR and values.get(shared.RECONNECT) and not stdio,
        eager=False,  # each attempt is an event that Nostr relays pass on
        connect_timeout=patience + session.connect_timeout + _SIGNALLING_GRACE,
        pending_timeout=max(30.0, patience) if mode is Mode.MANUAL or stdio else 30.0,
        udp_idle_timeout=values.get(shared.UDP_IDLE_TIMEOUT),
    )
    source = stdio or (to_listen[0].source if to_listen else None)
    several = len({tunnel.source for tunnel in to_listen}) > 1
    request = ClientRequest(source, needs_requests=several or socks5 is not None)
    return IceClientConfig(mode, forward, request, session, _exchange(values), nostr)


def _session(values: Values) -> SessionSettings:
    stun = () if values.get(schema.NO_STUN) else values.get(schema.STUN_SERVERS)
    settings = transport(values)
    if values.get(SEND_WINDOW) is None:
        # As the original: a small receive window does not make a small send window.
        send_window = max(TransportSettings().send_window, settings.receive_window)
        settings = replace(settings, send_window=send_window)
    return SessionSettings(
        servers=IceServers(stun, values.get(schema.TURN_SERVERS)),
        transport=settings,
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
        max_sessions=max_sessions(values),
        encryption=values.get(schema.ENCRYPTION),
        kind=values.get(schema.EVENT_KIND),
    )


def _stdio_source(values: Values, mode: Mode) -> SourceUrl:
    source = stdio_source(values)
    files = values.get(schema.OFFER_FILE), values.get(schema.ANSWER_FILE)
    if mode is Mode.MANUAL and None in files:
        raise UsageError(
            "--stdio: stdin and stdout carry the stream, so the blocks need --offer-file and "
            "--answer-file"
        )
    return source
