import re
import tomllib
from pathlib import Path

import pytest

from tunnel_rs.config.relay_file import RELOAD_INTERVAL, SCHEMA, load_relay
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.relay_access import (
    AccessService,
    AllowList,
    DenyList,
    Everyone,
    SharedToken,
)
from tunnel_rs.selfhost.relay_settings import (
    ClientRxLimit,
    RelayLimits,
    RelayQuic,
    RelayServerSettings,
    RelayTls,
)
from tunnel_rs.values import EndpointId, Secret, SocketAddr

EXAMPLE = Path(__file__).resolve().parents[2] / "relay.toml.example"
ID = "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"
ENDPOINT = EndpointId.parse(ID)
OFF = re.compile(r"^#(?=[a-z\[])", re.M)


def load(tmp_path: Path, text: str, dev: bool = False, **environ: str) -> RelayServerSettings:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    return load_relay(file, environ, dev=dev)


def refused(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return str(caught.value).removeprefix(f"{tmp_path}/relay.toml: ")


def test_without_a_file_it_is_a_plain_relay_on_port_80() -> None:
    assert load_relay(None, {}) == RelayServerSettings()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == RelayServerSettings()


def test_the_example_is_good() -> None:
    settings = load_relay(EXAMPLE, {})
    assert settings.tls == RelayTls(
        Path("/etc/tunnel-rs/relay.crt"),
        Path("/etc/tunnel-rs/relay.key"),
        SocketAddr("::", 443),
    )
    assert settings.quic is not None and settings.quic.bind_addr == SocketAddr("::", 7842)
    assert settings.limits.client_rx == ClientRxLimit(12_500_000)
    assert settings.access == SharedToken((Secret("iabcdefghijklmnopg"),))


def test_the_example_shows_every_key() -> None:
    text = EXAMPLE.read_text()
    for key in SCHEMA.keys:
        name = key.path.rpartition(".")[2]
        assert re.search(rf"^#?(\[.*)?\b{name}\b", text, re.M), key.path


def test_what_the_example_shows_switched_off_is_understood_too(tmp_path: Path) -> None:
    for line in EXAMPLE.read_text().splitlines():
        if OFF.match(line) and not line.startswith("#["):
            name = line[1:].partition(" ")[0]
            [path] = [k.path for k in SCHEMA.keys if k.path.rpartition(".")[2] == name]
            value = tomllib.loads(line[1:])[name]
            [key] = [k for k in SCHEMA.keys if k.path == path]
            key.kind.from_toml(value)


def test_the_keys_of_iroh_relay_are_read(tmp_path: Path) -> None:
    text = f"""
        enable_relay = false
        http_bind_addr = "127.0.0.1:8080"
        enable_quic_addr_discovery = true
        enable_metrics = false
        metrics_bind_addr = "127.0.0.1:9999"
        key_cache_capacity = 1024
        [tls]
        https_bind_addr = "127.0.0.1:8443"
        quic_bind_addr = "127.0.0.1:7000"
        hostname = "relay.example.org"
        cert_mode = "Reloading"
        cert_dir = "/certs"
        prod_tls = false
        contact = "me@example.org"
        [limits]
        accept_conn_limit = 5.5
        accept_conn_burst = 3
        [limits.client.rx]
        bytes_per_second = 1000
        max_burst_bytes = 5000
        [access]
        allowlist = ["{ID}"]
    """
    certificate = Path("/certs/default.crt"), Path("/certs/default.key")
    assert load(tmp_path, text) == RelayServerSettings(
        enable_relay=False,
        http_bind_addr=SocketAddr("127.0.0.1", 8080),
        tls=RelayTls(
            *certificate,
            SocketAddr("127.0.0.1", 8443),
            hostname=("relay.example.org",),
            reload_interval=RELOAD_INTERVAL,
        ),
        quic=RelayQuic(*certificate, SocketAddr("127.0.0.1", 7000)),
        access=AllowList(frozenset([ENDPOINT])),
        limits=RelayLimits(
            accept_conn_limit=5.5, accept_conn_burst=3, client_rx=ClientRxLimit(1000, 5000)
        ),
        enable_metrics=False,
        metrics_bind_addr=SocketAddr("127.0.0.1", 9999),
    )


def test_our_own_keys_are_read(tmp_path: Path) -> None:
    text = """
        [limits]
        max_connections = 10
        max_connections_per_address = 0
        queue_packets = 20
        queue_bytes = 65536
        write_timeout = "5s"
        handshake_timeout = 6
        [access]
        allowlist_file = "/allowed"
        allowlist_file_interval = 0.5
    """
    settings = load(tmp_path, text)
    assert settings.limits == RelayLimits(
        max_connections=10,
        max_connections_per_address=None,
        queue_packets=20,
        queue_bytes=65_536,
        write_timeout=5.0,
        handshake_timeout=6.0,
    )
    assert settings.access == AllowList(frozenset())
    assert settings.access_file == Path("/allowed")
    assert settings.access_file_interval == 0.5


def test_ports_of_tls_are_on_the_address_of_http(tmp_path: Path) -> None:
    text = 'http_bind_addr = "192.0.2.1:80"\nenable_quic_addr_discovery = true\n[tls]'
    settings = load(tmp_path, text)
    assert settings.tls is not None and settings.quic is not None
    assert settings.tls.https_bind_addr == SocketAddr("192.0.2.1", 443)
    assert settings.quic.bind_addr == SocketAddr("192.0.2.1", 7842)


def test_dev_is_plain_http_on_its_own_port_but_keeps_address_discovery(tmp_path: Path) -> None:
    text = 'enable_quic_addr_discovery = true\n[tls]\ncert_mode = "Manual"'
    settings = load(tmp_path, text, dev=True)
    assert (settings.http_bind_addr, settings.tls) == (SocketAddr("::", 3340), None)
    assert settings.quic is not None
    named = load(tmp_path, 'http_bind_addr = "127.0.0.1:5"', dev=True)
    assert named.http_bind_addr == SocketAddr("127.0.0.1", 5)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('access = "everyone"', Everyone()),
        (f'access.denylist = ["{ID}"]', DenyList(frozenset([ENDPOINT]))),
        ('access.shared_token = ["t", "u"]', SharedToken((Secret("t"), Secret("u")))),
        ('access.http.url = "https://a.example/"', AccessService("https://a.example/")),
        (
            'access.http = {url = "https://a.example/", bearer_token = "b"}',
            AccessService("https://a.example/", Secret("b")),
        ),
        ("access.allowlist = []", AllowList(frozenset())),
    ],
)
def test_access_is_read(tmp_path: Path, text: str, policy: object) -> None:
    assert load(tmp_path, text).access == policy


def test_tokens_of_the_environment_go_first(tmp_path: Path) -> None:
    token = {"IROH_RELAY_ACCESS_TOKEN": "t"}
    assert load_relay(None, token).access == SharedToken((Secret("t"),))
    settings = load(tmp_path, 'access.shared_token = ["u"]', **token)
    assert settings.access == SharedToken((Secret("t"),))
    bearer = {"IROH_RELAY_HTTP_BEARER_TOKEN": "b"}
    settings = load(tmp_path, 'access.http.url = "https://a.example/"', **bearer)
    assert settings.access == AccessService("https://a.example/", Secret("b"))


def test_a_token_of_the_environment_is_never_silently_without_effect(tmp_path: Path) -> None:
    problem = refused(tmp_path, 'access = "everyone"', IROH_RELAY_ACCESS_TOKEN="t")
    assert problem == "IROH_RELAY_ACCESS_TOKEN: cannot be given beside access; keep one of them"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("enable_rely = true", "enable_rely: unknown key (did you mean 'enable_relay'?)"),
        ("[tls]\ncert_mod = 'Manual'", "tls.cert_mod: unknown key (did you mean 'tls.cert_mode'?)"),
        ("[tls]\ncert_mode = 'LetsEncrypt'", "tls.cert_mode: certificates are not fetched here"),
        ("[tls]\ndangerous_http_only = true", "tls.dangerous_http_only: give the option --dev"),
        ("enable_quic_addr_discovery = true", "enable_quic_addr_discovery: needs a certificate"),
        ("http_bind_addr = 'localhost:80'", "http_bind_addr: 'localhost' is a name"),
        ("access = 'none'", "access: 'none' is not everyone"),
        ("[access]", "access: says nothing about who may use the relay"),
        ("[access.http]", "access.http.url: is missing"),
        ("access.shared_token = []", "access.shared_token: is empty"),
        ("access.allowlist = ['x']", "access.allowlist: item 1: an EndpointId has 64 hex"),
        (
            "access.allowlist = []\naccess.denylist = []",
            "access.denylist: cannot be given beside access.allowlist",
        ),
        ("limits.client.rx.max_burst_bytes = 5", "limits.client.rx.max_burst_bytes: needs bytes"),
        ("limits.accept_conn_limit = 0", "limits.accept_conn_limit: 0 is not a number of conn"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, problem: str) -> None:
    assert refused(tmp_path, text).startswith(problem)


def test_no_message_shows_a_token(tmp_path: Path) -> None:
    assert "hush" not in refused(tmp_path, 'access.shared_token = ["hush\\n"]')
