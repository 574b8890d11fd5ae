"""`tunnel-rs relay`, as a program of its own."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.net.test_qad import discovery
from tests.support.program import tunnel_rs
from tests.support.relay_network import States, is_down, relay_client
from tests.support.relay_peers import identity, write_certificate
from tests.support.servers import Program, running

from tunnel_rs.errors import ExitStatus
from tunnel_rs.net.qad import system_trust
from tunnel_rs.net.relay import RelayDown
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import Secret, SocketAddr

LOOPBACK = 'http_bind_addr = "127.0.0.1:0"\nenable_metrics = false\n'


@asynccontextmanager
async def relay(config: Path, *options: str) -> AsyncIterator[tuple[Program, dict[str, Any]]]:
    command = (sys.executable, "-m", "tunnel_rs", "relay", "-c", config, "--json", *options)
    async with running(*command) as program:
        yield program, await program.event("ready")


def write(tmp_path: Path, more: str = "") -> Path:
    file = tmp_path / "relay.toml"
    file.write_text(LOOPBACK + more)
    return file


async def test_it_relays_and_ends_on_ctrl_c_within_a_second(tmp_path: Path) -> None:
    async with relay(write(tmp_path)) as (program, ready):
        assert ready["urls"] == [f"http://{ready['http']}/"]
        assert ready["access"] == "everyone who knows the address"
        async with relay_client(RelayUrl.parse(ready["urls"][0]), 1) as (client, _):
            await client.wait_up()
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await program.end(signal.SIGINT) == ExitStatus.INTERRUPTED
            assert loop.time() - began < 1


async def test_with_tls_it_serves_address_discovery_too(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    more = (
        "enable_quic_addr_discovery = true\n[tls]\n"
        'https_bind_addr = "127.0.0.1:0"\nquic_bind_addr = "127.0.0.1:0"\n'
        f'manual_cert_path = "{certificate}"\nmanual_key_path = "{key}"\n'
    )
    async with relay(write(tmp_path, more)) as (_, ready):
        port = ready["https"].rpartition(":")[2]
        assert ready["urls"] == [f"https://localhost:{port}/"]
        settings = RelayClientSettings(ca_file=certificate)
        async with relay_client(RelayUrl.parse(ready["urls"][0]), 1, settings) as (client, _):
            await client.wait_up()
        async with discovery() as (asking, sock):
            session = asking.dial(
                SocketAddr.parse(ready["quic"]), "localhost", system_trust(certificate)
            )
            assert await session.observed() == sock.address


async def test_sighup_reads_certificate_allow_list_and_file_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    certificate, key = write_certificate(first)
    write_certificate(second)
    tls = (
        f'[tls]\nhttps_bind_addr = "127.0.0.1:0"\ncert_dir = "{tmp_path}"\n'
        f'manual_cert_path = "{certificate}"\nmanual_key_path = "{key}"\n[access]\n'
    )
    alice, bob = identity(1).endpoint_id, identity(2).endpoint_id
    file = write(tmp_path, tls + f'allowlist = ["{alice}"]\n')
    async with relay(file) as (program, ready):
        url, states = RelayUrl.parse(ready["urls"][0]), States()
        settings = RelayClientSettings(ca_file=certificate)
        async with relay_client(url, 1, settings, states) as (client, _):
            await client.wait_up()
            for name in ("localhost.crt", "localhost.key"):
                os.replace(second / name, first / name)
            file.write_text(LOOPBACK + tls + f'allowlist = ["{bob}"]\n')
            program.process.send_signal(signal.SIGHUP)
            assert (await program.event("notice"))["text"] == "settings read again"
            await states.wait_for(lambda state: isinstance(state, RelayDown) and state.was_up)
        # The certificate is another one now.
        async with relay_client(url, 2, RelayClientSettings(ca_file=certificate)) as (client, _):
            await client.wait_up()


async def test_a_mistake_in_the_file_on_sighup_changes_nothing(tmp_path: Path) -> None:
    file = write(tmp_path)
    async with relay(file) as (program, ready):
        file.write_text("nonsense = 1\n")
        program.process.send_signal(signal.SIGHUP)
        notice = await program.event("notice")
        assert notice["level"] == "warning"
        assert "nonsense: unknown key; the settings in use stay as they are" in notice["text"]
        async with relay_client(RelayUrl.parse(ready["urls"][0]), 1) as (client, _):
            await client.wait_up()
        file.write_text(LOOPBACK.replace("false", "true"))
        program.process.send_signal(signal.SIGHUP)
        await program.event("notice")
        text = (await program.event("notice"))["text"]
        assert text == "changed, but used after a restart: enable_metrics"


async def test_a_token_of_the_environment_is_asked_for(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tunnel_rs", "relay", "-c", write(tmp_path), "--json")
    async with running("env", "IROH_RELAY_ACCESS_TOKEN=open", *command) as program:
        ready = await program.event("ready")
        assert ready["access"] == "who presents one of 1 token(s)"
        url = RelayUrl.parse(ready["urls"][0])
        good = RelayClientSettings(token=Secret("open"))
        async with relay_client(url, 1, good) as (client, _):
            await client.wait_up()
        states = States()
        async with relay_client(url, 1, states=states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown) and down.reason.endswith("not authorized")


async def test_it_says_for_people_how_to_use_it(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tunnel_rs", "relay", "--dev", "-c", write(tmp_path))
    async with running(*command) as program:
        await program.line(r"Relay is ready; HTTP, without TLS: 127\.0\.0\.1:\d+")
        await program.line(r"Access: everyone")
        await program.line(r"Use it with: --relay-url http://127\.0\.0\.1:\d+/")
        assert await program.end(signal.SIGTERM) == ExitStatus.TERMINATED


def test_a_mistake_in_the_file_is_one_line_and_status_6(tmp_path: Path) -> None:
    file = write(tmp_path, "acess = 'everyone'\n")
    ended = tunnel_rs("relay", "-c", str(file))
    assert ended.status == ExitStatus.INVALID_CONFIG
    assert ended.err == f"error: {file}: acess: unknown key (did you mean 'access'?)\n"


def test_a_certificate_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ended = tunnel_rs("relay", "-c", str(write(tmp_path, '[tls]\ncert_dir = "/nowhere"\n')))
    assert ended.status == ExitStatus.INVALID_CONFIG
    assert ended.err == "error: TLS file /nowhere/default.crt: No such file or directory\n"


def test_a_port_in_use_is_one_line(tmp_path: Path, unused_tcp_port: int) -> None:
    with socket.create_server(("127.0.0.1", unused_tcp_port)):
        file = tmp_path / "relay.toml"
        file.write_text(f'http_bind_addr = "127.0.0.1:{unused_tcp_port}"\n')
        ended = tunnel_rs("relay", "-c", str(file))
    assert ended.status == ExitStatus.FAILURE
    assert ended.err.startswith(f"error: cannot listen on 127.0.0.1:{unused_tcp_port}: another")
