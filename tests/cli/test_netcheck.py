"""`tunnel-rs netcheck`."""

import json
import sys
from pathlib import Path

import pytest
from tests.support.program import tunnel_rs
from tests.support.relay_network import relay_server
from tests.support.servers import running

from tunnel_rs.errors import ExitStatus
from tunnel_rs.iroh import netcheck_udp


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netcheck_udp, "_ANYWHERE", {4: "127.0.0.1", 6: "::1"})


def test_offline_it_contacts_nobody_and_explains_what_it_saw() -> None:
    ended = tunnel_rs("netcheck", "--offline")
    assert ended.status == 0 and ended.err == ""
    assert "IPv4: has a route" in ended.out
    assert "What this means:\n  - Nobody was asked over UDP" in ended.out


def test_json_is_one_object_on_one_line() -> None:
    ended = tunnel_rs("netcheck", "--offline", "--json")
    event = json.loads(ended.out)
    assert event["event"] == "netcheck" and event["relays"] == []
    assert [family["name"] for family in event["families"]] == ["IPv4", "IPv6"]
    assert ended.out.count("\n") == 1


async def test_it_tells_which_relay_works(tmp_path: Path) -> None:
    async with relay_server() as server:
        url = f"http://{server.addresses.http}"
        command = (sys.executable, "-m", "tunnel_rs", "netcheck", "--offline")
        options = ("--relay-url", url, "--relay-url", "http://127.0.0.1:1")
        async with running(*command, *options) as program:
            await program.line(rf"Relay {url}/: \d+\.\d ms, lets us in$")
            await program.line("Relay http://127.0.0.1:1/: no latency, cannot be used: Connection")
            await program.line(r"1 of 2 relay\(s\) can be used")
            await program.drain()
            assert await program.process.wait() == ExitStatus.DONE


def test_a_wrong_option_is_one_line_and_status_2() -> None:
    ended = tunnel_rs("netcheck", "--relay-url", "relay.example")
    assert ended.status == ExitStatus.USAGE
    assert ended.err.startswith("error: --relay-url: ") and ended.err.count("\n") == 1


def test_a_ca_file_that_is_none_is_status_6() -> None:
    ended = tunnel_rs("netcheck", "--offline", "--relay-ca-file", "/nowhere/ca.pem")
    assert ended.status == ExitStatus.INVALID_CONFIG
    assert ended.err == "error: relay_ca_file /nowhere/ca.pem: No such file or directory\n"
