"""Every option of `tunnel-rs-ice`, for both modes (spec `ice.md` section 2, `cli.md`).

What is as in `tunnel-rs` comes from its table. Keys are relative to the table of the mode,
`[manual]` or `[nostr]`: see `options_for`.
"""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from tunnel_rs.config import ice_kinds, kinds, schema
from tunnel_rs.config.operation_options import OPERATIONS
from tunnel_rs.config.option import BOTH, SERVER, Exclusion, Option, Refused, Role
from tunnel_rs.config.transport_options import TRANSPORT
from tunnel_rs.proto.ice_servers import DEFAULT_STUN_SERVERS, TurnServer
from tunnel_rs.proto.nostr_events import KIND
from tunnel_rs.proto.nostr_keys import NostrPublicKey, NostrSecretKey
from tunnel_rs.proto.signalling import Encryption
from tunnel_rs.values import HostPort


class Mode(StrEnum):
    """How the two sides are introduced; the values of `mode` in a file."""

    MANUAL = "manual"
    NOSTR = "nostr"


DEFAULT_RELAYS = (
    "wss://nos.lol",
    "wss://relay.nostr.net",
    "wss://relay.primal.net",
    "wss://relay.snort.social",
)

STUN_SERVERS: Option[tuple[HostPort, ...]] = Option(
    "stun_servers",
    kinds.STUN_SERVERS,
    DEFAULT_STUN_SERVERS,
    BOTH,
    "STUN server that tells our address as seen from outside; all are asked at once.",
    key="stun_servers",
    flags=("--stun-server",),
    metavar="HOST:PORT",
)
NO_STUN: Option[bool] = Option(
    "no_stun",
    kinds.SWITCH,
    False,
    BOTH,
    "Ask no STUN server: for local networks, VPNs and public addresses.",
    flags=("--no-stun",),
)
TURN_SERVERS: Option[tuple[TurnServer, ...]] = Option(
    "turn_servers",
    ice_kinds.TURN_SERVERS,
    (),
    BOTH,
    "TURN server to relay through when there is no direct way; ?transport=tcp, turns: for TLS.",
    key="turn_servers",
    flags=("--turn-server",),
    metavar="URL",
    variable="TUNNEL_RS_TURN_SERVERS",
)
OFFER_FILE: Option[Path | None] = Option(
    "offer_file",
    kinds.FILE,
    None,
    BOTH,
    "A file or pipe for the offer: the client writes it, the server waits for it.",
    flags=("--offer-file",),
    metavar="FILE",
)
ANSWER_FILE: Option[Path | None] = Option(
    "answer_file",
    kinds.FILE,
    None,
    BOTH,
    "A file or pipe for the answer: the server writes it, the client waits for it.",
    flags=("--answer-file",),
    metavar="FILE",
)
QR: Option[bool] = Option(
    "qr",
    kinds.SWITCH,
    False,
    BOTH,
    "Show the block as a QR code on stderr too, when it fits the terminal.",
    flags=("--qr",),
)
NSEC: Option[NostrSecretKey | None] = Option(
    "nsec",
    ice_kinds.NSEC,
    None,
    BOTH,
    "Our Nostr key itself; --nsec-file keeps it out of the process list.",
    key="nsec",
    flags=("--nsec",),
    metavar="NSEC",
    variable="TUNNEL_RS_NSEC",
)
NSEC_FILE: Option[Path | None] = Option(
    "nsec_file",
    kinds.FILE,
    None,
    BOTH,
    "File with our Nostr key, from `tunnel-rs-ice generate-nostr-key`.",
    key="nsec_file",
    flags=("--nsec-file",),
    metavar="FILE",
    variable="TUNNEL_RS_NSEC_FILE",
)
PEER_NPUB: Option[NostrPublicKey | None] = Option(
    "peer_npub",
    ice_kinds.NPUB,
    None,
    BOTH,
    "The other side's public Nostr key; nobody else is listened to.",
    key="peer_npub",
    flags=("--peer-npub",),
    metavar="NPUB",
)
RELAYS: Option[tuple[str, ...]] = Option(
    "relays",
    ice_kinds.RELAYS,
    DEFAULT_RELAYS,
    BOTH,
    "Nostr relay; one that both sides have is enough.",
    key="relays",
    flags=("--relay",),
    metavar="URL",
)
REPUBLISH_INTERVAL: Option[float] = Option(
    "republish_interval",
    kinds.seconds(0.5, 3600),
    5.0,
    BOTH,
    "Seconds until a client repeats its request; doubles each time. Not used by a server.",
    key="republish_interval",
    flags=("--republish-interval",),
    metavar="SECONDS",
)
MAX_WAIT: Option[float] = Option(
    "max_wait",
    kinds.seconds(1, 86_400),
    120.0,
    BOTH,
    "Seconds a client waits for the server to answer its request. Not used by a server.",
    key="max_wait",
    flags=("--max-wait",),
    metavar="SECONDS",
)
MAX_SESSIONS: Option[int] = Option(
    "max_sessions",
    kinds.integer(0, 10_000),
    10,
    SERVER,
    "Sessions at a time; 0 means as many as there are requests.",
    key="max_sessions",
    flags=("--max-sessions",),
    metavar="N",
)
ENCRYPTION: Option[Encryption] = Option(
    "signaling_encryption",
    ice_kinds.ENCRYPTION,
    Encryption.AUTO,
    BOTH,
    "Whether relays can read what is signalled: off, auto, or required (needs this program there).",
    key="signaling_encryption",
    flags=("--signaling-encryption",),
    metavar="WHEN",
)
EVENT_KIND: Option[int] = Option(
    "event_kind",
    kinds.integer(20_000, 29_999),
    KIND,
    BOTH,
    "Kind of the Nostr events, the same on both sides; another than the original's for relays that "
    "block it.",
    key="event_kind",
)
CONNECT_TIMEOUT: Option[float] = Option(
    "connect_timeout",
    kinds.seconds(1, 600),
    30.0,
    BOTH,
    "Seconds that ICE may take once both sides know each other's addresses.",
    key="connect_timeout",
    flags=("--connect-timeout",),
    metavar="SECONDS",
)

_COMMON: tuple[Option[object], ...] = (
    schema.SOURCE,
    schema.TARGET,
    schema.TUNNELS,
    schema.SOCKS5,
    schema.STDIO,
    schema.ALLOWED_TCP,
    schema.ALLOWED_UDP,
    STUN_SERVERS,
    NO_STUN,
    TURN_SERVERS,
    CONNECT_TIMEOUT,
    schema.UDP_IDLE_TIMEOUT,
    *OPERATIONS,
    *TRANSPORT,
)
_MANUAL: tuple[Option[object], ...] = (OFFER_FILE, ANSWER_FILE, QR)
_NOSTR: tuple[Option[object], ...] = (
    NSEC,
    NSEC_FILE,
    PEER_NPUB,
    RELAYS,
    REPUBLISH_INTERVAL,
    MAX_WAIT,
    MAX_SESSIONS,
    ENCRYPTION,
    EVENT_KIND,
    schema.RECONNECT,
)
_OF_MODE = {Mode.MANUAL: _MANUAL, Mode.NOSTR: _NOSTR}

EXCLUSIONS = (
    Exclusion(schema.SOURCE, schema.TUNNELS),
    Exclusion(schema.TARGET, schema.TUNNELS),
    Exclusion(schema.STDIO, schema.TARGET),
    Exclusion(schema.STDIO, schema.TUNNELS),
    Exclusion(schema.STDIO, schema.SOCKS5),
    Exclusion(NSEC, NSEC_FILE),
    Exclusion(STUN_SERVERS, NO_STUN),
)


def options_for(role: Role, mode: Mode) -> tuple[Option[object], ...]:
    """The options one side has in one mode, with their full keys."""
    return tuple(
        _in_table(option, role, mode) for option in _COMMON + _OF_MODE[mode] if role in option.roles
    )


def all_options(role: Role) -> tuple[Option[object], ...]:
    """The options one side has in any mode, for the command line."""
    return tuple(option for option in _COMMON + _MANUAL + _NOSTR if role in option.roles)


def modes_of(name: str) -> tuple[Mode, ...]:
    """The modes that have the option `name`."""
    if any(option.name == name for option in _COMMON):
        return tuple(Mode)
    return tuple(mode for mode, options in _OF_MODE.items() if name in [o.name for o in options])


def refused(mode: Mode) -> tuple[Refused, ...]:
    """Keys that a file of `mode` may not hold although there are such."""
    others = (other for other in Mode if other is not mode)
    return tuple(Refused(f'this file has mode = "{mode}"; remove the table', o) for o in others)


def _in_table(option: Option[object], role: Role, mode: Mode) -> Option[object]:
    """`option` with its keys in the table of `mode`; those shared with `tunnel-rs` are written as
    in its table."""
    aliases = tuple(_moved(alias, mode) for alias in option.aliases)
    if option is schema.SOURCE and role is Role.CLIENT:
        aliases += ("source",)
    key = _moved(option.key, mode) if option.key else None
    doc = option.doc.replace(f"[[{schema.MODE}.", f"[[{mode}.")
    return replace(option, key=key, aliases=aliases, doc=doc)


def _moved(key: str, mode: Mode) -> str:
    return f"{mode}.{key.removeprefix(f'{schema.MODE}.')}"
