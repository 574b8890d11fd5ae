from pathlib import Path

import pytest

from tunnel_rs.config import ice_schema as schema
from tunnel_rs.config import schema as shared
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.ice_values import find_mode
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.values import HostPort, SourceUrl

SERVER = 'role = "server"\nmode = "manual"\n'
CLIENT = 'role = "client"\nmode = "nostr"\n'


@pytest.fixture
def write(tmp_path: Path) -> object:
    def written(text: str) -> ConfigFile:
        path = tmp_path / "ice.toml"
        path.write_text(text)
        return ConfigFile.read(path)

    return written


def values(file: ConfigFile, role: Role, mode: Mode, **given: tuple[str, ...]) -> Values:
    return collect(role, given, {}, file, mode)


def test_the_mode_comes_from_the_command_line_or_the_file(write: object) -> None:
    assert callable(write)
    assert find_mode("nostr", None) is Mode.NOSTR
    assert find_mode(None, write(SERVER)) is Mode.MANUAL
    assert find_mode("manual", write(SERVER)) is Mode.MANUAL
    with pytest.raises(UsageError, match="no mode"):
        find_mode(None, None)
    with pytest.raises(ConfigError, match='the file says "manual", the command line nostr'):
        find_mode("nostr", write(SERVER))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "mode is missing"),
        ('mode = "iroh"', "for tunnel-rs"),
        ("mode = 1", "something else"),
        ('mode = "nostrum"', "got 'nostrum'"),
    ],
)
def test_a_wrong_mode_in_a_file_is_explained(write: object, line: str, problem: str) -> None:
    assert callable(write)
    with pytest.raises(ConfigError, match=problem):
        find_mode(None, write(f'role = "server"\n{line}\n'))


def test_the_command_line_goes_before_the_environment_before_the_file(write: object) -> None:
    assert callable(write)
    file = write(CLIENT + '[nostr]\nnsec_file = "a"\nrelays = ["ws://file"]\nmax_wait = 9\n')
    environ = {"TUNNEL_RS_NSEC_FILE": "b"}
    found = collect(Role.CLIENT, {"relays": ("ws://line",)}, environ, file, Mode.NOSTR)
    assert found.get(schema.RELAYS) == ("ws://line",)
    assert found.get(schema.NSEC_FILE) == Path("b")
    assert found.get(schema.MAX_WAIT) == 9
    assert found.get(schema.REPUBLISH_INTERVAL) == 5


@pytest.mark.parametrize("key", ["source", "nostr.source", "nostr.request_source"])
def test_the_source_may_be_written_in_three_places(write: object, key: str) -> None:
    assert callable(write)
    top = 'source = "tcp://a:1"\n' if key == "source" else ""
    inner = "" if top else f'{key.removeprefix("nostr.")} = "tcp://a:1"\n'
    found = values(write(CLIENT + top + "[nostr]\n" + inner), Role.CLIENT, Mode.NOSTR)
    assert found.get(shared.SOURCE) == (SourceUrl.parse("tcp://a:1"),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SERVER + '[manual]\nsource = "tcp://a:1"\n', "only for a client.*allowed_sources"),
        (SERVER + 'source = "tcp://a:1"\n', "only for a client"),
        (SERVER + "[manual]\nstun_server = []\n", "did you mean 'manual.stun_servers'"),
        (SERVER + "[nostr]\nrelays = []\n", 'this file has mode = "manual"'),
        (SERVER + "manual = 1\n", r"write \[manual\]"),
        (SERVER + '[manual.allowed_sources]\ntcp = ["10.0.0.1/8"]\n', "host bits"),
        (SERVER + "[manual.transport]\nreceive_window = 1\n", "1024"),
        (CLIENT.replace("nostr", "manual"), 'the file says "client"'),
    ],
)
def test_a_mistake_in_a_file_is_explained(write: object, text: str, problem: str) -> None:
    assert callable(write)
    with pytest.raises(ConfigError, match=problem):
        values(write(text), Role.SERVER, Mode.MANUAL)


def test_server_keys_in_a_client_file_are_explained(write: object) -> None:
    assert callable(write)
    with pytest.raises(ConfigError, match="only for a server"):
        values(write(CLIENT + "[nostr]\nmax_sessions = 1\n"), Role.CLIENT, Mode.NOSTR)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"no_stun": ("true",), "stun_servers": ("x",)}, "cannot be given beside"),
        ({"turn_servers": ("turn:sesame",)}, "--turn-server: "),
    ],
)
def test_a_mistake_on_the_command_line_is_explained(
    given: dict[str, tuple[str, ...]], problem: str
) -> None:
    with pytest.raises(TunnelError, match=problem) as caught:
        collect(Role.SERVER, given, {}, None, Mode.MANUAL)
    assert "sesame" not in str(caught.value)


def test_no_stun_on_the_command_line_drops_the_file_s_servers(write: object) -> None:
    assert callable(write)
    file = write(SERVER + '[manual]\nstun_servers = ["x"]\n')
    found = values(file, Role.SERVER, Mode.MANUAL, no_stun=("true",))
    assert found.get(schema.NO_STUN)
    plain = values(file, Role.SERVER, Mode.MANUAL)
    assert plain.get(schema.STUN_SERVERS) == (HostPort("x", 3478),)
