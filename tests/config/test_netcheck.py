from pathlib import Path
from typing import Any

import pytest

from tunnel_rs.config.netcheck import build_netcheck
from tunnel_rs.errors import UsageError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.netcheck import NetcheckSettings
from tunnel_rs.proto.iroh_defaults import PRODUCTION, STAGING
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import HostPort


def build(environ: dict[str, str] | None = None, **given: Any) -> NetcheckSettings:
    nothing: dict[str, Any] = {
        "relay_urls": (),
        "dns_server": None,
        "stun_servers": (),
        "ca_file": None,
        "qad_port": 7842,
        "offline": False,
    }
    return build_netcheck(environ=environ or {}, **{**nothing, **given})


@pytest.mark.parametrize(
    ("environ", "public"), [({}, PRODUCTION), ({"IROH_FORCE_STAGING_RELAYS": "1"}, STAGING)]
)
def test_what_is_not_named_is_what_a_server_would_use(environ: dict[str, str], public: Any) -> None:
    settings = build(environ)
    assert tuple(relay.text for relay in settings.relays) == public.relay_urls
    assert settings.discovery.publish_url == public.pkarr_url
    assert settings.discovery.dns_origin == public.dns_origin
    assert settings.stun_servers == ()


def test_offline_nobody_is_contacted_but_those_who_are_named() -> None:
    assert build(offline=True) == NetcheckSettings()
    settings = build(offline=True, relay_urls=("http://r.example/",), stun_servers=("s.example",))
    assert settings.relays == (RelayUrl.parse("http://r.example/"),)
    assert settings.discovery == DiscoverySettings()
    own = build(offline=True, dns_server="http://d.example/pkarr")
    assert own.relays == ()
    assert own.discovery.resolve_url == "http://d.example/pkarr"


def test_default_relays_are_not_contacted_beside_ones_own() -> None:
    settings = build(relay_urls=("https://r.example/",), dns_server="none", ca_file=Path("ca"))
    assert settings.relays == (RelayUrl.parse("https://r.example/"),)
    assert settings.discovery == DiscoverySettings()
    assert settings.ca_file == Path("ca")


def test_no_relay_at_all_can_be_asked_for() -> None:
    assert build(relay_urls=("none",)).relays == ()
    with pytest.raises(UsageError, match="cannot be given beside a URL"):
        build(relay_urls=("none", "http://r.example/"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s.example", HostPort("s.example", 3478)),
        ("stun:s.example:5", HostPort("s.example", 5)),
        ("192.0.2.1:19302", HostPort("192.0.2.1", 19302)),
        ("[2001:db8::1]", None),
        ("[2001:db8::1]:5", HostPort("2001:db8::1", 5)),
    ],
)
def test_stun_servers_have_a_default_port(text: str, place: HostPort | None) -> None:
    expected = place or HostPort("2001:db8::1", 3478)
    assert build(stun_servers=(text,)).stun_servers == (expected,)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"relay_urls": ("ftp://x",)}, "--relay-url: "),
        ({"dns_server": "http://d.example"}, "--dns-server: .* has no path"),
        ({"stun_servers": ("s.example:x",)}, "--stun-server: "),
        ({"stun_servers": ("s.example",) * 5}, "--stun-server: given 5 times; 4 is the limit"),
        ({"relay_urls": ("http://r/",) * 17}, "--relay-url: given 17 times"),
    ],
)
def test_mistakes_are_told_with_the_option(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        build(**given)
