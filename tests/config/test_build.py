from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.support.samples import (
    CLIENT_FILE,
    ENDPOINT_ID,
    OTHER_TOKEN,
    SECRET_KEY,
    SERVER_FILE,
    TOKEN,
    write,
)

from tunnel_rs.config.build import (
    ClientConfig,
    ServerConfig,
    build_client,
    build_server,
    exposed_secrets,
    server_settings,
)
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import collect
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.forward.settings import Tunnel
from tunnel_rs.proto.access import AccessList, Entry, of_tokens
from tunnel_rs.proto.grants import Grant
from tunnel_rs.proto.identity import decode_secret_key
from tunnel_rs.proto.transport_settings import CongestionController, TransportSettings
from tunnel_rs.values import EndpointId, HostPort, Protocol, Secret, SocketAddr, SourceUrl

Given = Mapping[str, Sequence[str]]

SECRET = decode_secret_key(SECRET_KEY)

SERVER: Given = {
    "secret": [SECRET_KEY],
    "auth_tokens": [TOKEN],
    "allowed_tcp": ["127.0.0.0/8"],
}
CLIENT: Given = {
    "server_node_id": [ENDPOINT_ID],
    "auth_token": [TOKEN],
    "source": ["tcp://127.0.0.1:22"],
    "target": ["127.0.0.1:2222"],
}


def server(given: Given) -> ServerConfig:
    return build_server(collect(Role.SERVER, given, {}, None))


def client(given: Given) -> ClientConfig:
    return build_client(collect(Role.CLIENT, given, {}, None))


def without(given: Given, *names: str) -> Given:
    return {name: value for name, value in given.items() if name not in names}


def test_a_server_is_built_from_its_options() -> None:
    config = server({**SERVER, "max_sessions": ["7"], "bind": ["0.0.0.0:4433"]})
    assert [str(network) for network in config.forward.allowed_tcp] == ["127.0.0.0/8"]
    assert config.forward.allowed_udp == ()
    assert config.forward.max_sessions == 7
    assert config.forward.access == of_tokens(Secret(TOKEN))
    assert config.endpoint.bind == SocketAddr("0.0.0.0", 4433)
    assert config.endpoint.secret_key == SECRET
    assert config.endpoint.lan_discovery
    assert config.endpoint.transport == TransportSettings()


def test_a_client_is_built_from_its_options() -> None:
    config = client({**CLIENT, "peer_addrs": ["[::1]:9"], "reconnect": ["false"]})
    assert str(config.server) == ENDPOINT_ID
    assert config.forward.auth_token == Secret(TOKEN)
    assert config.forward.tunnels == (
        Tunnel(SourceUrl(Protocol.TCP, HostPort("127.0.0.1", 22)), HostPort("127.0.0.1", 2222)),
    )
    assert not config.forward.reconnect
    assert config.forward.connect_timeout == 10
    assert config.endpoint.secret_key is None
    assert config.endpoint.peer_addrs == (SocketAddr("::1", 9),)


def test_files_give_the_same_as_options(tmp_path: Path) -> None:
    file = ConfigFile.read(write(tmp_path / "s", SERVER_FILE))
    built = build_server(collect(Role.SERVER, {}, {}, file))
    assert built.endpoint == server(SERVER).endpoint
    assert built.forward.allowed_tcp == server(SERVER).forward.allowed_tcp
    file = ConfigFile.read(write(tmp_path / "c", CLIENT_FILE))
    assert build_client(collect(Role.CLIENT, {}, {}, file)) == client(CLIENT)


def test_the_transport_is_built_from_the_file(tmp_path: Path) -> None:
    table = '[iroh.transport]\ncongestion_controller = "new_reno"\nreceive_window = 2048\n'
    file = ConfigFile.read(write(tmp_path / "c", f"{CLIENT_FILE}{table}idle_timeout = 30\n"))
    transport = build_client(collect(Role.CLIENT, {}, {}, file)).endpoint.transport
    assert transport.congestion_controller is CongestionController.NEW_RENO
    assert (transport.receive_window, transport.send_window) == (2048, 2048)
    assert (transport.idle_timeout, transport.keep_alive) == (30, 10)


def test_the_shortcuts_of_the_transport_can_be_taken_away(tmp_path: Path) -> None:
    switches = ("fast_path", "offload", "udp_datagrams", "multipath")
    table = "[iroh.transport]\n" + "".join(f"{switch} = false\n" for switch in switches)
    file = ConfigFile.read(write(tmp_path / "c", CLIENT_FILE + table))
    transport = build_client(collect(Role.CLIENT, {}, {}, file)).endpoint.transport
    assert not transport.fast_path and not transport.offload and not transport.datagrams
    assert not transport.multipath
    untouched = client(CLIENT).endpoint.transport
    assert untouched.fast_path and untouched.offload and untouched.datagrams
    assert untouched.multipath


def test_the_send_window_may_differ_from_the_receive_window(tmp_path: Path) -> None:
    table = "[iroh.transport]\nsend_window = 4096\n"
    file = ConfigFile.read(write(tmp_path / "c", CLIENT_FILE + table))
    transport = build_client(collect(Role.CLIENT, {}, {}, file)).endpoint.transport
    assert (transport.receive_window, transport.send_window) == (8_388_608, 4096)


def test_keys_and_tokens_are_read_from_files(tmp_path: Path) -> None:
    key = write(tmp_path / "key", SECRET_KEY + "\n")
    tokens = write(tmp_path / "tokens", f"{OTHER_TOKEN}\n")
    given = {**without(SERVER, "secret"), "secret_file": [str(key)]}
    config = server({**given, "auth_tokens_file": [str(tokens)]})
    assert config.endpoint.secret_key == SECRET
    assert config.forward.access == of_tokens(Secret(TOKEN), Secret(OTHER_TOKEN))
    given = {**without(CLIENT, "auth_token"), "auth_token_file": [str(tokens)]}
    assert client(given).forward.auth_token == Secret(OTHER_TOKEN)


def test_a_token_given_twice_counts_once(tmp_path: Path) -> None:
    file = write(tmp_path / "tokens", f"{TOKEN}\n")
    config = server({**SERVER, "auth_tokens": [TOKEN, TOKEN], "auth_tokens_file": [str(file)]})
    assert config.forward.access == of_tokens(Secret(TOKEN))


def test_what_may_change_while_a_server_runs_needs_no_key() -> None:
    values = collect(Role.SERVER, without(SERVER, "secret"), {}, None)
    assert server_settings(values).access == of_tokens(Secret(TOKEN))


def test_several_tunnels_are_paired_in_order() -> None:
    given = {
        **CLIENT,
        "source": ["tcp://a:1", "udp://b:2"],
        "target": ["localhost:11", "udp://127.0.0.1:22"],
    }
    pairs = [(str(t.source), str(t.target)) for t in client(given).forward.tunnels]
    assert pairs == [("tcp://a:1", "localhost:11"), ("udp://b:2", "127.0.0.1:22")]


def test_tcp_and_udp_may_share_a_target_and_port_0_may_repeat() -> None:
    both = {**CLIENT, "source": ["tcp://a:1", "udp://b:2"], "target": ["[::1]:5", "[::1]:5"]}
    assert len(client(both).forward.tunnels) == 2
    free = {**CLIENT, "source": ["tcp://a:1", "tcp://b:2"], "target": ["[::1]:0", "[::1]:0"]}
    assert len(client(free).forward.tunnels) == 2


def test_a_socks_proxy_needs_no_tunnel_and_bears_some() -> None:
    socks = {"socks5": ["127.0.0.1:1080"]}
    alone = client({**without(CLIENT, "source", "target"), **socks}).forward
    assert (alone.socks5, alone.tunnels) == (HostPort("127.0.0.1", 1080), ())
    assert len(client({**CLIENT, **socks}).forward.tunnels) == 1


def test_stdio_has_one_source_and_does_not_reconnect() -> None:
    forward = client({**without(CLIENT, "target"), "stdio": ["true"]}).forward
    assert str(forward.stdio) == "tcp://127.0.0.1:22"
    assert forward.tunnels == ()
    assert not forward.reconnect


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        (
            ["allowed_tcp"],
            "no allowed network: give --allowed-tcp or --allowed-udp, for example 127.0.0.0/8; "
            "without one nothing may be forwarded",
        ),
        (
            ["secret"],
            "no server key: give --secret-file or --secret; "
            "make one with `tunnel-rs generate-server-key -o FILE`",
        ),
        (
            ["auth_tokens"],
            "no auth token: give --auth-tokens or --auth-tokens-file; "
            "make one with `tunnel-rs generate-token`",
        ),
    ],
)
def test_a_server_without_what_it_needs_is_refused(missing: list[str], text: str) -> None:
    with pytest.raises(UsageError) as refused:
        server(without(SERVER, *missing))
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        (
            ["server_node_id"],
            "no server: give --server-node-id (the server prints it as EndpointId)",
        ),
        (["auth_token"], "no auth token: give --auth-token-file or --auth-token"),
        (["source", "target"], "no source: give --source (or --socks5)"),
        (["source"], "no source: give --source (tcp://host:port)"),
        (["target"], "no target: give --target (host:port to listen on)"),
    ],
)
def test_a_client_without_what_it_needs_is_refused(missing: list[str], text: str) -> None:
    with pytest.raises(UsageError) as refused:
        client(without(CLIENT, *missing))
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"source": ["tcp://a:1", "tcp://b:2"]},
            "--source: 2 source(s), 1 target(s); give one --target for each --source, in order",
        ),
        (
            {"target": ["a:1", "b:2"]},
            "--target: 1 source(s), 2 target(s); give one --target for each --source, in order",
        ),
        (
            {"target": ["udp://a:1"]},
            "--target: udp://a:1 and the source tcp://127.0.0.1:22 differ in protocol; "
            "make them the same",
        ),
        (
            {"source": ["tcp://a:1", "tcp://b:2"], "target": ["c:1", "c:1"]},
            "c:1 is the target of two tunnels; choose another port for one",
        ),
        (
            {"socks5": ["127.0.0.1:2222"]},
            "127.0.0.1:2222 is the target of two tunnels; choose another port for one",
        ),
        ({"stdio": ["true"]}, "--target: cannot be given beside --stdio; keep one of them"),
    ],
)
def test_a_client_that_contradicts_itself_is_refused(changes: Given, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        client({**CLIENT, **changes})
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (["udp://a:1"], "--source: udp://a:1: --stdio carries a byte stream; use a tcp:// source"),
        (["tcp://a:1", "tcp://b:2"], "--source: given 2 times; --stdio forwards one source"),
        ([], "no source for --stdio: give --source"),
    ],
)
def test_stdio_needs_exactly_one_tcp_source(source: list[str], text: str) -> None:
    with pytest.raises(UsageError) as refused:
        client({**without(CLIENT, "target"), "stdio": ["true"], "source": source})
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"{TOKEN}\n{OTHER_TOKEN}\n", ": holds 2 tokens; a client needs a file with one"),
        ("iabc\n", ", line 1: a token has 18 characters, this has 4"),
        ("", ": holds no token; make one with `tunnel-rs generate-token`"),
    ],
)
def test_a_client_needs_a_file_with_one_good_token(tmp_path: Path, content: str, text: str) -> None:
    file = write(tmp_path / "t", content)
    with pytest.raises(ConfigError) as refused:
        client({**without(CLIENT, "auth_token"), "auth_token_file": [str(file)]})
    assert str(refused.value) == f"{file}{text}"


def test_what_a_file_leaves_out_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", 'role = "client"\nmode = "iroh"\n[iroh]\ntunnels = []\n')
    given = {"server_node_id": [ENDPOINT_ID], "auth_token": [TOKEN]}
    with pytest.raises(ConfigError) as refused:
        build_client(collect(Role.CLIENT, given, {}, ConfigFile.read(path)))
    assert str(refused.value) == f"{path}: iroh.tunnels: is empty; add a tunnel"
    with pytest.raises(ConfigError) as refused:
        build_client(collect(Role.CLIENT, {}, {}, ConfigFile.read(path)))
    assert str(refused.value).startswith(f"{path}: no server: set iroh.server_node_id, or give")


def test_only_secrets_on_the_command_line_are_exposed() -> None:
    exposed = collect(Role.SERVER, SERVER, {}, None)
    assert exposed_secrets(exposed) == ("--auth-tokens", "--secret")
    hidden = collect(Role.SERVER, {}, {"TUNNEL_RS_SECRET": SECRET_KEY}, None)
    assert exposed_secrets(hidden) == ()


def test_no_repr_shows_a_secret() -> None:
    shown = (
        repr(server(SERVER)) + repr(client(CLIENT)) + repr(collect(Role.CLIENT, CLIENT, {}, None))
    )
    assert TOKEN not in shown
    assert SECRET_KEY not in shown


def test_errors_are_of_the_one_error_tree() -> None:
    with pytest.raises(TunnelError):
        server({})


def test_client_keys_stand_in_for_tokens(tmp_path: Path) -> None:
    file = write(tmp_path / "c", f"{ENDPOINT_ID} name=build\n")
    given = {**without(SERVER, "auth_tokens"), "allowed_clients_file": [str(file)]}
    access = server(given).forward.access
    assert access.tokens == ()
    assert access.clients == (Entry(EndpointId.parse(ENDPOINT_ID), Grant(name="build")),)
    given = {**without(SERVER, "auth_tokens"), "allowed_clients": [ENDPOINT_ID]}
    assert len(server(given).forward.access.clients) == 1


def test_a_client_with_a_key_of_its_own_needs_no_token(tmp_path: Path) -> None:
    key = write(tmp_path / "key", SECRET_KEY + "\n")
    config = client({**without(CLIENT, "auth_token"), "client_secret_file": [str(key)]})
    assert config.endpoint.secret_key == SECRET
    assert config.forward.auth_token == Secret("")
    with pytest.raises(UsageError, match="no auth token"):
        client(without(CLIENT, "auth_token"))


def test_a_network_of_a_token_outside_the_server_s_is_a_mistake(tmp_path: Path) -> None:
    file = write(tmp_path / "t", f"# x\n{TOKEN} tcp=127.0.0.0/16:22,10.0.0.0/8\n")
    with pytest.raises(ConfigError) as refused:
        server({**without(SERVER, "auth_tokens"), "auth_tokens_file": [str(file)]})
    assert str(refused.value) == (
        f"{file}, line 2: tcp: 10.0.0.0/8 is outside the networks that --allowed-tcp gives; add it "
        "there, or take it away here"
    )


def test_a_running_server_may_be_left_without_anybody(tmp_path: Path) -> None:
    file = write(tmp_path / "t", "# all gone\n")
    given = {**without(SERVER, "auth_tokens"), "auth_tokens_file": [str(file)]}
    values = collect(Role.SERVER, given, {}, None)
    assert server_settings(values, running=True).access == AccessList()
    with pytest.raises(ConfigError, match="holds no token"):
        server_settings(values)
