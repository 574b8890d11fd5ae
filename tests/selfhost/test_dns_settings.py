from ipaddress import IPv4Address, ip_address

import pytest

from tunnel_rs.proto.dns_wire import RecordType
from tunnel_rs.selfhost.dns_settings import DnsServerSettings, DnsSettings


def test_the_defaults_are_servable_and_bind_loopback_only() -> None:
    settings = DnsServerSettings()
    assert settings.dns is not None
    assert settings.http is not None
    zone = settings.dns.zone()
    assert zone.origins == ((b"dns", b"localhost"),)
    assert zone.served_types == {RecordType.TXT}
    assert all(ip_address(bind.ip).is_loopback for bind in (settings.dns.bind, settings.http))


def test_a_zone_is_made_from_the_configured_names() -> None:
    settings = DnsSettings(
        origins=("Example.", "."), rr_a=IPv4Address("192.0.2.1"), rr_ns="NS.example."
    )
    zone = settings.zone()
    assert zone.origins == ((b"example",), ())
    assert zone.ns == (b"ns", b"example")


@pytest.mark.parametrize(
    "settings",
    [
        DnsSettings(origins=("a..b",)),
        DnsSettings(default_soa="nonsense"),
        DnsSettings(rr_ns="x" * 64),
        DnsSettings(default_ttl=-1),
        DnsSettings(served_types=("TXT", "MX")),
    ],
)
def test_what_cannot_be_served_is_refused(settings: DnsSettings) -> None:
    with pytest.raises(ValueError):
        settings.zone()
