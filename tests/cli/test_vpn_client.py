"""Tests of `tunnel-rs-vpn client` up to where it needs privileges; the rest is in `netns`."""

from pathlib import Path

import pytest
from tests.support.program import run_vpn
from tests.support.samples import ENDPOINT_ID, TOKEN

from tunnel_rs.errors import LocalError
from tunnel_rs.net import tun
from tunnel_rs.net.lock import InstanceLock, vpn_client_lock

ENOUGH = ("-n", ENDPOINT_ID, "--auth-token", TOKEN)


def test_without_anything_it_says_what_is_missing() -> None:
    ended = run_vpn("client")
    assert ended.status == 2
    assert "no server: give --server-node-id" in ended.err


def test_without_a_device_it_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str | None) -> None:
        raise LocalError("no permission to create a TUN device")

    monkeypatch.setattr(tun, "open_tun", refuse)
    ended = run_vpn("client", *ENOUGH, environ={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert ended.status == 1
    assert ended.err.splitlines()[-1] == "error: no permission to create a TUN device"
    assert TOKEN not in ended.err


@pytest.mark.parametrize("command", [("client", *ENOUGH), ("cleanup",)], ids=lambda c: c[0])
def test_while_another_client_runs_it_refuses(tmp_path: Path, command: tuple[str, ...]) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with InstanceLock(vpn_client_lock(environment)):
        ended = run_vpn(*command, environ=environment)
    assert ended.status == 1
    assert "another VPN client is running" in ended.err
