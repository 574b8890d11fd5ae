from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.samples import (
    BAD_TOKEN,
    CLIENT_HEAD,
    OTHER_TOKEN,
    SECRET_KEY,
    SERVER_HEAD,
    TOKEN,
    write,
)

from tunnel_rs.config import schema
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import (
    DEFAULT,
    Rank,
    Values,
    collect,
    default_config_path,
    environment,
)
from tunnel_rs.config.tables import options_for
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.values import Secret

Given = Mapping[str, Sequence[str]]


def server(given: Given, environ: Mapping[str, str], file: Path | None = None) -> Values:
    return collect(Role.SERVER, given, environ, ConfigFile.read(file) if file else None)


def client(given: Given, environ: Mapping[str, str], file: Path | None = None) -> Values:
    return collect(Role.CLIENT, given, environ, ConfigFile.read(file) if file else None)


def server_file(tmp_path: Path, body: str) -> Path:
    return write(tmp_path / "server.toml", f"{SERVER_HEAD}[iroh]\n{body}\n")


def client_file(tmp_path: Path, body: str) -> Path:
    return write(tmp_path / "client.toml", f"{CLIENT_HEAD}[iroh]\n{body}\n")


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path,
) -> None:
    file = client_file(tmp_path, f'auth_token = "{TOKEN}"\nconnect_timeout = 5')
    environ = {"TUNNEL_RS_AUTH_TOKEN": OTHER_TOKEN}
    values = client({"connect_timeout": ["7"]}, environ, file)
    assert values.get(schema.AUTH_TOKEN) == Secret(OTHER_TOKEN)
    assert values.get(schema.CONNECT_TIMEOUT) == 7
    assert values.get(schema.RECONNECT) is True
    assert values.origin(schema.AUTH_TOKEN).where == "TUNNEL_RS_AUTH_TOKEN"
    assert values.origin(schema.CONNECT_TIMEOUT).where == "--connect-timeout"
    assert values.origin(schema.RECONNECT) == DEFAULT
    assert client({}, {}, file).origin(schema.AUTH_TOKEN).where == f"{file}: iroh.auth_token"


def test_a_list_replaces_the_whole_list_of_a_lower_rank(tmp_path: Path) -> None:
    file = server_file(tmp_path, '[iroh.allowed_sources]\ntcp = ["10.0.0.0/8", "::1"]')
    values = server({"allowed_tcp": ["127.0.0.0/8"]}, {}, file)
    assert [str(network) for network in values.get(schema.ALLOWED_TCP)] == ["127.0.0.0/8"]


def test_an_alternative_of_a_higher_rank_drops_the_other(tmp_path: Path) -> None:
    file = server_file(tmp_path, f'secret_file = "a.key"\nauth_tokens = ["{TOKEN}"]')
    values = server({"auth_tokens_file": ["t"]}, {"TUNNEL_RS_SECRET": SECRET_KEY}, file)
    assert values.get(schema.SECRET_FILE) is None
    assert values.get(schema.SECRET) is not None
    assert values.get(schema.AUTH_TOKENS) == ()
    assert values.get(schema.AUTH_TOKENS_FILE) == Path("t")


def test_source_and_target_on_the_command_line_drop_the_tunnels_of_a_file(tmp_path: Path) -> None:
    tunnel = '[[iroh.tunnels]]\nsource = "tcp://a:1"\ntarget = "127.0.0.1:1"'
    file = client_file(tmp_path, tunnel)
    assert len(client({}, {}, file).get(schema.TUNNELS)) == 1
    assert client({"source": ["tcp://b:2"]}, {}, file).get(schema.TUNNELS) == ()


def test_stdio_drops_the_listeners_of_a_file_and_keeps_its_source(tmp_path: Path) -> None:
    file = client_file(
        tmp_path, 'source = "tcp://a:1"\ntarget = "127.0.0.1:1"\nsocks5 = "127.0.0.1:1080"'
    )
    values = client({"stdio": ["true"]}, {}, file)
    assert values.get(schema.TARGET) == ()
    assert values.get(schema.SOCKS5) is None
    assert len(values.get(schema.SOURCE)) == 1


def test_a_list_in_the_environment_is_separated_by_commas() -> None:
    values = server({}, {"TUNNEL_RS_AUTH_TOKENS": f" {TOKEN}, {OTHER_TOKEN} ,"})
    assert values.get(schema.AUTH_TOKENS) == (Secret(TOKEN), Secret(OTHER_TOKEN))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert environment(options_for(Role.SERVER), {"TUNNEL_RS_SECRET": ""}) == {}


def test_variables_of_the_other_role_are_not_looked_at() -> None:
    assert environment(options_for(Role.CLIENT), {"TUNNEL_RS_SECRET": "nonsense"}) == {}


@pytest.mark.parametrize(
    ("given", "environ", "error", "text"),
    [
        ({"max_sessions": ["x"]}, {}, UsageError, "--max-sessions: 'x' is not a whole number"),
        ({"secret": [SECRET_KEY], "secret_file": ["f"]}, {}, UsageError, "--secret-file: cannot"),
        (
            {},
            {"TUNNEL_RS_AUTH_TOKENS": BAD_TOKEN},
            ConfigError,
            "TUNNEL_RS_AUTH_TOKENS: the token's check character does not fit",
        ),
        (
            {},
            {"TUNNEL_RS_SECRET": SECRET_KEY, "TUNNEL_RS_SECRET_FILE": "f"},
            ConfigError,
            "TUNNEL_RS_SECRET_FILE: cannot be given beside TUNNEL_RS_SECRET; keep one of them",
        ),
        (
            {},
            {"TUNNEL_RS_AUTH_TOKENS": TOKEN, "TUNNEL_RS_AUTH_TOKENS_FILE": "f"},
            ConfigError,
            "TUNNEL_RS_AUTH_TOKENS_FILE: cannot be given beside TUNNEL_RS_AUTH_TOKENS; "
            "keep one of them",
        ),
    ],
)
def test_an_error_names_where_the_value_was_given(
    given: Given, environ: Mapping[str, str], error: type[TunnelError], text: str
) -> None:
    with pytest.raises(error) as refused:
        server(given, environ)
    assert str(refused.value).startswith(text)


def test_tokens_and_a_token_file_may_be_combined_on_the_command_line() -> None:
    values = server({"auth_tokens": [TOKEN], "auth_tokens_file": ["t"]}, {})
    assert values.get(schema.AUTH_TOKENS) == (Secret(TOKEN),)
    assert values.get(schema.AUTH_TOKENS_FILE) == Path("t")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            f'auth_tokens = ["{TOKEN}"]\nauth_tokens_file = "t"',
            "iroh.auth_tokens_file: cannot be given beside iroh.auth_tokens; keep one of them",
        ),
        (
            f'secret = "{SECRET_KEY}"\nsecret_file = "t"',
            "iroh.secret_file: cannot be given beside iroh.secret; keep one of them",
        ),
        (
            'max_sessions = "100"',
            "iroh.max_sessions: expected a whole number from 1 to 100000, got a string",
        ),
        (
            "[iroh.transport]\nreceive_window = 1023",
            "iroh.transport.receive_window: "
            "1023 is not a whole number of bytes from 1024 to 16777216",
        ),
        (
            "[iroh.transport]\nsend_window = 16_777_217",
            "iroh.transport.send_window: "
            "16777217 is not a whole number of bytes from 1024 to 16777216",
        ),
    ],
)
def test_an_error_in_a_file_names_file_and_key(tmp_path: Path, body: str, problem: str) -> None:
    file = server_file(tmp_path, body)
    with pytest.raises(ConfigError) as refused:
        server({}, {}, file)
    assert str(refused.value) == f"{file}: {problem}"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            'source = "tcp://a:1"\nrequest_source = "tcp://a:1"',
            "iroh.request_source: says the same as iroh.source; keep one of them",
        ),
        (
            'source = "tcp://a:1"\n[[iroh.tunnels]]\nsource = "tcp://a:1"\ntarget = "b:1"',
            "iroh.tunnels: cannot be given beside iroh.source; keep one of them",
        ),
        (
            'target = "a:1"\n[[iroh.tunnels]]\nsource = "tcp://a:1"\ntarget = "b:1"',
            "iroh.tunnels: cannot be given beside iroh.target; keep one of them",
        ),
        (
            f'auth_token = "{TOKEN}"\nauth_token_file = "t"',
            "iroh.auth_token_file: cannot be given beside iroh.auth_token; keep one of them",
        ),
    ],
)
def test_two_ways_to_say_one_thing_in_one_file_are_refused(
    tmp_path: Path, body: str, problem: str
) -> None:
    file = client_file(tmp_path, body)
    with pytest.raises(ConfigError) as refused:
        client({}, {}, file)
    assert str(refused.value) == f"{file}: {problem}"


def test_what_is_missing_is_the_fault_of_the_file_if_there_is_one() -> None:
    without = Values(Role.SERVER, {})
    error = without.missing("server key", schema.SECRET_FILE, schema.SECRET)
    assert isinstance(error, UsageError)
    assert str(error) == "no server key: give --secret-file or --secret"
    error = Values(Role.SERVER, {}, Path("s.toml")).missing("server key", schema.SECRET_FILE)
    assert isinstance(error, ConfigError)
    assert str(error) == "s.toml: no server key: set iroh.secret_file, or give --secret-file"


def test_the_default_file_is_in_the_xdg_configuration_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    usual = Path("/home/somebody/.config/tunnel-rs/client.toml")
    assert default_config_path(Role.CLIENT, {}) == usual
    assert default_config_path(Role.CLIENT, {"XDG_CONFIG_HOME": "relative"}) == usual
    path = default_config_path(Role.SERVER, {"XDG_CONFIG_HOME": "/etc/xdg"})
    assert path == Path("/etc/xdg/tunnel-rs/server.toml")


@given(st.sets(st.sampled_from(list(Rank)[1:])))
def test_the_highest_rank_that_gives_a_value_decides(ranks: set[Rank]) -> None:
    numbers = {rank: f"tcp://{rank.name.lower().replace('_', '-')}:1" for rank in ranks}
    given = {"source": [numbers[Rank.COMMAND_LINE]]} if Rank.COMMAND_LINE in ranks else {}
    content: dict[str, object] = {"role": "client", "mode": "iroh"}
    if Rank.FILE in ranks:
        content["iroh"] = {"source": numbers[Rank.FILE]}
    values = collect(Role.CLIENT, given, {}, ConfigFile(Path("f"), content))
    expected = max(ranks - {Rank.ENVIRONMENT}, default=Rank.DEFAULT)
    assert values.origin(schema.SOURCE).rank is expected
    assert [str(source) for source in values.get(schema.SOURCE)] == (
        [numbers[expected]] if expected else []
    )
