import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.program import Ended, run_ice, tunnel_rs
from tests.support.samples import CLIENT_FILE, SECRET_KEY, SERVER_FILE, TOKEN, write


def test_a_good_file_is_shown_with_every_value_and_its_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "s.toml", SERVER_FILE)
    ended = tunnel_rs("check-config", str(file))
    lines = ended.out.splitlines()
    assert (ended.status, ended.err) == (0, "")
    assert lines[0] == f"{file}: good for `tunnel-rs server`"
    assert f"  iroh.allowed_sources.tcp = 127.0.0.0/8  ({file}: iroh.allowed_sources.tcp)" in lines
    assert f"  iroh.secret = ***  ({file}: iroh.secret)" in lines
    assert "  iroh.max_sessions = 100  (default)" in lines
    assert "  iroh.allowed_sources.udp = -  (default)" in lines
    assert "  iroh.transport.idle_timeout = 300  (default)" in lines


def test_no_secret_is_shown(tmp_path: Path) -> None:
    for text in (SERVER_FILE, CLIENT_FILE):
        file = write(tmp_path / "x.toml", text)
        for ended in (
            tunnel_rs("check-config", str(file)),
            tunnel_rs("check-config", "--json", str(file)),
        ):
            assert ended.status == 0
            assert TOKEN not in ended.out and SECRET_KEY not in ended.out


def test_the_environment_counts(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", CLIENT_FILE.replace("auth_token", "#auth_token"))
    ended = tunnel_rs("check-config", str(file), environ={"TUNNEL_RS_AUTH_TOKEN": TOKEN})
    assert ended.status == 0
    assert "  iroh.auth_token = ***  (TUNNEL_RS_AUTH_TOKEN)" in ended.out.splitlines()
    assert "  iroh.reconnect = true  (default)" in ended.out.splitlines()


def test_json_is_one_object_on_stdout(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", CLIENT_FILE)
    event = json.loads(tunnel_rs("check-config", str(file), "--json").out)
    assert (event["event"], event["role"], event["file"]) == ("config", "client", str(file))
    assert event["settings"]["iroh.target"] == {
        "value": "127.0.0.1:2222",
        "origin": f"{file}: iroh.target",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            SERVER_FILE.replace("tcp", "tpc"),
            "{}: iroh.allowed_sources.tpc: unknown key (did you mean 'iroh.allowed_sources.tcp'?)",
        ),
        (
            SERVER_FILE.replace('["127.0.0.0/8"]', "[]"),
            "{}: no allowed network: set iroh.allowed_sources.tcp or iroh.allowed_sources.udp, "
            "or give --allowed-tcp or --allowed-udp, for example 127.0.0.0/8; "
            "without one nothing may be forwarded",
        ),
        (
            'role = "vpnclient"\nmode = "nostr"',
            "{}: mode: expected \"iroh\", got 'nostr'; this file is for tunnel-rs-ice",
        ),
    ],
)
def test_a_bad_file_is_told_on_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = write(tmp_path / "x.toml", text)
    ended = tunnel_rs("check-config", str(file))
    assert (ended.status, ended.out) == (6, "")
    assert ended.err == f"error: {problem.format(file)}\n"


def test_json_tells_of_a_bad_file_too(tmp_path: Path) -> None:
    file = write(tmp_path / "x.toml", "")
    ended = tunnel_rs("check-config", "--json", str(file))
    event = json.loads(ended.out)
    assert (event["event"], event["exit_status"]) == ("error", 6)
    assert ended.err == f"error: {event['message']}\n"


ICE_FILE = """\
role = "server"
mode = "manual"
[manual]
stun_servers = []
turn_servers = ["turn:user:sesame@turn.example.org"]
[manual.allowed_sources]
udp = ["::1/128"]
"""


@pytest.mark.parametrize("program", [tunnel_rs, run_ice])
def test_a_file_of_tunnel_rs_ice_is_checked_by_any_program(
    tmp_path: Path, program: Callable[..., Ended]
) -> None:
    file = write(tmp_path / "ice.toml", ICE_FILE)
    ended = program("check-config", str(file))
    lines = ended.out.splitlines()
    assert (ended.status, ended.err) == (0, "")
    assert lines[0] == f"{file}: good for `tunnel-rs-ice server`"
    assert f"  manual.allowed_sources.udp = ::1/128  ({file}: manual.allowed_sources.udp)" in lines
    assert "  manual.connect_timeout = 30  (default)" in lines
    assert "sesame" not in ended.out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ICE_FILE.replace("stun_", "stum_"), "did you mean 'manual.stun_servers'?"),
        (ICE_FILE.replace("udp", "#"), "no allowed network: set manual.allowed_sources.tcp or"),
        (ICE_FILE.replace("server", "client", 1), "only for a server, this is a client file"),
        (ICE_FILE.replace('mode = "manual"', ""), 'write mode = "manual" or mode = "nostr"'),
        (ICE_FILE.replace('"manual"', '"nostr"'), 'this file has mode = "nostr"'),
        (ICE_FILE + "[manual.transport]\nreceive_window = 1\n", "from 1024 to 16777216"),
        (ICE_FILE.replace("::1/128", "::2/64"), "host bits"),
    ],
)
def test_a_mistake_in_a_file_of_tunnel_rs_ice_is_told(
    tmp_path: Path, text: str, problem: str
) -> None:
    ended = run_ice("check-config", str(write(tmp_path / "ice.toml", text)))
    assert (ended.status, ended.out) == (6, "") and problem in ended.err
