from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest
from tests.support.samples import ENDPOINT_ID, TOKEN

from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.keyfile import write_secret_key
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.config.vpn_build import (
    build_vpn_client,
    build_vpn_server,
    vpn_server_settings,
)
from tunnel_rs.errors import ConfigError, TunnelError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.proto.access import AccessList
from tunnel_rs.values import Secret, SocketAddr
from tunnel_rs.vpn.settings import Spoofing


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    write_secret_key(Path("server.key"), Secret(bytes(32)), force=False)
    yield


def values(role: Role, text: str) -> Values:
    server = f'secret_file = "server.key"\nauth_tokens = ["{TOKEN}"]\n'
    client = f'server_node_id = "{ENDPOINT_ID}"\nauth_token = "{TOKEN}"\n'
    head = f'role = "{role}"\nmode = "iroh"\n[iroh]\n{server if role.is_server else client}'
    path = Path("x.toml")
    path.write_text(head + text)
    return collect(role, {}, {}, ConfigFile.read(path))


def server(text: str) -> Values:
    return values(Role.VPN_SERVER, text)


def client(text: str) -> Values:
    return values(Role.VPN_CLIENT, text)


def test_a_server_with_little_has_the_defaults() -> None:
    config = build_vpn_server(server('network = "10.0.0.5/24"\n'))
    vpn = config.vpn
    assert vpn.network4 == ip_network("10.0.0.0/24") and vpn.network6 is None
    assert (vpn.mtu, vpn.max_clients, vpn.channel_size, vpn.drop_on_full) == (
        1440,
        254,
        1024,
        False,
    )
    assert vpn.spoofing is Spoofing.STRICT and vpn.client_isolation
    assert vpn.allowed_destinations is None
    assert not vpn.forward and not vpn.masquerade and vpn.nat64 is None
    assert len(vpn.access.tokens) == 1
    assert config.endpoint.secret_key is not None


def test_masquerade_implies_forward() -> None:
    assert build_vpn_server(server('network = "10.0.0.0/24"\nmasquerade = true\n')).vpn.forward


def test_the_older_way_to_turn_the_spoofing_check_off() -> None:
    text = 'network = "10.0.0.0/24"\ndisable_spoofing_check = true\n'
    assert build_vpn_server(server(text)).vpn.spoofing is Spoofing.OFF


def test_nat64_takes_the_highest_address_or_the_one_given() -> None:
    networks = 'network = "10.0.0.0/24"\nnetwork6 = "fd00::/64"\n'
    nat64 = build_vpn_server(server(f"{networks}[iroh.nat64]\nenabled = true\n")).vpn.nat64
    assert nat64 is not None and nat64.source == IPv4Address("10.0.0.254").packed
    text = 'network6 = "fd00::/64"\n[iroh.nat64]\nenabled = true\nsource_ip = "10.9.0.1"\n'
    nat64 = build_vpn_server(
        server(f"{text}port_range = [1000, 2000]\ntcp_timeout_secs = 7\n")
    ).vpn.nat64
    assert nat64 is not None and nat64.source == IPv4Address("10.9.0.1").packed
    assert (nat64.first_port, nat64.last_port, nat64.tcp_timeout) == (1000, 2000, 7)


NAT64 = "[iroh.nat64]\nenabled = true\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no network: set iroh.network or iroh.network6"),
        ('network = "10.0.0.0/31"\n', "iroh.network: .* too small"),
        ('network6 = "fd00::/127"\n', "iroh.network6: .* too small"),
        ('network = "10.0.0.0/24"\nserver_ip = "10.0.1.1"\n', "iroh.server_ip: .* not within"),
        ('network = "10.0.0.0/24"\nserver_ip = "10.0.0.255"\n', "iroh.server_ip: .* for a host"),
        (
            'network6 = "fd00::/64"\nserver_ip = "10.0.1.1"\n',
            "server_ip: is set without iroh.network",
        ),
        ('network6 = "fd00::/64"\nmtu = 1279\n', "iroh.mtu: 1279 is too small for IPv6"),
        ('network = "10.0.0.0/24"\nmtu = 1501\n', "from 576 to 1500"),
        ('network = "10.0.0.0/24"\nclient_channel_size = 0\n', "from 1 to 65536"),
        ('network = "10.0.0.0/24"\n' + NAT64, "set iroh.network6"),
        ('network6 = "fd00::/64"\n' + NAT64, "NAT64 needs an IPv4 address"),
        ('network6 = "fd00::/64"\n' + NAT64 + 'source_ip = "224.0.0.1"\n', "one machine"),
        (
            'network = "10.0.0.0/24"\nnetwork6 = "fd00::/64"\n'
            + NAT64
            + 'source_ip = "10.0.0.1"\n',
            "10.0.0.1 is taken",
        ),
        (NAT64 + "port_range = [0, 5]\n", "port_range: expected two ports"),
        ('network = "10.0.0.0/24"\nnetworks = 1\n', "unknown key .did you mean 'iroh.network'"),
        ('network = "10.0.0.0/24"\nroutes = []\n', "only for a client"),
        (
            'network = "10.0.0.0/24"\nspoofing_check = "off"\ndisable_spoofing_check = true\n',
            "cannot be given beside",
        ),
    ],
)
def test_a_server_that_cannot_be_is_told_why(text: str, problem: str) -> None:
    with pytest.raises(TunnelError, match=problem) as caught:
        build_vpn_server(server(text))
    assert caught.value.exit_status == 6
    assert "\n" not in str(caught.value)


def test_a_client_with_little_has_the_defaults() -> None:
    config = build_vpn_client(client(""))
    assert config.vpn.routes == () and config.vpn.reconnect and config.vpn.max_attempts is None
    assert config.vpn.accept_dns and not config.vpn.kill_switch
    assert str(config.server) == ENDPOINT_ID


def test_routes_of_both_families_are_one_list() -> None:
    text = 'routes = ["0.0.0.0/0", "fd00::/8"]\nroutes6 = ["::/0"]\n'
    routes = build_vpn_client(client(text)).vpn.routes
    assert routes == tuple(map(ip_network, ("0.0.0.0/0", "fd00::/8", "::/0")))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('routes6 = ["10.0.0.0/8"]\n', "belongs to routes"),
        ('routes = ["10.0.0.0"]\nroutes6 = ["::/0"]\nmtu = 1000\n', "too small for IPv6"),
        ("auto_reconnect = false\nmax_reconnect_attempts = 3\n", "without auto_reconnect"),
        ("max_reconnect_attempts = 0\n", "from 1 to"),
        ('network = "10.0.0.0/24"\n', "only for a server"),
    ],
)
def test_a_client_that_cannot_be_is_told_why(text: str, problem: str) -> None:
    with pytest.raises(TunnelError, match=problem) as caught:
        build_vpn_client(client(text))
    assert caught.value.exit_status == 6


def test_a_client_needs_a_server() -> None:
    with pytest.raises(TunnelError, match="no server: give --server-node-id"):
        build_vpn_client(collect(Role.VPN_CLIENT, {"auth_token": [TOKEN]}, {}, None))


def test_peers_are_found_as_those_of_tunnel_rs_are() -> None:
    reach = build_vpn_server(server('network = "10.0.0.0/24"\n')).endpoint
    assert reach.lan_discovery and reach.public_relays and reach.relays
    assert reach.discovery.publish_url is not None and not reach.relay_only
    reach = build_vpn_client(client('peer_addrs = ["192.0.2.1:5"]\n')).endpoint
    assert reach.peer_addrs == (SocketAddr("192.0.2.1", 5),) and reach.relays
    assert reach.discovery.publish_url is None and reach.discovery.dns_origin is not None


@pytest.mark.parametrize("role", [Role.VPN_SERVER, Role.VPN_CLIENT])
def test_relays_and_discovery_can_be_ones_own_or_none(role: Role) -> None:
    network = 'network = "10.0.0.0/24"\n' if role.is_server else ""

    def reach(text: str) -> EndpointSettings:
        build = build_vpn_server if role.is_server else build_vpn_client
        return build(values(role, network + text)).endpoint

    own = reach(
        'relay_urls = ["https://r.example"]\nrelay_token = "x"\n'
        'dns_server = "https://d.example/pkarr"\n'
    )
    assert [relay.text for relay in own.relays] == ["https://r.example/"]
    assert own.relays[0].token is not None and not own.public_relays
    assert own.discovery.resolve_url == "https://d.example/pkarr"
    none = reach('relay_urls = ["none"]\ndns_server = "none"\n')
    assert none.relays == () and none.discovery == DiscoverySettings()


@pytest.mark.parametrize("role", [Role.VPN_SERVER, Role.VPN_CLIENT])
def test_files_of_other_versions_may_hold_what_never_had_an_effect(role: Role) -> None:
    text = "keepalive_secs = 25\n"
    if role.is_server:
        build_vpn_server(server('network = "10.0.0.0/24"\ntun_writer_channel_size = 512\n' + text))
    else:
        build_vpn_client(client(text))


def test_the_offload_of_the_device_is_not_that_of_the_transport() -> None:
    config = build_vpn_client(client("offload = false\n"))
    assert (config.vpn.offload, config.endpoint.transport.offload) == (False, True)
    config = build_vpn_client(client("[iroh.transport]\noffload = false\n"))
    assert (config.vpn.offload, config.endpoint.transport.offload) == (True, False)


def test_of_what_a_token_grants_a_vpn_knows_name_and_end(tmp_path: Path) -> None:
    file = tmp_path / "t"

    def given() -> Values:
        texts = {"network": ["10.0.0.0/24"], "auth_tokens_file": [str(file)]}
        return collect(Role.VPN_SERVER, texts, {}, None)

    file.write_text(f"{TOKEN} name=alice expires=2030-01-01\n")
    (entry,) = vpn_server_settings(given()).access.tokens
    assert entry.grant.name == "alice"
    file.write_text(f"{TOKEN} name=alice tcp=*:22\n")
    with pytest.raises(ConfigError, match=r"t, line 1: a VPN knows name and expires only"):
        vpn_server_settings(given())
    file.write_text("# nobody\n")
    assert vpn_server_settings(given(), running=True).access == AccessList()
