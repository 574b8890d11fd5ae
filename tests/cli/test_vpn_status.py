import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.program import run_vpn

from tunnel_rs.cli import programs
from tunnel_rs.cli.vpn_status import lines
from tunnel_rs.net import control_socket

TRAFFIC = {
    "sent_packets": 1,
    "sent_bytes": 2,
    "received_packets": 3,
    "received_bytes": 4,
    "dropped": {},
}
CLIENT = {
    "role": "vpnclient",
    "device": "tunnel0",
    "connected": True,
    "peer": "d75a980182b1",
    "path": "192.0.2.1:4433",
    "rtt_ms": 1.5,
    "addresses": ["10.7.0.2"],
    **TRAFFIC,
}
SERVER = {
    "role": "vpnserver",
    "device": "tunnel0",
    "addresses": ["10.7.0.1/24"],
    "clients": [{**CLIENT, "name": "alice", "rtt_ms": None, "dropped": {"spoofed": 7, "full": 1}}],
    "dropped": {"no such client": 3},
    "counts": {"clients_refused": 2, "clients_admitted": 1},
    "penalties": {
        "sources": 1,
        "longest": [{"source": "192.0.2.9", "seconds": 5, "failures": 4}],
    },
}


def test_nobody_runs(tmp_path: Path) -> None:
    ended = run_vpn("status", environ={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert (ended.status, ended.out) == (1, "")
    assert "no VPN server or VPN client of this user is running" in ended.err


SILENT = [Path("tunnel-rs-vpn-vpnclient-9.sock"), Path("tunnel-rs-server-8.sock")]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    answers = control_socket.Answers(
        {Path("client.sock"): CLIENT, Path("server.sock"): SERVER},
        SILENT,
    )
    monkeypatch.setattr(programs, "ask_all", lambda directory, pattern: answers)
    yield


@pytest.mark.usefixtures("running")
def test_programs_get_one_json_object_each() -> None:
    ended = run_vpn("status", "--json")
    assert ended.status == 0
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {"event": "status", **CLIENT},
        {"event": "status", **SERVER},
    ]


@pytest.mark.usefixtures("running")
def test_a_program_that_does_not_answer_is_named() -> None:
    told = run_vpn("status").err
    assert "tunnel-rs-vpn-vpnclient-9 does not answer" in told
    assert "server-8" not in told  # no part of the VPN


@pytest.mark.usefixtures("running")
def test_people_get_lines() -> None:
    assert run_vpn("status").out.splitlines() == [
        "client on tunnel0: 10.7.0.2; peer d75a980182 at 192.0.2.1:4433, round trip 1.5 ms",
        "  sent 1 packets (2 B), received 3 (4 B)",
        "server on tunnel0: 10.7.0.1/24; 1 client(s)",
        "  10.7.0.2 (alice): peer d75a980182 at 192.0.2.1:4433",
        "    sent 1 packets (2 B), received 3 (4 B); dropped: 1 full, 7 spoofed",
        "  dropped: 3 no such client",
        "  errors: 2 clients refused",
        "  slowed down after wrong tokens: 192.0.2.9 (4 failures, 5 s left)",
    ]


def test_a_client_without_a_link() -> None:
    first, _ = lines({**CLIENT, "connected": False, "addresses": []})
    assert first == "client on tunnel0: no address; not connected"
