"""Tests of `tunnel-rs-vpn server` up to where it needs privileges; the rest is in `netns`."""

from pathlib import Path

import pytest
from tests.support.program import run_vpn
from tests.support.samples import TOKEN

from tunnel_rs.errors import LocalError
from tunnel_rs.net import tun


def test_without_anything_it_says_what_is_missing() -> None:
    ended = run_vpn("server")
    assert ended.status == 2
    assert ended.err == (
        "error: no network: give --network or --network6, for example 10.0.0.0/24\n"
    )


def test_without_a_device_it_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str | None) -> None:
        raise LocalError(f"no permission to create the TUN device {name}")

    monkeypatch.setattr(tun, "open_tun", refuse)
    key = tmp_path / "key"
    assert run_vpn("generate-server-key", "-o", str(key)).status == 0
    secrets = ("--secret-file", str(key), "--auth-tokens", TOKEN)
    ended = run_vpn("server", *secrets, "--network", "10.0.0.0/24", "--device", "vpn0")
    assert ended.status == 1
    assert ended.err.splitlines()[-1] == "error: no permission to create the TUN device vpn0"
    assert TOKEN not in ended.err


def test_a_file_of_the_other_program_is_named(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('role = "server"\nmode = "iroh"\n')
    ended = run_vpn("server", "-c", str(file))
    assert ended.status == 6
    assert "use `tunnel-rs server` or another file" in ended.err
