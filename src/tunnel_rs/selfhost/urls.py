"""What users of a server have to type to reach it."""

from collections.abc import Sequence
from ipaddress import ip_address

from cryptography import x509

from tunnel_rs.net.interfaces import Interface
from tunnel_rs.values import HostPort, SocketAddr

_MAX_URLS = 4


def server_urls(
    scheme: str, bound: SocketAddr, names: Sequence[str], interfaces: Sequence[Interface]
) -> tuple[str, ...]:
    """URLs of a listener by its `names`; without one, by its address, or those of this machine
    when it is bound to all of them (loopback only when there is no other)."""
    hosts = list(names) or _hosts(bound, interfaces)
    default = {"http": 80, "https": 443}[scheme]
    urls = []
    for host in hosts[:_MAX_URLS]:
        place = str(HostPort(host, bound.port))
        if bound.port == default:
            place = place.removesuffix(f":{default}")
        urls.append(f"{scheme}://{place}/")
    return tuple(urls)


def _hosts(bound: SocketAddr, interfaces: Sequence[Interface]) -> list[str]:
    wildcard = ip_address(bound.ip)
    if not wildcard.is_unspecified:
        return [bound.ip]
    # `::` serves IPv4 too.
    families = {4, 6} if wildcard.version == 6 else {4}
    ips = [ip for each in interfaces for ip in each.ips if ip.version in families]
    elsewhere = [str(ip) for ip in ips if not ip.is_loopback]
    return elsewhere or ["127.0.0.1"]


def certificate_names(pem: bytes) -> tuple[str, ...]:
    """The host names a certificate is for, wildcards left out; empty when it cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return ()
    found = names.value.get_values_for_type(x509.DNSName)
    return tuple(name for name in found if not name.startswith("*"))
