"""Our relay client against the real `iroh-relay` server, where it is installed.

`cargo install iroh-relay --features server`, and have it on PATH or named by IROH_RELAY_BIN.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.relay_network import States, is_down, relay_client
from tests.support.relay_peers import identity

from tunnel_rs.net.relay import RelayDown, RelayPeerGone, RelayProblem
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import Secret

PROGRAM = os.environ.get("IROH_RELAY_BIN") or shutil.which("iroh-relay")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(PROGRAM is None, reason="iroh-relay is not installed (IROH_RELAY_BIN)"),
]

ALICE, BOB = identity(1).endpoint_id, identity(2).endpoint_id
OFFERS = ["iroh-relay-v2, iroh-relay-v1", "iroh-relay-v1"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def rust_relay(
    directory: Path, more: str = "", port: int | None = None
) -> AsyncIterator[RelayUrl]:
    port = port or free_port()
    config = directory / "relay.toml"
    config.write_text(f'http_bind_addr = "127.0.0.1:{port}"\nenable_metrics = false\n{more}\n')
    assert PROGRAM is not None
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "--config-path", str(config), stdout=null, stderr=null
    )
    try:
        async with asyncio.timeout(10):
            while not await accepts(port):
                assert process.returncode is None, "iroh-relay did not start"
                await asyncio.sleep(0.01)
        yield RelayUrl.parse(f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("offer", OFFERS)
async def test_our_clients_exchange_trains_through_it(tmp_path: Path, offer: str) -> None:
    settings = RelayClientSettings(offer=offer)
    async with (
        rust_relay(tmp_path) as url,
        relay_client(url, 1, settings) as (alice, _),
        relay_client(url, 2, settings) as (bob, inbox),
    ):
        await alice.wait_up()
        await bob.wait_up()
        for train, size in ((b"one", 3), (b"aabbc", 2), (bytes(44 * 1452), 1452)):
            assert alice.send(BOB, size, memoryview(train))
            data, segment_size, source = await inbox.next()
            assert (data, segment_size, source.endpoint_id) == (train, size, ALICE)
        largest = bytes(65_502)
        assert alice.send(BOB, 0, memoryview(largest))
        assert (await inbox.next())[0] == largest


@pytest.mark.parametrize("offer", OFFERS)
async def test_it_tells_of_duplicates_and_of_peers_that_left(tmp_path: Path, offer: str) -> None:
    settings, states = RelayClientSettings(offer=offer), States()
    async with (
        rust_relay(tmp_path) as url,
        relay_client(url, 1, settings, states) as (alice, mail),
    ):
        await alice.wait_up()
        async with relay_client(url, 2, settings) as (bob, _):
            assert bob.send(ALICE, 0, memoryview(b"hello"))
            await mail.next()
        gone = await states.wait_for(lambda state: isinstance(state, RelayPeerGone))
        assert gone == RelayPeerGone(url.text, BOB)
        async with relay_client(url, 1, settings) as (twin, _):
            await twin.wait_up()
            problem = await states.wait_for(lambda state: isinstance(state, RelayProblem))
            assert isinstance(problem, RelayProblem) and problem.text
        over = await states.wait_for(lambda state: isinstance(state, RelayProblem))
        assert over == RelayProblem(url.text, "")


async def test_its_tokens_are_honoured(tmp_path: Path) -> None:
    async with rust_relay(tmp_path, 'access.shared_token = ["open"]') as url:
        good = RelayClientSettings(token=Secret("open"))
        async with relay_client(url, 1, good) as (client, _):
            await client.wait_up()
        states, bad = States(), RelayClientSettings(token=Secret("wrong"))
        async with relay_client(url, 1, bad, states):
            down = await states.wait_for(is_down)
            assert isinstance(down, RelayDown)
            assert down.reason == "the relay refused us: not authorized"


async def test_we_come_back_when_it_does(tmp_path: Path) -> None:
    port, states = free_port(), States()
    url = RelayUrl.parse(f"http://127.0.0.1:{port}")
    async with relay_client(url, 1, states=states) as (client, _):
        for _ in range(2):
            async with rust_relay(tmp_path, port=port):
                await client.wait_up()
            down = await states.wait_for(lambda s: isinstance(s, RelayDown) and s.was_up)
            assert isinstance(down, RelayDown)
