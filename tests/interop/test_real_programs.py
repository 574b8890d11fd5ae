"""Programs that people use, through our programs."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.servers import OurServer, find, our_client, our_server, output_of
from tests.support.sockets import connect, read_to_eof, send

pytestmark = pytest.mark.interop

REQUESTS = 200


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[OurServer]:
    allowed = ("--allowed-tcp", "127.0.0.0/8", "--allowed-udp", "127.0.0.0/8")
    async with our_server(tmp_path, *allowed, "--max-sessions", "500") as running:
        yield running


def tunnel(source: str) -> tuple[str, ...]:
    return ("-s", source, "-t", "127.0.0.1:0")


async def test_openssh_login_and_a_copy_both_ways(server: OurServer, tmp_path: Path) -> None:
    payload = os.urandom(5_000_000)
    (tmp_path / "sent").write_bytes(payload)
    async with (
        servers.sshd(tmp_path) as sshd,
        our_client(server.client, *tunnel(f"tcp://127.0.0.1:{sshd.port}")) as (port,),
    ):
        ssh = (find("ssh"), *sshd.options, "-p", str(port), sshd.login)
        assert await output_of(*ssh, "cat", stdin=b"typed") == "typed"
        scp = (find("scp"), *sshd.options, "-P", str(port))
        there, back = tmp_path / "there", tmp_path / "back"
        await output_of(*scp, tmp_path / "sent", f"{sshd.login}:{there}")
        await output_of(*scp, f"{sshd.login}:{there}", back)
    assert there.read_bytes() == payload
    assert back.read_bytes() == payload


async def test_openssh_by_a_proxy_command_without_a_listener(
    server: OurServer, tmp_path: Path
) -> None:
    async with servers.sshd(tmp_path) as sshd:
        source = ("-s", f"tcp://127.0.0.1:{sshd.port}", "--stdio")
        proxy = " ".join([*server.client, *source])
        ssh = (find("ssh"), *sshd.options, f"-oProxyCommand={proxy}", sshd.login)
        assert (
            await output_of(*ssh, "cat; echo done", stdin=b"x" * 200_000)
            == "x" * 200_000 + "done\n"
        )


async def test_nginx_answers_200_requests_at_once(server: OurServer, tmp_path: Path) -> None:
    page = os.urandom(100_000)
    async with (
        servers.nginx(tmp_path) as web,
        our_client(server.client, *tunnel(f"tcp://127.0.0.1:{web}")) as (port,),
    ):
        (tmp_path / "www" / "page").write_bytes(page)
        answers = await asyncio.gather(*(get(port, "/page") for _ in range(REQUESTS)))
    assert {hashlib.sha256(answer).digest() for answer in answers} == {
        hashlib.sha256(page).digest()
    }


async def get(port: int, path: str) -> bytes:
    """The body of an HTTP answer with status 200."""
    with await connect(("127.0.0.1", port)) as sock:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        await send(sock, request.encode())
        head, _, body = (await read_to_eof(sock)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    return body


async def test_a_dns_server_answers_several_clients_at_once_over_udp(server: OurServer) -> None:
    names = dict(servers.numbered(20))
    async with (
        servers.dnsmasq(names) as dns,
        our_client(server.client, *tunnel(f"udp://127.0.0.1:{dns}")) as (port,),
    ):
        dig = (find("dig"), "@127.0.0.1", "-p", str(port), "+short", "+tries=1", "+timeout=10")
        answers = await asyncio.gather(*(output_of(*dig, name) for name in names))
    assert [answer.strip() for answer in answers] == list(names.values())


async def test_curl_by_socks5_leaves_the_name_to_the_server(
    server: OurServer, tmp_path: Path
) -> None:
    async with (
        servers.nginx(tmp_path) as web,
        our_client(server.client, "--socks5", "127.0.0.1:0") as (port,),
    ):
        (tmp_path / "www" / "page").write_text("by socks")
        proxy = ("--socks5-hostname", f"127.0.0.1:{port}")
        curl = (find("curl"), "-sSf", "--noproxy", "", *proxy)
        assert await output_of(*curl, f"http://localhost:{web}/page") == "by socks"
        assert await output_of(*curl, f"http://127.0.0.1:{web}/page") == "by socks"
