import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tunnel_rs.config.dns_server_file import METRICS_ADDR, SCHEMA, load_dns_server
from tunnel_rs.errors import ConfigError
from tunnel_rs.selfhost.dns_settings import (
    DnsServerSettings,
    DnsSettings,
    HttpsSettings,
    PutRateLimit,
    ZoneStoreSettings,
)
from tunnel_rs.values import SocketAddr

EXAMPLE = Path(__file__).resolve().parents[2] / "dns_server.toml.example"
HOME = {"HOME": "/nowhere", "XDG_DATA_HOME": "/data"}


def load(tmp_path: Path, text: str, **environ: str) -> DnsServerSettings:
    file = tmp_path / "dns.toml"
    file.write_text(text)
    return load_dns_server(file, {**HOME, **environ})


def test_without_a_file_it_serves_on_loopback_and_keeps_its_records() -> None:
    assert load_dns_server(None, HOME) == DnsServerSettings(
        metrics=METRICS_ADDR, data_dir=Path("/data/tunnel-rs/dns-server")
    )


def test_the_example_is_good() -> None:
    settings = load_dns_server(EXAMPLE, HOME)
    assert settings.http == SocketAddr("0.0.0.0", 8080)
    assert settings.https is None
    assert settings.dns is not None and settings.dns.origins == ("discovery.example.org.",)
    assert settings.zone_store == ZoneStoreSettings()
    assert settings.puts_per_second == DnsServerSettings().puts_per_second


def test_what_the_example_shows_switched_off_is_good_too(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=[a-z\[])", "", EXAMPLE.read_text(), flags=re.M)
    settings = load(tmp_path, text)
    assert settings.https is not None and settings.https.bind == SocketAddr("0.0.0.0", 8443)
    assert settings.zone_store == ZoneStoreSettings()
    for key in SCHEMA.keys:
        assert re.search(rf"^{key.path.rpartition('.')[2]} =", text, re.M), key.path


def test_the_keys_of_iroh_dns_server_are_read(tmp_path: Path) -> None:
    text = """
        pkarr_put_rate_limit = "smart"
        data_dir = "/records"
        [https]
        port = 8444
        bind_addr = "::"
        domains = ["d.example"]
        cert_mode = "manual"
        [dns]
        port = 53
        bind_addr = "192.0.2.1"
        default_soa = "ns.d.example. host.d.example. 0 1 2 3 4"
        default_ttl = 60
        origins = ["d.example.", "."]
        rr_a = "192.0.2.1"
        rr_ns = "ns.d.example."
        [mainline]
        enabled = false
        [metrics]
        disabled = true
        [zone_store]
        max_batch_size = 5
        max_batch_time = "200ms"
        eviction = "1d"
        eviction_interval = 60
    """
    assert load(tmp_path, text) == DnsServerSettings(
        http=None,
        https=HttpsSettings(
            SocketAddr("::", 8444),
            Path("/records/cert/d.example.crt"),
            Path("/records/cert/d.example.key"),
            ("d.example",),
        ),
        dns=DnsSettings(
            bind=SocketAddr("192.0.2.1", 53),
            origins=("d.example.", "."),
            default_soa="ns.d.example. host.d.example. 0 1 2 3 4",
            default_ttl=60,
            rr_a=IPv4Address("192.0.2.1"),
            rr_ns="ns.d.example.",
        ),
        zone_store=ZoneStoreSettings(5, 0.2, 86_400.0, 60.0),
        data_dir=Path("/records"),
        pkarr_put_rate_limit=PutRateLimit.SMART,
    )


def test_the_directory_comes_from_the_environment_first(tmp_path: Path) -> None:
    assert load(tmp_path, "data_dir = '/a'", IROH_DNS_DATA_DIR="/b").data_dir == Path("/b")
    assert load(tmp_path, "zone_store.in_memory = true").data_dir is None
    relative = load_dns_server(None, {"HOME": "/nowhere", "XDG_DATA_HOME": "here"})
    assert relative.data_dir == Path("~/.local/share/tunnel-rs/dns-server").expanduser()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[dns]\norigin = []", "dns.origin: unknown key (did you mean 'dns.origins'?)"),
        ("[htpp]\nport = 1", "htpp: unknown key (did you mean 'http'?)"),
        ("[mainline]\nenabled = true", "mainline.enabled: the BitTorrent DHT is not asked here"),
        ("[https]\ncert_mode = 'lets_encrypt'", "https.cert_mode: certificates are not fetched"),
        ("[https]\ncert_mode = 'self_signed'", "https.cert_mode: no certificate is made here"),
        ("[dns]\ndefault_soa = 'x'", "table [dns]: "),
        ("[dns]\nserved_types = ['MX']", "table [dns]: 'MX' is not one of"),
        ("pkarr_put_rate_limit = 'simpel'", "pkarr_put_rate_limit: 'simpel' is not"),
        ("[zone_store]\neviction = '1s'", "zone_store.eviction: 1 s is not from 60"),
        ("http = 1", "http: expected a table; write [http]"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).removeprefix(f"{tmp_path}/dns.toml: ").startswith(problem)
