import os
import sys
from pathlib import Path

import pytest
from tests.support.samples import ENDPOINT_ID, TOKEN

from tunnel_rs.cli.service_plan import (
    KINDS,
    NamedFile,
    Scope,
    make_plan,
    program_words,
    service_name,
)
from tunnel_rs.config.keyfile import write_secret_key
from tunnel_rs.config.nostr_keyfile import write_nostr_key
from tunnel_rs.errors import ConfigError, LocalError, UsageError
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.values import Secret

SERVER = """\
role = "server"
mode = "iroh"
[iroh]
secret_file = "server.key"
auth_tokens_file = "tokens.txt"
[iroh.allowed_sources]
tcp = ["127.0.0.0/8"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_secret_key(tmp_path / "server.key", Secret(bytes(range(32))), force=False)
    (tmp_path / "tokens.txt").write_text(TOKEN)
    (tmp_path / "server.toml").write_text(SERVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_server_is_planned_with_absolute_paths(folder: Path) -> None:
    plan = make_plan(
        KINDS["server"], Scope.USER, Path("server.toml"), run_as=None, instance="office"
    )
    assert plan.name == "tunnel-rs-server-office"
    assert plan.config == folder / "server.toml"
    assert os.path.isabs(plan.program[0]) and plan.program[1] == "server"
    assert plan.files == (
        NamedFile("--auth-tokens-file", "auth_tokens_file", folder / "tokens.txt", False),
        NamedFile("--secret-file", "secret_file", folder / "server.key", True),
    )
    assert list(plan.readable) == [folder / "server.toml", folder / "tokens.txt"]


def test_a_clients_token_is_read_once(folder: Path) -> None:
    (folder / "client.toml").write_text(
        f'role = "client"\nmode = "iroh"\n[iroh]\nserver_node_id = "{ENDPOINT_ID}"\n'
        'auth_token_file = "tokens.txt"\nrequest_source = "tcp://127.0.0.1:22"\n'
        'target = "127.0.0.1:2222"\n'
    )
    plan = make_plan(KINDS["client"], Scope.USER, Path("client.toml"), run_as=None, instance=None)
    assert [(file.option, file.once) for file in plan.files] == [("auth_token_file", True)]


NOSTR = """\
role = "{role}"
mode = "nostr"
[nostr]
nsec_file = "our.nsec"
peer_npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
{more}
"""


@pytest.mark.parametrize(
    ("role", "more"),
    [
        ("server", "allowed_sources.tcp = ['127.0.0.0/8']"),
        ("client", "request_source = 'tcp://127.0.0.1:22'\ntarget = '127.0.0.1:2222'"),
    ],
)
def test_a_nostr_key_is_handed_over(folder: Path, role: str, more: str) -> None:
    write_nostr_key(folder / "our.nsec", NostrSecretKey(Secret(bytes(range(1, 33)))), force=False)
    (folder / "ice.toml").write_text(NOSTR.format(role=role, more=more))
    kind = KINDS[f"ice-{role}"]
    plan = make_plan(kind, Scope.SYSTEM, Path("ice.toml"), run_as=None, instance=None)
    assert plan.name == f"tunnel-rs-ice-{role}" and plan.program[1] == role
    assert plan.files == (NamedFile("--nsec-file", "nsec_file", folder / "our.nsec", True),)


@pytest.mark.parametrize(
    ("mode", "error"),
    [("manual", 'somebody pastes.*mode = "nostr"'), ("iroh", 'expected "manual" or "nostr"')],
)
def test_what_needs_a_person_at_each_start_is_no_service(
    folder: Path, mode: str, error: str
) -> None:
    (folder / "ice.toml").write_text(f'role = "server"\nmode = "{mode}"\n')
    with pytest.raises(ConfigError, match=error):
        make_plan(KINDS["ice-server"], Scope.SYSTEM, Path("ice.toml"), run_as=None, instance=None)


@pytest.mark.parametrize("name", ["relay", "dns-server"])
def test_self_hosted_servers_name_no_files_on_the_command_line(folder: Path, name: str) -> None:
    (folder / "empty.toml").write_text("")
    plan = make_plan(KINDS[name], Scope.SYSTEM, Path("empty.toml"), run_as=None, instance=None)
    assert plan.files == ()


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("server", "role = 'client'\nmode = 'iroh'\n", "role"),
        ("server", SERVER.replace("tokens.txt", "gone.txt"), "gone.txt"),
        ("relay", "nonsense = 1\n", "nonsense: unknown key"),
        ("dns-server", "nonsense = 1\n", "nonsense: unknown key"),
    ],
)
def test_a_configuration_the_program_would_refuse_is_refused(
    folder: Path, kind: str, text: str, error: str
) -> None:
    (folder / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=error):
        make_plan(KINDS[kind], Scope.SYSTEM, Path("x.toml"), run_as=None, instance=None)


def test_what_is_only_in_our_environment_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "server.toml").write_text(SERVER.replace('auth_tokens_file = "tokens.txt"\n', ""))
    monkeypatch.setenv("TUNNEL_RS_AUTH_TOKENS", TOKEN)
    with pytest.raises(ConfigError, match="token"):
        make_plan(KINDS["server"], Scope.USER, Path("server.toml"), run_as=None, instance=None)


def test_a_vpn_is_the_systems(folder: Path) -> None:
    with pytest.raises(UsageError, match="--system"):
        make_plan(KINDS["vpn-server"], Scope.USER, Path("x"), run_as=None, instance=None)


@pytest.mark.parametrize("instance", ["", "a/b", "a b", "-a", "x" * 33, "ü"])
def test_a_name_is_part_of_a_file_name(instance: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        service_name(KINDS["relay"], instance)


def test_every_kind_is_a_command_of_its_program() -> None:
    from tunnel_rs.cli import ice, main, vpn

    commands = {
        "tunnel-rs": main.COMMANDS,
        "tunnel-rs-ice": ice.COMMANDS,
        "tunnel-rs-vpn": vpn.VpnGroup.table,
    }
    assert all(kind.words[1] in commands[kind.words[0]] for kind in KINDS.values())


@pytest.mark.skipif(sys.platform == "win32", reason="programs are called otherwise there")
def test_the_program_beside_our_python_goes_first(tmp_path: Path) -> None:
    words, python = KINDS["relay"].words, tmp_path / "python3"
    assert program_words(words, python, lambda _: "/x/tunnel-rs") == ("/x/tunnel-rs", "relay")
    (tmp_path / "tunnel-rs").write_text("")
    beside = str(tmp_path / "tunnel-rs")
    assert program_words(words, python, lambda _: "/x/tunnel-rs") == (beside, "relay")
    with pytest.raises(LocalError, match="cannot find the program tunnel-rs-vpn"):
        program_words(KINDS["vpn-server"].words, python, lambda _: None)
