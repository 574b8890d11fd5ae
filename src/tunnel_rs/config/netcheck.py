"""What `tunnel-rs netcheck` looks at, from its options and the environment."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tunnel_rs.config.kinds import NO_RELAYS
from tunnel_rs.errors import UsageError
from tunnel_rs.iroh.discovery_settings import NO_DISCOVERY, choose_discovery
from tunnel_rs.iroh.netcheck import MAX_RELAYS, MAX_STUN_SERVERS, NetcheckSettings
from tunnel_rs.proto.iroh_defaults import public_infrastructure
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.stun import DEFAULT_PORT
from tunnel_rs.values import HostPort

S = TypeVar("S")
T = TypeVar("T")


def build_netcheck(
    *,
    relay_urls: Sequence[str],
    dns_server: str | None,
    stun_servers: Sequence[str],
    ca_file: Path | None,
    qad_port: int,
    offline: bool,
    environ: Mapping[str, str],
) -> NetcheckSettings:
    """What is not named is what a server or client would use, the public infrastructure of iroh;
    with `offline`, nothing. Raises UsageError."""
    infrastructure = public_infrastructure(environ)
    if offline and dns_server is None:
        dns_server = NO_DISCOVERY
    relays = _relays(relay_urls, () if offline else infrastructure.relay_urls)
    _limit("--relay-url", relays, MAX_RELAYS)
    _limit("--stun-server", stun_servers, MAX_STUN_SERVERS)
    return NetcheckSettings(
        relays=tuple(_read("--relay-url", RelayUrl.parse, url) for url in relays),
        discovery=_read(
            "--dns-server",
            lambda text: choose_discovery(text, infrastructure, publish=True, ca_file=ca_file),
            dns_server,
        ),
        stun_servers=tuple(_read("--stun-server", _stun_server, text) for text in stun_servers),
        ca_file=ca_file,
        qad_port=qad_port,
    )


def _relays(given: Sequence[str], default: Sequence[str]) -> Sequence[str]:
    if NO_RELAYS in given:
        if len(given) > 1:
            raise UsageError(f"--relay-url: {NO_RELAYS!r} cannot be given beside a URL")
        return ()
    return given or default


def _read(flag: str, parse: Callable[[S], T], text: S) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _stun_server(text: str) -> HostPort:
    """`host`, `host:port`, `[v6]:port`, with or without `stun:` before it (RFC 7064)."""
    place = text.removeprefix("stun:")
    has_port = "]:" in place if place.startswith("[") else ":" in place
    return HostPort.parse(place if has_port else f"{place}:{DEFAULT_PORT}")


def _limit(flag: str, given: Sequence[str], most: int) -> None:
    if len(given) > most:
        raise UsageError(f"{flag}: given {len(given)} times; {most} is the limit")
