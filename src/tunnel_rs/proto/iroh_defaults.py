"""The public infrastructure that iroh 1.x uses unless told otherwise (specs `relay.md` section 6,
`discovery.md` sections 3 and 4)."""

from collections.abc import Mapping
from dataclasses import dataclass

STAGING_VARIABLE = "IROH_FORCE_STAGING_RELAYS"
"""Environment variable; any non-empty value selects the staging infrastructure."""


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """Relays and discovery that belong together. Host names of relays end in a dot."""

    relay_urls: tuple[str, ...]
    pkarr_url: str
    """Base URL of the pkarr relay; the z-base-32 id is appended as one path segment."""

    dns_origin: str
    """TXT records are looked up under `_iroh.<z32 id>.<origin>`."""


PRODUCTION = Infrastructure(
    relay_urls=(
        "https://use1-1.relay.n0.iroh.link./",
        "https://usw1-1.relay.n0.iroh.link./",
        "https://euc1-1.relay.n0.iroh.link./",
        "https://aps1-1.relay.n0.iroh.link./",
    ),
    pkarr_url="https://dns.iroh.link/pkarr",
    dns_origin="dns.iroh.link.",
)

STAGING = Infrastructure(
    relay_urls=(
        "https://use1-1.staging-relay.n0.iroh.link./",
        "https://euc1-1.staging-relay.n0.iroh.link./",
    ),
    pkarr_url="https://staging-dns.iroh.link/pkarr",
    dns_origin="staging-dns.iroh.link.",
)


def public_infrastructure(environment: Mapping[str, str]) -> Infrastructure:
    """What a process with this environment uses by default."""
    return STAGING if environment.get(STAGING_VARIABLE) else PRODUCTION
