import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.discovery import dns_server, packet

from tunnel_rs.errors import ConfigError, ProtocolError, TunnelError, UnreachableError
from tunnel_rs.iroh.pkarr_client import PkarrClient

PACKET = packet()
PEER = PACKET.endpoint_id


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def scripted(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A TCP server that reads a request's head and says `answer`, or nothing. Gives its URL and
    what it has heard."""
    heard: list[bytes] = []
    talks: set[asyncio.Task[None] | None] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(talking := asyncio.current_task())
        assert talking is not None
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the client had enough

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"http://127.0.0.1:{port}/pkarr", heard
    await asyncio.gather(*(talking for talking in talks if talking))


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def why_get_fails(answer: bytes | None, *, timeout: float = 5.0) -> str:
    async with scripted(answer) as (url, _), PkarrClient(url, timeout=timeout) as client:
        with pytest.raises(TunnelError) as caught:
            await client.get(PEER)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_packet_is_published_and_fetched_and_verified() -> None:
    async with dns_server() as server:
        assert server.pkarr_url is not None
        async with PkarrClient(server.pkarr_url) as client:
            assert await client.get(PEER) is None
            await client.put(PACKET)
            assert await client.get(PEER) == PACKET


async def test_the_request_is_as_plain_as_irohs() -> None:
    async with scripted(reply("204 No Content")) as (url, heard), PkarrClient(url) as client:
        await client.put(PACKET)
    head, *headers = heard[0].decode().lower().split("\r\n")
    assert head == f"put /pkarr/{PEER.z32} http/1.1"
    assert {line.partition(":")[0] for line in headers if line} == {
        "host",
        "accept",
        "content-length",
    }


async def test_a_packet_of_somebody_else_is_refused() -> None:
    async with (
        scripted(reply("200 OK", packet(2).payload)) as (url, _),
        PkarrClient(url) as client,
    ):
        with pytest.raises(ProtocolError, match="signature"):
            await client.get(PEER)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply("429 Too Many Requests", b'{"detail":"slow down"}'), "429.*slow down"),
        (reply("500 Oops", b"a\r\nb\x1b[31m"), r"500 a  b \[31m"),
        (reply("301 Moved", b"", "Location: https://new.example/pkarr"), "new.example.*that URL"),
        (reply("200 OK", bytes(1073)), "1073 bytes"),
        (reply("200 OK", bytes(5_000_000)), "1073 bytes"),
        (reply("200 OK", bytes(10)), "10 bytes"),
        (reply("200 OK", PACKET.payload, "Content-Encoding: gzip"), "encoded"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "127.0.0.1"),
        (b"SSH-2.0-OpenSSH\r\n", "127.0.0.1"),
        (b"", "closed the connection"),
    ],
)
async def test_a_server_that_misbehaves_is_named_with_the_reason(
    answer: bytes, reason: str
) -> None:
    text = await why_get_fails(answer)
    assert re.search(reason, text), text


async def test_a_server_that_says_nothing_is_given_up() -> None:
    assert "no answer within 0.05 s" in await why_get_fails(None, timeout=0.05)


async def test_a_server_that_is_not_there_is_named() -> None:
    async with scripted(b"") as (url, _):
        pass
    async with PkarrClient(url) as client:
        with pytest.raises(UnreachableError, match="Connection refused") as caught:
            await client.put(PACKET)
    assert url in str(caught.value)
    assert caught.value.transient


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(reply("200 OK", PACKET.payload)) as (proxy, heard):
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/pkarr"))
        async with PkarrClient("http://discovery.example/pkarr") as client:
            assert await client.get(PEER) == PACKET
    assert heard[0].startswith(f"GET http://discovery.example/pkarr/{PEER.z32} ".encode())


async def test_a_proxy_that_is_no_url_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "ftp://x")
    async with PkarrClient("http://discovery.example/pkarr") as client:
        with pytest.raises(ConfigError, match="http_proxy"):
            await client.put(PACKET)


async def test_a_ca_file_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name, reason in (("absent.pem", "No such file"), ("empty.pem", "no PEM")):
        with pytest.raises(ConfigError, match=reason):
            PkarrClient("https://x/pkarr", ca_file=tmp_path / name)
