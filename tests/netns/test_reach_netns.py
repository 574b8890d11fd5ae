"""`tunnel-rs server` and `client` in two networks that reach a relay and not each other."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.support.discovery import ScriptedDns, no_such_name, txt_answer
from tests.support.relay_peers import write_certificate
from tests.support.servers import Program, cli, output_of, running
from tests.support.two_networks import (
    HUB,
    MACHINES,
    RESOLVER,
    ROUTERS,
    Namespace,
    Networks,
    Watch,
    needs_two_networks,
    said_back,
    serve_echo,
    two_networks,
)

from tunnel_rs.proto.dns_wire import Query

pytestmark = [pytest.mark.netns, needs_two_networks, pytest.mark.timeout(120)]

WITHIN = 5.0
"""Seconds in which a connection is back once there is a relay."""

OFFLINE = ("--dns-server", "none")


@pytest.fixture
def networks() -> Iterator[Networks]:
    with two_networks() as made:
        yield made


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


class Scene:
    """One server in the left network, before a service that echoes, and clients in the right."""

    def __init__(self, networks: Networks, stack: AsyncExitStack, folder: Path) -> None:
        self.networks, self._stack, self._folder = networks, stack, folder
        self.key, self.token = folder / "server.key", folder / "token.txt"
        self.endpoint_id = ""

    async def prepare(self) -> None:
        shown = await output_of(*cli("generate-server-key", "-o", self.key))
        self.token.write_text(await output_of(*cli("generate-token")))
        self.endpoint_id = (await output_of(*cli("show-server-id", "-s", self.key))).strip()
        assert self.endpoint_id or shown
        listener = self.networks.left.listen()
        self.port = listener.getsockname()[1]
        task = asyncio.create_task(serve_echo(listener))

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            listener.close()

        self._stack.push_async_callback(stop)

    @asynccontextmanager
    async def relay(self, port: int = 3340, extra: str = "") -> AsyncIterator[str]:
        file = self._folder / f"relay-{port}.toml"
        place = "http_bind_addr" if not extra else "#"
        file.write_text(f'{place} = "{HUB}:{port}"\nenable_metrics = false\n{extra}')
        command = self.networks.hub.inside(*cli("relay", "-c", file, "--json"))
        async with running(*command, ready='"event": ?"ready"'):
            yield f"http://{HUB}:{port}"

    async def server(self, *options: str) -> Program:
        program = await self._stack.enter_async_context(
            running(*self.networks.left.inside(*self.server_command(*options)))
        )
        await program.event("ready")
        self._keep_reading(program)
        return program

    def server_command(self, *options: str) -> tuple[str, ...]:
        identity = ("--secret-file", self.key, "--auth-tokens-file", self.token)
        return tuple(cli("server", "--json", *identity, "--allowed-tcp", "127.0.0.0/8", *options))

    def client_command(self, *options: str) -> tuple[str, ...]:
        source = ("-s", f"tcp://127.0.0.1:{self.port}", "-t", "127.0.0.1:0")
        identity = ("-n", self.endpoint_id, "--auth-token-file", self.token)
        return tuple(cli("client", "--json", *identity, *source, *options))

    async def client(self, *options: str) -> tuple[Program, socket.socket]:
        """A client that is up, and a connection through it."""
        program = await self._stack.enter_async_context(
            running(*self.networks.right.inside(*self.client_command(*options)))
        )
        ports = []
        for _ in range(2):
            event = await program.event("(?:listening|tunnel_up)")
            if event["event"] == "listening":
                ports.append(int(event["address"].rpartition(":")[2]))
            else:
                self.way = event["way"]
        self._keep_reading(program)
        sock = self.networks.right.connect(ports[0])
        self._stack.callback(sock.close)
        return program, sock

    def _keep_reading(self, program: Program) -> None:
        task = asyncio.create_task(program.drain())

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(stop)


@pytest.fixture
async def scene(networks: Networks, stack: AsyncExitStack, tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(networks, stack, tmp_path)
    await made.prepare()
    yield made
    await stack.aclose()


async def test_two_networks_that_can_only_reach_the_relay_without_any_udp(scene: Scene) -> None:
    """And nothing is asked or told anywhere else: this is the offline mode."""
    scene.networks.left.drop_udp()
    scene.networks.right.drop_udp()
    watches = [Watch(scene.networks.left), Watch(scene.networks.right)]
    async with scene.relay() as url:
        await scene.server("--relay-url", url, *OFFLINE)
        _, sock = await scene.client("--relay-url", url, *OFFLINE)
        assert scene.way == url + "/"
        await said_back(sock, b"through the relay " * 10_000)
    for watch in watches:
        watch.close()
        assert watch.beyond_the_link == {(HUB, 3340)}


async def test_with_own_relay_and_own_discovery_nobody_else_is_asked(scene: Scene) -> None:
    """Found by id: the client does not know on which of two relays the server is."""
    watches = [Watch(scene.networks.left), Watch(scene.networks.right)]
    dns = scene._folder / "dns.toml"
    dns.write_text(
        f'data_dir = "{scene._folder}"\npkarr_put_rate_limit = "disabled"\n'
        f'[http]\nport = 8080\nbind_addr = "{HUB}"\n'
        f'[dns]\nport = 5300\nbind_addr = "{HUB}"\ndefault_soa = "a. b. 0 1 2 3 4"\n'
        f'default_ttl = 30\norigins = ["example."]\n[metrics]\ndisabled = true\n'
    )
    command = scene.networks.hub.inside(*cli("dns-server", "--config", dns, "--json"))
    discovery = ("--dns-server", f"http://{HUB}:8080/pkarr")
    async with (
        running(*command, ready='"event": ?"ready"'),
        scene.relay(3340) as home,
        scene.relay(3341) as other,
    ):
        await scene.server("--relay-url", home, *discovery)
        _, sock = await scene.client("--relay-url", other, *discovery)
        assert scene.way == home + "/"
        await said_back(sock, b"found by id")
    named = {(HUB, 3340), (HUB, 3341), (HUB, 8080)}
    for watch in watches:
        watch.close()
    for watch, router, peer in zip(watches, ROUTERS, reversed(MACHINES), strict=True):
        asked = watch.beyond_the_link
        # The router is asked for a port, the peer for a direct path once it has let us in.
        others = {where for where in asked if where[0] not in (router, peer)}
        assert others <= named and (HUB, 8080) in asked


async def test_a_session_survives_a_relay_that_is_killed_and_started_again(scene: Scene) -> None:
    async with AsyncExitStack() as relay:
        url = await relay.enter_async_context(scene.relay())
        options = ("--relay-url", url, "--relay-only")
        await scene.server(*options)
        _, sock = await scene.client(*options)
        await said_back(sock, b"before")
    unanswered = asyncio.create_task(said_back(sock, b"while it is away", within=60))
    await asyncio.sleep(12)  # longer than a client waits for a server that is silent
    assert not unanswered.done()
    async with scene.relay():
        async with asyncio.timeout(WITHIN):
            await unanswered
        await said_back(sock, b"after")


async def test_of_two_relays_one_dies_and_the_session_goes_on_over_the_other(scene: Scene) -> None:
    async with AsyncExitStack() as one, AsyncExitStack() as two:
        urls = [
            await one.enter_async_context(scene.relay(3340)),
            await two.enter_async_context(scene.relay(3341)),
        ]
        options = ("--relay-url", urls[0], "--relay-url", urls[1], "--relay-only")
        await scene.server(*options)
        _, sock = await scene.client(*options)
        await said_back(sock, b"before")
        await (one if scene.way == urls[0] + "/" else two).aclose()
        assert await said_back(sock, b"after", within=20) < WITHIN


async def test_a_relay_that_accepts_and_says_nothing_holds_nobody_up(scene: Scene) -> None:
    with scene.networks.hub.listen(HUB, 3339):
        silent = ("--relay-url", f"http://{HUB}:3339")
        async with scene.relay() as url:
            options = (*silent, "--relay-url", url, "--relay-only")
            await scene.server(*options)
            _, sock = await scene.client(*options)
            assert scene.way == url + "/"
            await said_back(sock, b"through the other")


async def failed(namespace: Namespace, *command: str) -> tuple[int, str]:
    """Exit status and standard error of a program that is to fail."""
    process = await asyncio.create_subprocess_exec(
        *namespace.inside(*command),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


async def test_a_relay_with_a_bad_certificate_is_refused_and_named(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    chain, key = write_certificate(tmp_path)
    tls = (
        f'http_bind_addr = "{HUB}:3338"\n[tls]\nhttps_bind_addr = "{HUB}:3443"\n'
        f'cert_mode = "Manual"\nmanual_cert_path = "{chain}"\nmanual_key_path = "{key}"\n'
    )
    options = ("--relay-url", f"https://{HUB}:3443", "--relay-only")
    async with scene.relay(3338, tls):
        server, client = await asyncio.gather(
            failed(scene.networks.left, *scene.server_command(*options)),
            failed(scene.networks.right, *scene.client_command(*options, "--no-reconnect")),
        )
    for status, err in (server, client):
        assert status == 5
        assert f"https://{HUB}:3443/: " in err and "certificate" in err
        assert len(err.splitlines()) == 1


# The resolver


@asynccontextmanager
async def resolver(hub: Namespace, mode: str, relay: str) -> AsyncIterator[ScriptedDns]:
    """Answers late, wrongly, or never."""

    class Late(ScriptedDns):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            asyncio.get_running_loop().call_later(1.2, super().datagram_received, data, addr)

    def answer(query: Query, count: int) -> bytes | None:
        is_txt = query.name and query.name[0] == b"_iroh"
        if mode == "never" or not is_txt:
            return None if mode == "never" else no_such_name(query)
        if mode == "late":
            return txt_answer(query, f"relay={relay}/".encode())
        wrong = [
            txt_answer(query, b"relay=http://10.77.0.1:1/", b"addr=10.77.1.2:9"),
            txt_answer(query, b"nonsense"),
            struct.pack(">H", query.id) + b"\x84\x00" + bytes(20),
        ]
        return wrong[count % len(wrong)]

    kind = Late if mode == "late" else ScriptedDns
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: kind(answer), sock=hub.udp(RESOLVER, 53)
    )
    try:
        yield protocol
    finally:
        transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("mode", ["late", "wrong", "never"])
async def test_a_bad_resolver_costs_time_at_most(scene: Scene, mode: str) -> None:
    """The client asks the public discovery by DNS; its own relay is the server's home, but for the
    late resolver, whose answer alone says where that is."""
    async with scene.relay(3340) as home, scene.relay(3341) as other:
        async with resolver(scene.networks.hub, mode, home) as dns:
            await scene.server("--relay-url", home, *OFFLINE)
            known = other if mode == "late" else home
            _, sock = await scene.client("--relay-url", known)
            assert scene.way == home + "/"
            await said_back(sock, b"all the same")
            if mode == "late":
                assert dns.queries
