"""Which internet discovery an endpoint uses (spec `discovery.md` section 5)."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tunnel_rs.proto.iroh_defaults import Infrastructure
from tunnel_rs.values import HostPort, SocketAddr

NO_DISCOVERY = "none"
"""The value of `--dns-server` that turns internet discovery off."""


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """Where to publish and where to ask. All None: not one packet leaves for discovery."""

    publish_url: str | None = None
    """pkarr base URL that our record is PUT to."""

    resolve_url: str | None = None
    """pkarr base URL that records are fetched from."""

    dns_origin: str | None = None
    """Domain that records are looked up under, as TXT."""

    publish_direct_addresses: bool = False
    """Publish our IP addresses too, not only the relay. They let anybody who knows the id see
    where we are; peers on networks without relay find us."""

    nameservers: tuple[SocketAddr, ...] = ()
    """DNS servers to ask. Empty: the system's."""

    ca_file: Path | None = None
    """PEM file of certificates trusted beside the system's, for a pkarr URL of one's own."""

    @property
    def asked(self) -> str:
        """What is asked for records, for people; empty when nothing is."""
        return self.resolve_url or (self.dns_origin or "").rstrip(".")


def choose_discovery(
    dns_server: str | None,
    infrastructure: Infrastructure,
    *,
    publish: bool,
    publish_direct_addresses: bool = False,
    ca_file: Path | None = None,
) -> DiscoverySettings:
    """What `--dns-server` means: absent (None) the public servers, `none` nothing, else a pkarr
    base URL for both directions, without any DNS look-up of records.

    `publish`: whether others are to find us, which takes a lasting key. Raises ValueError.
    """
    if dns_server == NO_DISCOVERY:
        return DiscoverySettings()
    if dns_server is None:
        return DiscoverySettings(
            publish_url=infrastructure.pkarr_url if publish else None,
            dns_origin=infrastructure.dns_origin,
            publish_direct_addresses=publish_direct_addresses,
            ca_file=ca_file,
        )
    url = parse_pkarr_url(dns_server)
    return DiscoverySettings(
        publish_url=url if publish else None,
        resolve_url=url,
        publish_direct_addresses=publish_direct_addresses,
        ca_file=ca_file,
    )


def parse_pkarr_url(text: str) -> str:
    """Check a pkarr base URL, path included; without slash at the end. Raises ValueError."""
    if not text.isascii() or any(c <= " " for c in text):
        raise ValueError("a pkarr URL has only visible ASCII characters")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not a URL like https://host/pkarr (or the word none)")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a pkarr URL has no user, query or fragment; write https://host/pkarr")
    bracketed = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    HostPort.parse(f"{bracketed}:{parts.port if parts.port is not None else 1}")
    path = parts.path.rstrip("/")
    if not path:
        raise ValueError(f"{text!r} has no path; most servers want {text.rstrip('/')}/pkarr")
    return parts._replace(path=path).geturl()
