"""The library: a server and a client in one program, on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import tunnel_rs
from tunnel_rs import errors
from tunnel_rs.config.keyfile import write_secret_key
from tunnel_rs.proto.identity import generate_secret_key
from tunnel_rs.reports import Report, TunnelUp

TOKEN = "iAAAAAAAAAAAAAAAAA"
OTHER_TOKEN = "iabcdefghijklmnopg"


def server_config(folder: Path) -> tunnel_rs.ServerConfig:
    key = folder / "server.key"
    write_secret_key(key, generate_secret_key(lambda size: bytes(range(size))), force=True)
    return tunnel_rs.server_config(
        secret_file=str(key),
        auth_tokens=[TOKEN],
        allowed_tcp=["127.0.0.0/8"],
        bind="127.0.0.1:0",
        relay_urls=["none"],
        dns_server="none",
    )


def client_config(
    server: tunnel_rs.Server, token: str = TOKEN, tunnels: dict[str, str] | None = None
) -> tunnel_rs.ClientConfig:
    return tunnel_rs.client_config(
        str(server.endpoint_id),
        auth_token=token,
        tunnels=tunnels,
        peer_addrs=[str(server.addresses[0])],
        relay_urls=["none"],
        dns_server="none",
    )


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A service that says everything again; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    service = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield service.sockets[0].getsockname()[1]
    finally:
        service.close()
        await service.wait_closed()


async def test_a_stream_of_our_own_carries_bytes_and_the_end_of_each_direction(
    tmp_path: Path,
) -> None:
    async with (
        echo() as port,
        tunnel_rs.serve(server_config(tmp_path)) as server,
        tunnel_rs.connect(client_config(server)) as client,
    ):
        reader, writer = await client.open(f"tcp://127.0.0.1:{port}")
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"hello" * 100_000
        writer.close()
        await writer.wait_closed()


async def test_other_programs_connect_to_the_listeners(tmp_path: Path) -> None:
    reports: list[Report] = []
    async with echo() as port, tunnel_rs.serve(server_config(tmp_path)) as server:
        config = client_config(server, tunnels={"127.0.0.1:0": f"tcp://127.0.0.1:{port}"})
        async with tunnel_rs.connect(config, reports.append) as client:
            (address,) = client.listening
            reader, writer = await asyncio.open_connection(address.ip, address.port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
    assert any(isinstance(report, TunnelUp) for report in reports)


async def test_a_refused_token_raises_where_the_client_is_entered(tmp_path: Path) -> None:
    async with tunnel_rs.serve(server_config(tmp_path)) as server:
        with pytest.raises(errors.AuthRefusedError):
            async with tunnel_rs.connect(client_config(server, OTHER_TOKEN)):
                pytest.fail("was let in")


async def test_what_the_server_does_not_allow_is_refused_stream_by_stream(tmp_path: Path) -> None:
    async with (
        tunnel_rs.serve(server_config(tmp_path)) as server,
        tunnel_rs.connect(client_config(server)) as client,
    ):
        with pytest.raises(errors.TargetError, match="not among the sources"):
            await client.open("tcp://192.0.2.1:80")
        for wrong in ("udp://127.0.0.1:53", "127.0.0.1:53", ""):
            with pytest.raises(errors.TargetError):
                await client.open(wrong)


async def test_waiting_for_a_server_that_is_not_there_ends_with_the_caller_s_patience(
    tmp_path: Path,
) -> None:
    async with tunnel_rs.serve(server_config(tmp_path)) as server:
        config = client_config(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), tunnel_rs.connect(config):
            pytest.fail("was let in")


async def test_a_client_that_was_left_opens_nothing_more(tmp_path: Path) -> None:
    async with tunnel_rs.serve(server_config(tmp_path)) as server:
        async with tunnel_rs.connect(client_config(server)) as client:
            pass
        with pytest.raises(errors.UnreachableError, match="not running"):
            await client.open("tcp://127.0.0.1:80")


def test_a_mistake_in_a_configuration_is_one_line_that_names_the_option() -> None:
    with pytest.raises(tunnel_rs.TunnelError, match="--peer-addr"):
        tunnel_rs.client_config("00" * 32, auth_token=TOKEN, peer_addrs=["nowhere"])
    with pytest.raises(tunnel_rs.TunnelError, match="no server key"):
        tunnel_rs.server_config(auth_tokens=[TOKEN], allowed_tcp=["127.0.0.0/8"])


def test_the_package_offers_the_library_and_nothing_by_accident() -> None:
    from tunnel_rs import api

    assert set(api.__all__) == set(tunnel_rs._LIBRARY)
    for name in api.__all__:
        assert getattr(tunnel_rs, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tunnel_rs.nothing  # noqa: B018
