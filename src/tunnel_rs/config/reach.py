"""Which relays and which discovery a server or client uses."""

from dataclasses import dataclass

from tunnel_rs.config import schema
from tunnel_rs.config.files import read_text
from tunnel_rs.config.kinds import RELAY_TOKEN
from tunnel_rs.config.sources import Values
from tunnel_rs.errors import ConfigError, UsageError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings, choose_discovery
from tunnel_rs.proto.iroh_defaults import PRODUCTION, STAGING, Infrastructure
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import Secret

MAX_RELAYS = 16
"""Relays a user may name: all are measured, and a client asks at all of them."""


@dataclass(frozen=True, slots=True)
class Reach:
    """By which infrastructure peers find and reach each other; see `EndpointSettings`."""

    relays: tuple[RelayUrl, ...]
    public_relays: bool
    relay_only: bool
    discovery: DiscoverySettings


def read_reach(values: Values) -> Reach:
    """Take the options about relays and discovery together. Raises UsageError or ConfigError."""
    infrastructure = STAGING if values.get(schema.STAGING) else PRODUCTION
    relay_only = values.get(schema.RELAY_ONLY)
    given = _given_relays(values)
    if relay_only and not given:
        raise UsageError("--relay-only: needs a relay of your own; give --relay-url")
    return Reach(
        relays=_public(infrastructure) if given is None else given,
        public_relays=given is None,
        relay_only=relay_only,
        discovery=DiscoverySettings() if relay_only else _discovery(values, infrastructure),
    )


def _public(infrastructure: Infrastructure) -> tuple[RelayUrl, ...]:
    return tuple(map(RelayUrl.parse, infrastructure.relay_urls))


def _given_relays(values: Values) -> tuple[RelayUrl, ...] | None:
    """The user's relays, with their access tokens; none at all (empty), or None: not given."""
    listed = values.get(schema.RELAY_URLS)
    relays = tuple(dict.fromkeys(relay for relay in listed if relay is not None))
    token = _token(values)
    if listed and len(relays) < len(set(listed)) and relays:
        raise values.origin(schema.RELAY_URLS).error("none cannot be given beside a relay")
    if len(relays) > MAX_RELAYS:
        raise values.origin(schema.RELAY_URLS).error(f"more than {MAX_RELAYS} relays")
    if token is not None and not relays:
        raise values.missing("relay that the access token is for", schema.RELAY_URLS)
    if not listed:
        return None
    # Only to the relays named beside it: a record of a stranger may name any other.
    return tuple(relay if relay.token else relay._replace(token=token) for relay in relays)


def _token(values: Values) -> Secret[str] | None:
    file = values.get(schema.RELAY_TOKEN_FILE)
    if file is None:
        return values.get(schema.RELAY_TOKEN)
    try:
        return RELAY_TOKEN.from_texts([read_text(file).strip()])
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None


def _discovery(values: Values, infrastructure: Infrastructure) -> DiscoverySettings:
    return choose_discovery(
        values.get(schema.DNS_SERVER),
        infrastructure,
        publish=values.role.is_server,
        publish_direct_addresses=values.get(schema.PUBLISH_DIRECT),
        ca_file=values.get(schema.DNS_SERVER_CA_FILE),
    )
