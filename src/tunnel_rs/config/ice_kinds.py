"""How values are written that only `tunnel-rs-ice` has."""

from urllib.parse import urlsplit

from tunnel_rs.config.kinds import Kind, text, texts
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.proto.ice_servers import TurnServer, parse_turn_server
from tunnel_rs.proto.nostr_keys import NostrPublicKey, NostrSecretKey
from tunnel_rs.proto.signalling import Encryption
from tunnel_rs.values import check_host, quoted

MAX_URL = 512


def _parse_relay(given: str) -> str:
    """A ws:// or wss:// URL, without credentials and fragment."""
    advice = "write ws://host or wss://host"
    if len(given) > MAX_URL or not given.isascii() or not given.isprintable() or " " in given:
        raise ValueError(f"{quoted(given)} is not the URL of a Nostr relay; {advice}")
    parts = urlsplit(given)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{quoted(given)} is not the URL of a Nostr relay; {advice}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("the URL of a Nostr relay has no user, password or #fragment")
    check_host(parts.hostname)
    _check_port(given)
    return given


def _check_port(url: str) -> None:
    try:
        good = urlsplit(url).port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{quoted(url)}: the port is not a number from 1 to 65535")


def _parse_encryption(given: str) -> Encryption:
    known = [each.value for each in Encryption]
    if given not in known:
        raise ValueError(
            f"{quoted(given)} is not one of {', '.join(known)}{did_you_mean(given, known)}"
        )
    return Encryption(given)


TURN_SERVERS: Kind[tuple[TurnServer, ...]] = texts(
    "turn:user:password@host", parse_turn_server, secret=True
)
RELAYS: Kind[tuple[str, ...]] = texts("a ws:// or wss:// URL", _parse_relay)
NSEC: Kind[NostrSecretKey] = text("nsec1... or 64 hex digits", NostrSecretKey.parse, secret=True)
NPUB: Kind[NostrPublicKey] = text("npub1... or 64 hex digits", NostrPublicKey.parse)
ENCRYPTION: Kind[Encryption] = text("off, auto or required", _parse_encryption)
