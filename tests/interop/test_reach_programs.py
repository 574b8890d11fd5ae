"""Our four programs as a user starts them: a relay, a discovery server, a server and a client that
knows its EndpointId. On loopback, so that it needs no rights."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.servers import cli, free_port, output_of, running
from tests.support.sockets import connect, echo_server, read_exactly, send

pytestmark = pytest.mark.interop


@asynccontextmanager
async def infrastructure(folder: Path) -> AsyncIterator[tuple[str, ...]]:
    """The options that point a server or client to a relay and a discovery server of our own."""
    relay_port, dns_port, http_port = free_port(), free_port(), free_port()
    relay, dns = folder / "relay.toml", folder / "dns.toml"
    relay.write_text(f'http_bind_addr = "127.0.0.1:{relay_port}"\nenable_metrics = false\n')
    dns.write_text(
        f'data_dir = "{folder}"\n[http]\nport = {http_port}\nbind_addr = "127.0.0.1"\n'
        f'[dns]\nport = {dns_port}\nbind_addr = "127.0.0.1"\norigins = ["example."]\n'
        'default_soa = "a. b. 0 1 2 3 4"\ndefault_ttl = 30\n[metrics]\ndisabled = true\n'
    )
    ready = '"event": ?"ready"'
    async with (
        running(*cli("relay", "-c", relay, "--json"), ready=ready),
        running(*cli("dns-server", "--config", dns, "--json"), ready=ready),
    ):
        yield (
            *("--relay-url", f"http://127.0.0.1:{relay_port}"),
            *("--dns-server", f"http://127.0.0.1:{http_port}/pkarr"),
        )


async def test_a_tunnel_over_own_infrastructure_by_the_command_the_server_prints(
    tmp_path: Path,
) -> None:
    key, tokens = tmp_path / "server.key", tmp_path / "tokens.txt"
    await output_of(*cli("generate-server-key", "-o", key))
    tokens.write_text(await output_of(*cli("generate-token")))
    identity = ("--secret-file", key, "--auth-tokens-file", tokens)
    allowed = ("--allowed-tcp", "127.0.0.0/8")
    async with infrastructure(tmp_path) as options, echo_server() as target:
        async with running(*cli("server", "--json", *identity, *allowed, *options)) as server:
            starting = await server.event("starting")
            command = starting["client_command"].split()
            assert set(options[::2]) <= set(command) and options[3] in command
            online = await server.event("relay_online")
            ready = await server.event("ready")
            assert ready["ways"][0] == f"relay {online['relay']}"
            known = command[1 : command.index("--source")]
            what = ("-s", target.url, "-t", "127.0.0.1:0", "--auth-token-file", tokens)
            async with running(*cli(*known, "--json", *what)) as client:
                listening = await client.event("listening")
                await client.event("tunnel_up")
                port = int(listening["address"].rpartition(":")[2])
                with await connect(("127.0.0.1", port)) as sock:
                    payload = bytes(range(256)) * 2000
                    _, back = await asyncio.gather(
                        send(sock, payload), read_exactly(sock, len(payload))
                    )
                    assert back == payload
