from pathlib import Path

import pytest
from tests.support.samples import CLIENT_HEAD, SERVER_FILE, SERVER_HEAD, write

from tunnel_rs.config.files import MAX_FILE_SIZE, ConfigFile, read_text
from tunnel_rs.config.option import Role
from tunnel_rs.config.tables import MANUAL, NOSTR, VPN, Table, table_for
from tunnel_rs.errors import ConfigError


def entries(tmp_path: Path, text: str, role: Role = Role.SERVER) -> dict[str, object]:
    file = ConfigFile.read(write(tmp_path / "file.toml", text))
    return {key: value for _, key, value in file.entries(role, table_for(role))}


def refusal(tmp_path: Path, text: str, role: Role = Role.SERVER) -> str:
    with pytest.raises(ConfigError) as refused:
        entries(tmp_path, text, role)
    where, _, problem = str(refused.value).partition(": ")
    assert where == str(tmp_path / "file.toml")
    return problem


def test_every_key_is_found_under_its_path(tmp_path: Path) -> None:
    found = entries(tmp_path, SERVER_FILE)
    assert sorted(found) == ["iroh.allowed_sources.tcp", "iroh.auth_tokens", "iroh.secret"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('mode = "iroh"\n', 'role is missing; write role = "server" or role = "client" at the top'),
        ('role = "server"\n', 'mode is missing; write mode = "iroh" at the top'),
        (
            CLIENT_HEAD,
            'role: the file says "client", the command needs "server"; '
            "use `tunnel-rs client` or another file",
        ),
        (
            'role = "sever"\nmode = "iroh"\n',
            'role: expected "server" or "client" or "vpnserver" or "vpnclient", got \'sever\'',
        ),
        (
            'role = "vpnserver"\nmode = "iroh"\n',
            'role: the file says "vpnserver", the command needs "server"; '
            "use `tunnel-rs-vpn server` or another file",
        ),
        (
            'role = "server"\nmode = "nostr"\n',
            "mode: expected \"iroh\", got 'nostr'; this file is for tunnel-rs-ice",
        ),
        (
            'role = 1\nmode = "iroh"\n',
            'role: expected a string; write role = "server" or role = "client"',
        ),
        (
            SERVER_HEAD + "[iroh]\nmax_session = 1\n",
            "iroh.max_session: unknown key (did you mean 'iroh.max_sessions'?)",
        ),
        (
            SERVER_HEAD + "max_sessions = 1\n",
            "max_sessions: unknown key (did you mean 'iroh.max_sessions'?)",
        ),
        (SERVER_HEAD + "[irho]\nmax_sessions = 1\n", "irho: unknown key"),
        (SERVER_HEAD + "[manual]\n", "manual: unknown key"),
        (
            SERVER_HEAD + '"iroh.secret" = "x"\n',
            "\"iroh.secret\": unknown key (did you mean 'iroh.secret'?)",
        ),
        (SERVER_HEAD + '"a\\nb" = "x"\n', "'a\\nb': unknown key"),
        (SERVER_HEAD + "iroh = 1\n", "iroh: expected a table; write [iroh]"),
        (
            SERVER_HEAD + "[iroh]\nallowed_sources = []\n",
            "iroh.allowed_sources: expected a table; write [iroh.allowed_sources]",
        ),
        (
            SERVER_HEAD + '[iroh]\ntarget = "127.0.0.1:1"\n',
            "iroh.target: only for a client, this is a server file; "
            "a server's allowed_sources say what clients may ask for",
        ),
        (
            SERVER_HEAD + "[iroh]\nrelay_only = true\n",
            "iroh.relay_only: not accepted in a file; it is an option of the command line only",
        ),
        ("role = \n", "line 1, column 8: not valid TOML: invalid value"),
        ("role = '", 'end of document: not valid TOML: expected "\'"'),
        ("a = 1\na = 2\n", "line 2, column 6: not valid TOML: cannot overwrite a value"),
        ("a = " + "[" * 100_000, "not TOML that can be read: nested too deeply"),
    ],
)
def test_a_wrong_file_says_where_and_what(tmp_path: Path, text: str, problem: str) -> None:
    assert refusal(tmp_path, text) == problem


def test_keys_of_a_server_are_refused_in_a_client_file(tmp_path: Path) -> None:
    for key in ("max_sessions = 1", "allowed_clients = []", "auth_tokens = []"):
        name = key.partition(" ")[0]
        problem = refusal(tmp_path, f"{CLIENT_HEAD}[iroh]\n{key}\n", Role.CLIENT)
        assert problem == f"iroh.{name}: only for a server, this is a client file; remove it"


def test_the_role_of_a_file_is_known_before_its_keys_are_checked(tmp_path: Path) -> None:
    file = ConfigFile.read(write(tmp_path / "x", CLIENT_HEAD + "nonsense = 1\n"))
    assert file.role is Role.CLIENT


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "absent", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(ConfigError) as refused:
            ConfigFile.read(path)
        assert str(refused.value) == f"{path}: cannot be read: {reason}"


def test_a_file_that_is_no_text_or_far_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"role = '\xff'")
    with pytest.raises(ConfigError, match=r"x: not UTF-8 text \(byte 9\)$"):
        read_text(path)
    path.write_bytes(b"#" * (MAX_FILE_SIZE + 1))
    with pytest.raises(ConfigError, match=r"x: larger than 1 MiB; is this the right file\?$"):
        read_text(path)


@pytest.mark.parametrize(
    ("role", "mode", "table"),
    [
        ("client", "nostr", NOSTR),
        ("server", "manual", MANUAL),
        ("vpnclient", "iroh", VPN),
        ("vpnclient", "nostr", VPN),
    ],
)
def test_role_and_mode_tell_which_program_a_file_is_for(
    tmp_path: Path, role: str, mode: str, table: Table
) -> None:
    text = f'role = "{role}"\nmode = "{mode}"\n'
    assert ConfigFile.read(write(tmp_path / "file.toml", text)).table is table
