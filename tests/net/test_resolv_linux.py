import shutil
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.commands import FakeRun

from tunnel_rs.errors import LocalError
from tunnel_rs.net import resolv_linux
from tunnel_rs.net.resolv_linux import Resolvers

BEFORE = "nameserver 192.0.2.53\n"
ADDRESSES, DOMAINS = (ip_address("10.7.0.1"), ip_address("fd07::1")), ("lan.example",)


class Bench:
    def __init__(
        self, folder: Path, tools: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.run = FakeRun()
        self.file = folder / "resolv.conf"
        self.file.write_text(BEFORE)
        self.resolved = folder / "resolved"
        monkeypatch.setattr(
            resolv_linux.shutil, "which", lambda name: name if name in tools else None
        )

    def resolvers(self) -> Resolvers:
        return Resolvers(run=self.run, resolved=self.resolved, resolv_conf=self.file)


async def test_systemd_resolved_is_told_about_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, ("resolvectl", "resolvconf"), monkeypatch)
    bench.resolved.mkdir()
    resolvers = bench.resolvers()
    await resolvers.use("vpn0", ADDRESSES, ())
    await resolvers.use("vpn0", ADDRESSES, ())
    assert bench.run.lines() == [
        "resolvectl dns vpn0 10.7.0.1 fd07::1",
        "resolvectl domain vpn0 ~.",
        "resolvectl default-route vpn0 yes",
    ]
    await resolvers.use("vpn0", ADDRESSES, DOMAINS)
    lines = bench.run.lines()
    assert lines[0] == "resolvectl revert vpn0"
    assert "resolvectl domain vpn0 lan.example" in lines
    await resolvers.restore()
    assert bench.run.lines() == ["resolvectl revert vpn0"]
    assert bench.file.read_text() == BEFORE


async def test_else_resolvconf_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, ("resolvectl", "resolvconf"), monkeypatch)
    resolvers = bench.resolvers()
    await resolvers.use("vpn0", ADDRESSES, DOMAINS)
    await resolvers.restore()
    assert bench.run.calls == [
        (
            ("resolvconf", "-a", "vpn0"),
            "nameserver 10.7.0.1\nnameserver fd07::1\nsearch lan.example\n",
        ),
        (("resolvconf", "-d", "vpn0"), ""),
    ]


async def test_else_the_file_is_rewritten_in_place_and_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, (), monkeypatch)
    inode = bench.file.stat().st_ino
    resolvers = bench.resolvers()
    await resolvers.use("vpn0", ADDRESSES, ())
    assert "nameserver 10.7.0.1\n" in bench.file.read_text()
    assert "192.0.2.53" not in bench.file.read_text()
    await resolvers.use("vpn0", (), ())
    assert bench.file.read_text() == BEFORE
    assert bench.file.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [bench.file]


async def test_what_a_killed_client_left_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, (), monkeypatch)
    await bench.resolvers().use("vpn0", ADDRESSES, ())
    bench.resolvers().clean()
    assert bench.file.read_text() == BEFORE
    bench.resolvers().clean()
    assert bench.file.read_text() == BEFORE


async def test_a_file_that_somebody_else_wrote_since_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, (), monkeypatch)
    resolvers = bench.resolvers()
    await resolvers.use("vpn0", ADDRESSES, ())
    bench.file.write_text("nameserver 203.0.113.1\n")
    await resolvers.restore()
    assert bench.file.read_text() == "nameserver 203.0.113.1\n"


async def test_a_file_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, (), monkeypatch)
    bench.file.unlink()
    bench.file.mkdir()
    with pytest.raises(LocalError, match="accept_dns = false"):
        await bench.resolvers().use("vpn0", ADDRESSES, ())


def test_the_tools_are_looked_for_where_they_are() -> None:
    assert resolv_linux.shutil is shutil
