from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.program import run_ice
from tests.support.samples import write

from tunnel_rs import __version__
from tunnel_rs.cli.exits import run
from tunnel_rs.cli.ice import COMMANDS, PROGRAM, cli
from tunnel_rs.errors import ExitStatus
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.values import Secret


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0 and "Example" in shown.output


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"{PROGRAM} {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["sever"], ExitStatus.USAGE, "did you mean 'server'"),
        (["server"], ExitStatus.USAGE, "no mode"),
        (["server", "manual"], ExitStatus.USAGE, "no allowed network"),
        (["server", "--allowed-tcp", "10.0.0.1/8", "manual"], ExitStatus.USAGE, "host bits"),
        (["server", "nostr", "--qr", "--allowed-tcp", "::/0"], ExitStatus.USAGE, "only in manual"),
        (["client", "nostr", "-s", "tcp://a:1", "-t", "b:2"], ExitStatus.USAGE, "no Nostr key"),
        (["client", "manual", "-c", "/none"], ExitStatus.INVALID_CONFIG, "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(
    arguments: list[str], status: ExitStatus, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, arguments, PROGRAM) == status
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1


KEY, PEER = "01" * 32, NostrSecretKey(Secret(bytes([2]) * 32)).public_key.npub
SERVER, CLIENT = 'role = "server"\nmode = "manual"\n', 'role = "client"\nmode = "manual"\n'
NOSTR_SERVER, NOSTR_CLIENT = SERVER.replace("manual", "nostr"), CLIENT.replace("manual", "nostr")
ALLOWED = ("--allowed-tcp", "::/0")
TUNNEL = ("-s", "tcp://a:1", "-t", "b:2")


@pytest.mark.parametrize(
    ("side", "text", "ours"),
    [
        # In the order of spec ice.md section 2, "Validation messages (config)".
        ("server", 'mode = "manual"\n', 'role is missing; write role = "server"'),
        ("server", CLIENT, 'the file says "client", the command needs "server"'),
        ("client", SERVER, 'the file says "server", the command needs "client"'),
        ("server", 'role = "server"\n', 'mode is missing; write mode = "manual" or mode = "nostr"'),
        ("server nostr", SERVER, 'the file says "manual", the command line nostr'),
        (
            "server",
            f'{NOSTR_SERVER}[nostr]\nnsec = "{KEY}"\nnsec_file = "x"\n',
            "nostr.nsec_file: cannot be given beside nostr.nsec",
        ),
        (
            "server",
            SERVER + '[manual]\ntarget = "a:1"\n',
            "only for a client, this is a server file; a server's allowed_sources say",
        ),
        (
            "client",
            CLIENT + '[manual.allowed_sources]\ntcp = ["::/0"]\n',
            "only for a server, this is a client file; a client's source says",
        ),
        ("client", NOSTR_CLIENT + "[nostr]\nmax_sessions = 1\n", "max_sessions: only for a server"),
        ("server", SERVER + 'source = "tcp://a:1"\n', "source: only for a client"),
        (
            "server",
            SERVER + '[manual.allowed_sources]\ntcp = ["10.0.0.0/99"]\n',
            "allowed_sources.tcp: item 1: '10.0.0.0/99' is not a network",
        ),
        ("client", CLIENT + '[manual]\nsource = "a:1"\n', "must start with tcp:// or udp://"),
        (
            "client",
            CLIENT + '[manual]\nsource = "http://a:1"\n',
            "must start with tcp:// or udp://",
        ),
        ("client", CLIENT + '[manual]\nsource = "tcp://:1"\n', "manual.source: "),
        ("client", CLIENT + '[manual]\nsource = "tcp://a"\n', "manual.source: "),
        ("client", CLIENT + '[manual]\nsource = "tcp://a:1/x"\n', "manual.source: "),
        ("client", CLIENT + '[manual]\ntarget = "a"\n', "manual.target: "),
        ("client", CLIENT + '[manual]\ntarget = "a:x"\n', "manual.target: "),
        (
            "client",
            CLIENT + "[manual.transport]\nreceive_window = 1023\n",
            "1023 is not a whole number of bytes from 1024 to 16777216",
        ),
        (
            "client",
            CLIENT + "[manual.transport]\nreceive_window = 16777217\n",
            "16777217 is not a whole number of bytes from 1024 to 16777216",
        ),
    ],
)
def test_every_message_of_the_original_about_files_has_its_counterpart(
    tmp_path: Path, side: str, text: str, ours: str
) -> None:
    file = write(tmp_path / "ice.toml", text)
    ended = run_ice(*side.split(), "-c", str(file))
    assert ended.status == ExitStatus.INVALID_CONFIG
    assert f"{file}: " in ended.err and ours in ended.err and ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        # In the order of spec ice.md section 2, "Run-time", as far as it is about options.
        (["server", "manual"], "no allowed network: give --allowed-tcp or --allowed-udp"),
        (["server", "nostr"], "no allowed network: give --allowed-tcp or --allowed-udp"),
        (["server", "nostr", *ALLOWED], "make one with `tunnel-rs-ice generate-nostr-key -o FILE`"),
        (["client", "nostr", *TUNNEL], "make one with `tunnel-rs-ice generate-nostr-key -o FILE`"),
        (
            ["client", "nostr", "--nsec", KEY, *TUNNEL],
            "no npub of the other side: give --peer-npub",
        ),
        (["client", "nostr", "--nsec", KEY, "--nsec-file", "x", *TUNNEL], "cannot be given beside"),
        (["client", "nostr", "--nsec", " ", *TUNNEL], "--nsec: the key is neither nsec1... nor 64"),
        (["client", "manual"], "no source: give --source"),
        (["client", "manual", "-s", "tcp://a:1"], "no target: give --target"),
        (["client", "manual", "-s", "tcp://a:1", "-t", "udp://b:1"], "differ in protocol"),
        (["client", "manual", "-s", "tcp://a:1", "-t", "b:1/x"], "--target: "),
        (["client", "manual", "-s", "a:1", "-t", "b:1"], "must start with tcp:// or udp://"),
        (["client", "nostr", "--nsec", PEER, *TUNNEL], "this is a public key (npub)"),
        (
            ["client", "nostr", "--peer-npub", "npub1", *TUNNEL],
            "neither npub1... nor 64 hex digits",
        ),
        (["client", "nostr", "--relay", "https://x", *TUNNEL], "not the URL of a Nostr relay"),
        (
            ["server", "manual", *ALLOWED, "--no-stun", "--stun-server", "x"],
            "cannot be given beside",
        ),
        (["server"], "no mode: write `manual` or `nostr` after the command"),
        (["server", "manual", "-c", "x", "--default-config"], "cannot be given beside -c/--config"),
    ],
)
def test_every_message_of_the_original_about_options_has_its_counterpart(
    arguments: list[str], ours: str
) -> None:
    ended = run_ice(*arguments)
    assert ended.status == ExitStatus.USAGE
    assert ours in ended.err and ended.err.count("\n") == 1 and KEY not in ended.err


def test_an_empty_or_missing_key_file_and_one_that_exists_are_told(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.nsec", "")
    for file, problem in ((empty, "is empty"), (tmp_path / "none", "cannot be read")):
        ended = run_ice("client", "nostr", "--nsec-file", str(file), "--peer-npub", PEER, *TUNNEL)
        assert ended.status == ExitStatus.INVALID_CONFIG and problem in ended.err
    ended = run_ice("generate-nostr-key", "-o", str(empty))
    assert ended.status == ExitStatus.FAILURE and "exists and is not replaced; --force" in ended.err
