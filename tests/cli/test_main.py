"""The program as a whole, and the bad input that users give it: each with its exact outcome."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.support.program import tunnel_rs
from tests.support.samples import (
    BAD_TOKEN,
    CLIENT_FILE,
    CLIENT_HEAD,
    ENDPOINT_ID,
    SECRET_KEY,
    SERVER_FILE,
    SERVER_HEAD,
    TOKEN,
    write,
)

from tunnel_rs import __version__
from tunnel_rs.cli.main import COMMANDS, cli

SECRETS = ("--secret", SECRET_KEY, "--auth-tokens", TOKEN)
SERVER = ("server", *SECRETS, "--allowed-tcp", "127.0.0.0/8")
PEER = ("client", "-n", ENDPOINT_ID, "--auth-token", TOKEN)
CLIENT = (*PEER, "-s", "tcp://127.0.0.1:22", "-t", "127.0.0.1:2222")

ONLY_ID = "an EndpointId has 64 hex digits or 52 base32 characters, this has"
TYPO = "a typing error; copy it again"

USAGE = [
    # Misspelt and misplaced
    (
        ("serve",),
        "no such command 'serve' (did you mean 'server'?); see `tunnel-rs --help`",
    ),
    (("zzz",), "no such command 'zzz'; see `tunnel-rs --help`"),
    (
        ("--verison",),
        "no such option '--verison' (did you mean '--version'?); see `tunnel-rs --help`",
    ),
    (
        (*SERVER, "--max-session", "3"),
        "no such option '--max-session' (did you mean '--max-sessions'?); "
        "see `tunnel-rs server --help`",
    ),
    (
        (*CLIENT, "--allowed-tcp", "::1"),
        "no such option '--allowed-tcp'; see `tunnel-rs client --help`",
    ),
    (
        (*SERVER, "--relay-url", "relay.example"),
        "--relay-url: 'relay.example' must start with https:// or http://",
    ),
    (
        (*SERVER, "--relay-url", "none", "--relay-url", "https://relay.example/"),
        "--relay-url: none cannot be given beside a relay",
    ),
    (
        (*SERVER, "--relay-only"),
        "--relay-only: needs a relay of your own; give --relay-url",
    ),
    (
        (*SERVER, "--relay-only", "--bind", "127.0.0.1:0"),
        "--bind: cannot be given beside --relay-only; keep one of them",
    ),
    (
        (*SERVER, "--dns-server", "https://dns.example"),
        "--dns-server: 'https://dns.example' has no path; "
        "most servers want https://dns.example/pkarr",
    ),
    ((*SERVER, "extra"), "got unexpected extra argument (extra); see `tunnel-rs server --help`"),
    (
        ("client", TOKEN),
        "got unexpected extra argument (***); see `tunnel-rs client --help`",
    ),
    (
        ("generate-server-key",),
        "missing option '-o' / '--output'; see `tunnel-rs generate-server-key --help`",
    ),
    # Contradictions
    (
        ("server", "-c", "x", "--default-config"),
        "--default-config cannot be given beside -c/--config; keep one of them",
    ),
    (
        (*SERVER, "--secret-file", "x"),
        "--secret-file: cannot be given beside --secret; keep one of them",
    ),
    (
        (*CLIENT, "--auth-token-file", "x"),
        "--auth-token-file: cannot be given beside --auth-token; keep one of them",
    ),
    ((*CLIENT, "--stdio"), "--target: cannot be given beside --stdio; keep one of them"),
    # Missing
    (
        ("server", *SECRETS),
        "no allowed network: give --allowed-tcp or --allowed-udp, for example 127.0.0.0/8; "
        "without one nothing may be forwarded",
    ),
    (
        ("server", "--auth-tokens", TOKEN, "--allowed-tcp", "::1"),
        "no server key: give --secret-file or --secret; "
        "make one with `tunnel-rs generate-server-key -o FILE`",
    ),
    (
        ("server", "--secret", SECRET_KEY, "--allowed-tcp", "::1"),
        "no auth token: give --auth-tokens or --auth-tokens-file; "
        "make one with `tunnel-rs generate-token`",
    ),
    (
        ("client", "--auth-token", TOKEN, "-s", "tcp://a:1", "-t", "b:1"),
        "no server: give --server-node-id (the server prints it as EndpointId)",
    ),
    (
        ("client", "-n", ENDPOINT_ID, "-s", "tcp://a:1", "-t", "b:1"),
        "no auth token: give --auth-token-file or --auth-token",
    ),
    (PEER, "no source: give --source (or --socks5)"),
    ((*PEER, "-s", "tcp://a:1"), "no target: give --target (host:port to listen on)"),
    # CIDR
    (
        ("server", *SECRETS, "--allowed-tcp", "10.0.0.1/8"),
        "--allowed-tcp: '10.0.0.1/8' has host bits set; write 10.0.0.0/8 or 10.0.0.1",
    ),
    (
        ("server", *SECRETS, "--allowed-udp", "10.0.0.0/33"),
        "--allowed-udp: '10.0.0.0/33' is not a network; write 10.0.0.0/8, 192.0.2.7/32 or fd00::/8",
    ),
    (
        ("server", *SECRETS, "--allowed-tcp", "localhost"),
        "--allowed-tcp: 'localhost' is not a network; write 10.0.0.0/8, 192.0.2.7/32 or fd00::/8",
    ),
    # URL and port
    (
        (*PEER, "-s", "127.0.0.1:22", "-t", "b:1"),
        "--source: '127.0.0.1:22' must start with tcp:// or udp://",
    ),
    (
        (*PEER, "-s", "http://a:1", "-t", "b:1"),
        "--source: 'http://a:1' must start with tcp:// or udp://",
    ),
    (
        (*PEER, "-s", "tcp://a", "-t", "b:1"),
        "--source: 'a' has no port; write host:port",
    ),
    ((*PEER, "-s", "tcp://a:0", "-t", "b:1"), "--source: port 0 is outside 1-65535"),
    ((*PEER, "-s", "tcp://a:65536", "-t", "b:1"), "--source: port 65536 is outside 1-65535"),
    ((*PEER, "-s", "tcp://a:x", "-t", "b:1"), "--source: port 'x' is not a number"),
    (
        (*PEER, "-s", "tcp://a:1/x", "-t", "b:1"),
        "--source: 'tcp://a:1/x' holds more than a host and a port",
    ),
    (
        (*PEER, "-s", "tcp://fe80::1%eth0:1", "-t", "b:1"),
        "--source: 'fe80::1%eth0:1': put an IPv6 address in brackets, [address]:port",
    ),
    (
        (*PEER, "-s", "tcp://[fe80::1%eth0]:1", "-t", "b:1"),
        "--source: a scope id (the part after %) is not accepted",
    ),
    ((*PEER, "-s", "tcp://a:1", "-t", "2222"), "--target: '2222' has no port; write host:port"),
    (
        (*PEER, "-s", "tcp://a:1", "-t", "udp://127.0.0.1:1"),
        "--target: udp://127.0.0.1:1 and the source tcp://a:1 differ in protocol; "
        "make them the same",
    ),
    ((*PEER, "--socks5", "1080"), "--socks5: '1080' has no port; write host:port"),
    (
        (*CLIENT, "--peer-addr", "server.example:4433"),
        "--peer-addr: 'server.example' is a name; an IP address is needed",
    ),
    ((*CLIENT, "--peer-addr", "192.0.2.1:0"), "--peer-addr: port 0 is outside 1-65535"),
    ((*SERVER, "--bind", "4433"), "--bind: '4433' has no port; write host:port"),
    # Numbers
    (
        (*SERVER, "--max-sessions", "0"),
        "--max-sessions: 0 is not a whole number from 1 to 100000",
    ),
    (
        (*CLIENT, "--connect-timeout", "soon"),
        "--connect-timeout: 'soon' is not a number of seconds from 0.1 to 600",
    ),
    # EndpointId
    (("client", "-n", "abc"), f"--server-node-id: {ONLY_ID} 3"),
    (
        ("client", "-n", ENDPOINT_ID.upper()),
        "--server-node-id: 64 characters that are not lower-case hex digits; "
        "write it in lower case",
    ),
    (
        ("client", "-n", "g" * 64),
        "--server-node-id: 64 characters that are not lower-case hex digits",
    ),
    (("client", "-n", "1" * 52), "--server-node-id: 52 characters that are not base32 (a-z, 2-7)"),
    (
        ("client", "-n", "02" + "00" * 31),
        "--server-node-id: not a public key (no point of the curve); copy it again",
    ),
    # Tokens
    (
        ("client", "--auth-token", TOKEN[:-1]),
        "--auth-token: a token has 18 characters, this has 17",
    ),
    (
        ("client", "--auth-token", "x" + TOKEN[1:]),
        "--auth-token: a token begins with 'i', this does not",
    ),
    (
        ("client", "--auth-token", TOKEN[:4] + "!" + TOKEN[5:]),
        "--auth-token: character 5 of the token is none of A-Z a-z 0-9 - _ . ; copy it again",
    ),
    (
        ("server", "--auth-tokens", BAD_TOKEN),
        f"--auth-tokens: the token's check character does not fit: {TYPO}",
    ),
    # Keys
    (
        ("server", "--secret", "AAAA"),
        "--secret: a secret key has 32 bytes, this has 3",
    ),
    (("server", "--secret", "!"), "--secret: the secret key is not base64"),
]


@pytest.mark.parametrize(("arguments", "line"), USAGE, ids=[line for _, line in USAGE])
def test_a_mistake_on_the_command_line_is_one_line_and_status_2(
    arguments: tuple[str, ...], line: str
) -> None:
    ended = tunnel_rs(*arguments)
    assert ended.err == f"error: {line}\n"
    assert (ended.status, ended.out) == (2, "")


CONFIG = [
    # Keys
    (
        "server",
        SERVER_FILE + "upd = []\n",
        "iroh.allowed_sources.upd: unknown key (did you mean 'iroh.allowed_sources.udp'?)",
    ),
    ("client", CLIENT_FILE + "colour = 1\n", "iroh.colour: unknown key"),
    (
        "client",
        CLIENT_FILE + "max_sessions = 1\n",
        "iroh.max_sessions: only for a server, this is a client file; remove it",
    ),
    (
        "server",
        SERVER_HEAD + '[iroh]\nrequest_source = "tcp://a:1"\n',
        "iroh.request_source: only for a client, this is a server file; "
        "a server's allowed_sources say what clients may ask for",
    ),
    (
        "client",
        CLIENT_FILE + 'relay_urls = ["ftp://relay.example/"]\n',
        "iroh.relay_urls: item 1: 'ftp://relay.example/' must start with https:// or http://",
    ),
    (
        "client",
        CLIENT_FILE + "relay_only = true\n",
        "iroh.relay_only: not accepted in a file; it is an option of the command line only",
    ),
    (
        "client",
        CLIENT_FILE + 'dns_server = "public"\n',
        "iroh.dns_server: 'public' is not a URL like https://host/pkarr (or the word none)",
    ),
    # Role and mode
    (
        "server",
        CLIENT_FILE,
        'role: the file says "client", the command needs "server"; '
        "use `tunnel-rs client` or another file",
    ),
    (
        "client",
        CLIENT_FILE.replace('role = "client"\n', ""),
        'role is missing; write role = "server" or role = "client" at the top',
    ),
    (
        "client",
        CLIENT_FILE.replace('mode = "iroh"\n', ""),
        'mode is missing; write mode = "iroh" at the top',
    ),
    (
        "client",
        CLIENT_FILE.replace('"iroh"', '"manual"'),
        "mode: expected \"iroh\", got 'manual'; this file is for tunnel-rs-ice",
    ),
    # Missing
    (
        "client",
        CLIENT_HEAD,
        "no server: set iroh.server_node_id, or give --server-node-id "
        "(the server prints it as EndpointId)",
    ),
    (
        "client",
        CLIENT_FILE.replace("auth_token", "#"),
        "no auth token: set iroh.auth_token_file or iroh.auth_token, "
        "or give --auth-token-file or --auth-token",
    ),
    (
        "server",
        SERVER_FILE.replace("secret =", "#"),
        "no server key: set iroh.secret_file or iroh.secret, or give --secret-file or --secret; "
        "make one with `tunnel-rs generate-server-key -o FILE`",
    ),
    # Values
    (
        "server",
        SERVER_FILE.replace("127.0.0.0/8", "127.0.0.1/8"),
        "iroh.allowed_sources.tcp: item 1: '127.0.0.1/8' has host bits set; "
        "write 127.0.0.0/8 or 127.0.0.1",
    ),
    (
        "server",
        SERVER_FILE.replace(TOKEN, BAD_TOKEN),
        f"iroh.auth_tokens: item 1: the token's check character does not fit: {TYPO}",
    ),
    (
        "server",
        SERVER_FILE.replace(SECRET_KEY, "AAAA"),
        "iroh.secret: a secret key has 32 bytes, this has 3",
    ),
    (
        "client",
        CLIENT_FILE.replace(ENDPOINT_ID, ENDPOINT_ID.upper()),
        "iroh.server_node_id: 64 characters that are not lower-case hex digits; "
        "write it in lower case",
    ),
    (
        "client",
        CLIENT_FILE.replace("tcp://127.0.0.1:22", "tcp://127.0.0.1"),
        "iroh.request_source: '127.0.0.1' has no port; write host:port",
    ),
    (
        "client",
        CLIENT_FILE.replace(":2222", ":22222222"),
        "iroh.target: port '22222222' is not a number",
    ),
    (
        "client",
        CLIENT_FILE + '[iroh.transport]\ncongestion_controller = "bbr"\n',
        "iroh.transport.congestion_controller: "
        "'bbr' is not available in this version; use 'cubic' or 'newreno'",
    ),
    (
        "client",
        CLIENT_FILE + 'connect_timeout = "10"\n',
        "iroh.connect_timeout: expected a number of seconds from 0.1 to 600, got a string",
    ),
    ("client", "role = client\n", "line 1, column 8: not valid TOML: invalid value"),
]


@pytest.mark.parametrize(("command", "text", "line"), CONFIG, ids=[line for *_, line in CONFIG])
def test_a_mistake_in_a_file_is_one_line_and_status_6(
    tmp_path: Path, command: str, text: str, line: str
) -> None:
    file = write(tmp_path / "x.toml", text)
    ended = tunnel_rs(command, "-c", str(file))
    assert ended.err == f"error: {file}: {line}\n"
    assert (ended.status, ended.out) == (6, "")


ABSENT = "cannot be read: No such file or directory"
FILES = [
    (("server", "-c", "{}/absent"), "{}/absent: " + ABSENT),
    (("server", "-c", "{}"), "{}: cannot be read: Is a directory"),
    (
        (*SERVER[:1], "--secret-file", "{}/absent", *SERVER[3:]),
        "the key file {}/absent does not exist; make one with: "
        "tunnel-rs generate-server-key -o {}/absent",
    ),
    (
        (*SERVER[:1], "--secret-file", "{}", *SERVER[3:]),
        "cannot read the key file {}: is a directory",
    ),
    (
        (*SERVER[:1], "--secret-file", "{}/short", *SERVER[3:]),
        "{}/short is no key file: a secret key has 32 bytes, this has 3",
    ),
    ((*SERVER, "--auth-tokens-file", "{}/absent"), "{}/absent: " + ABSENT),
    (
        (*SERVER, "--auth-tokens-file", "{}/tokens"),
        f"{{}}/tokens, line 3: the token's check character does not fit: {TYPO}",
    ),
    (
        (*CLIENT[:3], *CLIENT[5:], "--auth-token-file", "{}/tokens"),
        f"{{}}/tokens, line 3: the token's check character does not fit: {TYPO}",
    ),
    (
        (*CLIENT[:3], *CLIENT[5:], "--auth-token-file", "{}/empty"),
        "{}/empty: holds no token; make one with `tunnel-rs generate-token`",
    ),
]


@pytest.mark.parametrize(("arguments", "line"), FILES, ids=[line for _, line in FILES])
def test_a_bad_file_is_one_line_and_status_6(
    tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    write(tmp_path / "short", "AAAA\n")
    write(tmp_path / "empty", "# nothing\n")
    write(tmp_path / "tokens", f"# mine\n{TOKEN} # laptop\n{BAD_TOKEN}\n")
    ended = tunnel_rs(*(word.replace("{}", str(tmp_path)) for word in arguments))
    assert ended.err == f"error: {line.replace('{}', str(tmp_path))}\n"
    assert (ended.status, ended.out) == (6, "")


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"TUNNEL_RS_AUTH_TOKEN": BAD_TOKEN},
            f"TUNNEL_RS_AUTH_TOKEN: the token's check character does not fit: {TYPO}",
        ),
        (
            {"TUNNEL_RS_AUTH_TOKEN": TOKEN, "TUNNEL_RS_AUTH_TOKEN_FILE": "x"},
            "TUNNEL_RS_AUTH_TOKEN_FILE: cannot be given beside TUNNEL_RS_AUTH_TOKEN; "
            "keep one of them",
        ),
        ({"TUNNEL_RS_AUTH_TOKEN_FILE": "/absent"}, f"/absent: {ABSENT}"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line_and_status_6(
    environ: dict[str, str], line: str
) -> None:
    arguments = ("client", "-n", ENDPOINT_ID, "-s", "tcp://a:1", "-t", "b:1")
    ended = tunnel_rs(*arguments, environ=environ)
    assert (ended.status, ended.out, ended.err) == (6, "", f"error: {line}\n")


def test_the_default_file_is_named_when_it_is_absent(tmp_path: Path) -> None:
    ended = tunnel_rs("server", "--default-config", environ={"HOME": str(tmp_path)})
    path = tmp_path / ".config" / "tunnel-rs" / "server.toml"
    assert (ended.status, ended.err) == (6, f"error: {path}: {ABSENT}\n")


def test_no_command_shows_the_help_and_is_a_usage_error() -> None:
    ended = tunnel_rs()
    assert ended.status == 2
    assert ended.err.startswith("Usage: tunnel-rs [OPTIONS] COMMAND")
    assert all(command in ended.err for command in COMMANDS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example(command: str, flag: str) -> None:
    ended = tunnel_rs(*filter(None, [command]), flag)
    assert ended.status == 0
    assert "Example" in ended.out
    assert f"tunnel-rs {command}".rstrip() in ended.out.partition("Example")[2]
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_found_where_the_table_says(command: str) -> None:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None and found.name == command
    summary = found.get_short_help_str(limit=60)
    assert summary and not summary.endswith("...")


def test_the_version_is_printed() -> None:
    assert tunnel_rs("--version").out == f"tunnel-rs {__version__}\n"


def subprocess_of(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunnel_rs", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_the_module_runs_as_the_program() -> None:
    process = subprocess_of("server", "--alowed-tcp", "::1")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    text = "no such option '--alowed-tcp' (did you mean '--allowed-tcp'?)"
    assert err == f"error: {text}; see `tunnel-rs server --help`\n"


def test_the_quic_stack_is_not_loaded_for_a_token() -> None:
    code = (
        "import sys; from tunnel_rs.cli.main import cli; from tunnel_rs.cli import exits; "
        "status = exits.run(cli, ['generate-token'], 'tunnel-rs'); "
        "sys.exit(status or 'aioquic' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert ended.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_real_server_ends_cleanly_on_a_signal(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    file = write(tmp_path / "s.toml", SERVER_FILE + "[iroh.transport]\nidle_timeout = 30\n")
    offline = ("--relay-url", "none", "--dns-server", "none")
    process = subprocess_of("server", "-c", str(file), "--bind", "127.0.0.1:0", "--json", *offline)
    with process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith('{"event":"starting"')
        assert process.stdout.readline().startswith('{"event":"ready"')
        process.send_signal(number)
        rest, err = process.communicate(timeout=10)
    assert process.returncode == status
    assert "stopping" in rest
    assert err == ""
