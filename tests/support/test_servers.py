"""The real programs answer without a tunnel: what fails behind one is then the tunnel."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support import servers

pytestmark = pytest.mark.interop


async def test_openssh_lets_the_user_in(tmp_path: Path) -> None:
    async with servers.sshd(tmp_path) as sshd:
        ssh = (servers.find("ssh"), *sshd.options, "-p", str(sshd.port), sshd.login)
        assert await servers.output_of(*ssh, "echo inside") == "inside\n"


async def test_nginx_serves_a_file(tmp_path: Path) -> None:
    async with servers.nginx(tmp_path) as port:
        (tmp_path / "www" / "page").write_text("content")
        url = f"http://127.0.0.1:{port}/page"
        assert await servers.output_of(servers.find("curl"), "-sSf", url) == "content"


async def test_dnsmasq_answers_for_its_names() -> None:
    async with servers.dnsmasq(dict(servers.numbered(3))) as port:
        dig = (servers.find("dig"), "@127.0.0.1", "-p", str(port), "+short", "+tries=1")
        assert await servers.output_of(*dig, "host2.example") == "192.0.2.2\n"


async def test_a_program_that_ends_early_fails_with_what_it_printed() -> None:
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        async with servers.running("/bin/sh", "-c", "echo no such thing", ready="ready"):
            pass


async def test_a_program_is_ended_also_when_the_test_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        async with servers.running("/bin/sh", "-c", "echo up; exec sleep 600", ready="up") as it:
            raise ZeroDivisionError
    assert it.process.returncode == -15


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_what_a_program_leaves_behind_is_ended_too() -> None:
    script = "setsid sleep 600 & echo $!; wait"
    async with servers.running("/bin/sh", "-c", script) as program:
        child = int((await program.line(r"\d+")).string)
        assert servers.descendants(program.process.pid) == [child]
    assert state(child) in "XZ"


def state(pid: int) -> str:
    """Of a process, as in proc(5); Z and X are dead, and so is one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "X"


async def test_free_ports_differ_and_can_be_bound() -> None:
    ports = {servers.free_port() for _ in range(5)}
    assert len(ports) == 5
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", ports.pop()):
        pass
