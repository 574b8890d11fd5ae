"""Wire version 1 of the VPN against a second implementation on REAL iroh endpoints, both roles.

The other end is written from the specification's page alone, with nothing of `tunnel_rs`: what it
sends is spelled out byte by byte, and none of our extensions is known to it.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Network

import pytest
from tests.support.ip_packets import packed, tcp, udp
from tests.support.iroh_driver import IrohError, Stream, bind, socket_address
from tests.support.sockets import until
from tests.support.vpn import TOKEN, FakeHost, FakeTun, server_settings

from tunnel_rs.errors import AuthRefusedError, LinkClosedError
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.link import Link
from tunnel_rs.reports import Report, TunnelLost, silent
from tunnel_rs.values import EndpointId, Secret, SocketAddr
from tunnel_rs.vpn import client as client_module
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.settings import ClientSettings

iroh = pytest.importorskip("iroh")

pytestmark = pytest.mark.interop

ALPN = b"tunnel-vpn/1"
PING, PONG = b"\x01", b"\x02"
OUT, BACK = (
    udp("10.7.0.2", "10.7.0.1", (1, 2), b"out"),
    udp("10.7.0.1", "10.7.0.2", (2, 1), b"back"),
)


def framed(packet: bytes) -> bytes:
    return b"\0" + struct.pack("!I", len(packet)) + packet


def text(**fields: object) -> bytes:
    body = json.dumps(fields).encode()
    return struct.pack("!I", len(body)) + body


async def read_text(stream: Stream) -> dict[str, object]:
    (length,) = struct.unpack("!I", await stream.recv.read_exact(4))
    return dict(json.loads(await stream.recv.read_exact(length)))


async def read_packet(stream: Stream) -> bytes:
    kind, length = struct.unpack("!BI", await stream.recv.read_exact(5))
    assert kind == 0
    return bytes(await stream.recv.read_exact(length))


async def bound(*, accept: bool, **more: object) -> Endpoint:
    settings = EndpointSettings(bind=SocketAddr("127.0.0.1", 0), lan_discovery=False, **more)  # type: ignore[arg-type]
    return await Endpoint.bind(settings, accept=accept, report=silent, alpn=ALPN.decode())


# Our server


class OurServer:
    """Clients are played by iroh endpoints."""

    def __init__(self, endpoint: Endpoint, server: VpnServer, tun: FakeTun) -> None:
        self.endpoint, self.server, self.tun = endpoint, server, tun

    async def connect(self, other: "iroh.Endpoint") -> "iroh.Connection":
        where = iroh.EndpointAddr(
            iroh.EndpointId.from_string(str(self.endpoint.endpoint_id)),
            None,
            [str(self.endpoint.addresses[0])],
        )
        return await other.connect(where, ALPN)

    async def ask(self, connection: "iroh.Connection", request: bytes) -> dict[str, object]:
        handshake = Stream.of(await connection.open_bi())
        await handshake.write(request)
        await handshake.send.finish()
        answer = await read_text(handshake)
        assert await handshake.read() == b"", "the answer is all there is on the stream"
        return answer

    async def joined(
        self, other: "iroh.Endpoint", device: int = 7
    ) -> tuple["iroh.Connection", Stream]:
        """A client that is in, and its data stream."""
        connection = await self.connect(other)
        request = text(version=1, device_id=device, auth_token=TOKEN.reveal())
        assert (await self.ask(connection, request))["accepted"] is True
        data = Stream.of(await connection.open_bi())
        await data.write(PING)
        assert await data.recv.read_exact(1) == PONG
        return connection, data


@asynccontextmanager
async def our_server(**settings: object) -> AsyncIterator[OurServer]:
    endpoint, tun = await bound(accept=True, secret_key=Secret(bytes(range(32)))), FakeTun()
    server = VpnServer(server_settings(**settings), tun, FakeHost())
    await server.start()
    serving: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        try:
            while True:
                serving.add(asyncio.create_task(server.serve(await endpoint.accept())))
        except LinkClosedError:
            pass

    accepting = asyncio.create_task(accept())
    try:
        yield OurServer(endpoint, server, tun)
    finally:
        await server.close()
        await endpoint.close()
        await asyncio.gather(accepting, *serving)


@pytest.fixture
async def other() -> AsyncIterator["iroh.Endpoint"]:
    """A client's endpoint."""
    made = await bind()
    yield made
    await made.close()


async def test_a_client_is_let_in_and_exchanges_packets_and_pings(other: "iroh.Endpoint") -> None:
    async with our_server() as ours:
        connection = await ours.connect(other)
        # Not even the version is looked at, and what is not known is ignored.
        request = text(version=9, device_id=2**64 - 1, auth_token=TOKEN.reveal(), new={"x": [1]})
        assert await ours.ask(connection, request) == {
            "version": 1,
            "accepted": True,
            "assigned_ip": "10.7.0.2",
            "network": "10.7.0.0/24",
            "server_ip": "10.7.0.1",
            "assigned_ip6": "fd07::2",
            "network6": "fd07::/64",
            "server_ip6": "fd07::1",
        }
        data = Stream.of(await connection.open_bi())
        await data.write(framed(OUT) + PING + PONG + framed(b"") + framed(OUT))
        assert await data.recv.read_exact(1) == PONG
        await until(lambda: ours.tun.packets == [OUT, OUT])
        ours.tun.bring(BACK)
        assert await read_packet(data) == BACK
        # Pieces of any size are put together.
        for byte in framed(OUT):
            await data.write(bytes([byte]))
        await until(lambda: ours.tun.packets == [OUT, OUT, OUT])


async def test_a_super_packet_reaches_it_as_ordinary_ones(other: "iroh.Endpoint") -> None:
    packet = tcp("10.7.0.1", "10.7.0.2", (2, 1), bytes(4000))
    header = struct.pack("<BBHHHH", 1, 1, 40, 1400, 20, 16)  # virtio: TCPv4, segments of 1400
    async with our_server() as ours:
        _, data = await ours.joined(other)
        ours.tun.bring((header, packet))
        sizes = [len(await read_packet(data)) for _ in range(3)]
        assert sizes == [1440, 1440, 1240]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ({"auth_token": "iZ9-_.Z9-_.Z9-_.ZU"}, "Invalid authentication token"),
        ({}, "Authentication token required"),
    ],
)
async def test_a_refusal_reaches_it_with_its_reason(
    other: "iroh.Endpoint", token: dict[str, str], reason: str
) -> None:
    async with our_server() as ours:
        connection = await ours.connect(other)
        answer = await ours.ask(connection, text(version=1, device_id=7, **token))
        assert answer == {"version": 1, "accepted": False, "reject_reason": reason}
        assert "closed" in str(await connection.closed()).lower()


ONE_ADDRESS = {"network4": None, "network6": IPv6Network("fd07::/126")}


@pytest.mark.parametrize(
    "settings", [{"max_clients": 1}, ONE_ADDRESS], ids=["clients", "addresses"]
)
async def test_a_full_server_says_so(other: "iroh.Endpoint", settings: dict[str, object]) -> None:
    async with our_server(**settings) as ours:
        held = await ours.joined(other)
        connection = await ours.connect(other)
        request = text(version=1, device_id=8, auth_token=TOKEN.reveal())
        answer = await ours.ask(connection, request)
        assert answer["accepted"] is False
        assert answer["reject_reason"] in ("Server full", "No address is free")
        held[0].close(0, b"")


async def test_the_same_device_gets_its_addresses_again_and_the_old_connection_is_closed(
    other: "iroh.Endpoint",
) -> None:
    async with our_server() as ours:
        first, _ = await ours.joined(other)
        _, data = await ours.joined(other)
        await first.closed()
        ours.tun.bring(BACK)
        assert await read_packet(data) == BACK


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" + struct.pack("!I", 65_537),
        b"\3\1\0",
        b"\xff",
        b"\4" + struct.pack("!I", 40) + bytes(50),  # our extension, without having asked for it
    ],
    ids=["65537 bytes", "type 3", "type 255", "type 4"],
)
async def test_what_breaks_the_framing_ends_its_connection_and_no_other(
    other: "iroh.Endpoint", sent: bytes
) -> None:
    async with our_server() as ours:
        good, data = await ours.joined(other)
        bad, stream = await ours.joined(other, device=8)
        await stream.write(sent)
        await bad.closed()
        await data.write(PING)
        assert await data.recv.read_exact(1) == PONG
        good.close(0, b"")


async def test_the_largest_frame_passes_and_forged_sources_do_not(other: "iroh.Endpoint") -> None:
    async with our_server() as ours:
        _, data = await ours.joined(other)
        largest = udp("10.7.0.2", "10.7.0.1", (1, 2), bytes(65_507)) + b"!"
        assert len(largest) == 65_536
        forged = udp("10.7.0.9", "10.7.0.1", (1, 2))
        await data.write(framed(forged) + framed(b"junk") + framed(largest) + framed(OUT))
        await until(lambda: ours.tun.packets[-1:] == [OUT])
        assert ours.tun.packets == [largest, OUT]
        [session] = ours.server.sessions
        assert session.traffic.dropped == {"spoofed": 1, "malformed": 1}


# Our client

WELCOME = {
    "version": 1,
    "accepted": True,
    "assigned_ip": "10.7.0.2",
    "network": "10.7.0.5/24",
    "server_ip": "10.7.0.1",
}
WELCOME6 = {"assigned_ip6": "fd07::2", "network6": "fd07::/64", "server_ip6": "fd07::1"}

Serve = Callable[["iroh.Connection"], Awaitable[None]]


class OurClient:
    """The server is played by an iroh endpoint; each connection is served by `serve`."""

    def __init__(self) -> None:
        self.tun, self.host = FakeTun(), FakeHost()
        self.reports: list[Report] = []
        self.requests: list[dict[str, object]] = []

    async def welcome(self, connection: "iroh.Connection", **answer: object) -> Stream:
        """Let the client in; its data stream, when the first ping has come."""
        handshake = await self.request(connection)
        await handshake.write(text(**(answer or WELCOME)))
        await handshake.send.finish()
        data = Stream.of(await connection.accept_bi())
        assert await data.recv.read_exact(1) == PING
        return data

    async def request(self, connection: "iroh.Connection") -> Stream:
        handshake = Stream.of(await connection.accept_bi())
        self.requests.append(await read_text(handshake))
        assert await handshake.read() == b""
        return handshake

    def lost(self) -> list[str]:
        return [each.reason for each in self.reports if isinstance(each, TunnelLost)]


@asynccontextmanager
async def our_client(ours: OurClient, serve: Serve, **settings: object) -> AsyncIterator[None]:
    """While it runs; raises what ends the client."""
    other = await bind(alpns=(ALPN,))
    address = SocketAddr.parse(socket_address(other))
    endpoint = await bound(accept=False, peer_addrs=(address,))
    peer = EndpointId(bytes(other.id().to_bytes()))

    async def serve_all() -> None:
        while True:
            incoming = await other.accept_next()
            connection = await (await incoming.accept()).connect()
            try:
                await serve(connection)
            except IrohError:
                pass  # the client has gone

    async def connect() -> Link:
        return await endpoint.connect(peer, timeout=10)

    client = VpnClient(
        ClientSettings(TOKEN, **settings),  # type: ignore[arg-type]
        ours.tun,
        ours.host,
        connect,
        ours.reports.append,
        random=lambda: 0.0,
        device_id=2**64 - 1,
    )
    serving, running = asyncio.create_task(serve_all()), asyncio.create_task(client.run())
    try:
        yield
        if not running.done():
            await client.close()
        await running
    finally:
        serving.cancel()
        await asyncio.gather(serving, running, return_exceptions=True)
        await endpoint.close()
        await other.close()


async def test_our_client_joins_another_server_and_exchanges_packets() -> None:
    ours, got = OurClient(), asyncio.Queue[bytes]()

    async def serve(connection: "iroh.Connection") -> None:
        data = await ours.welcome(connection, **WELCOME, **WELCOME6, new="unknown")
        await data.write(PONG + framed(BACK) + PING + framed(b""))
        got.put_nowait(await read_packet(data))
        await connection.closed()

    async with our_client(ours, serve):
        await until(lambda: bool(ours.tun.packets[:1] == [BACK]))
        ours.tun.bring(OUT)
        assert await got.get() == OUT
        assert [str(a) for a in ours.host.devices[0].addresses] == ["10.7.0.2/24", "fd07::2/64"]
    [request] = ours.requests
    assert list(request)[:3] == ["version", "device_id", "auth_token"]
    assert (request["version"], request["device_id"]) == (1, 2**64 - 1)
    assert request["auth_token"] == TOKEN.reveal()
    assert ours.lost() == []


@pytest.mark.parametrize("says_why", [True, False], ids=["in the answer", "in the close alone"])
async def test_a_refusal_of_another_server_is_final(says_why: bool) -> None:
    ours = OurClient()

    async def serve(connection: "iroh.Connection") -> None:
        handshake = await ours.request(connection)
        if says_why:
            await handshake.write(text(version=1, accepted=False, reject_reason="No such token"))
            await handshake.send.finish()
            await connection.closed()
        else:
            connection.close(1, b"auth_failed")

    reason = "No such token" if says_why else "auth_failed"
    with pytest.raises(AuthRefusedError, match=reason):
        async with our_client(ours, serve):
            await until(lambda: ours.host.undone > 0)
    assert len(ours.requests) == 1


@pytest.mark.parametrize(
    "end", ["finish", "reset", "close", "junk", "65537 bytes", "half a lease", "no answer"]
)
async def test_after_whatever_else_ends_it_our_client_comes_again_as_the_same_device(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.3)
    ours = OurClient()

    async def serve(connection: "iroh.Connection") -> None:
        if ours.requests:
            await ours.welcome(connection)
        elif end == "half a lease":
            handshake = await ours.request(connection)
            await handshake.write(text(version=1, accepted=True, assigned_ip="10.7.0.2"))
        elif end == "no answer":
            await ours.request(connection)
        else:
            data = await ours.welcome(connection)
            match end:
                case "finish":
                    await data.send.finish()
                case "reset":
                    await data.send.reset(7)
                case "close":
                    connection.close(0, b"")
                case "junk":
                    await data.write(b"\x09")
                case _:
                    await data.write(b"\0" + struct.pack("!I", 65_537))
        await connection.closed()

    async with our_client(ours, serve):
        await until(lambda: len(ours.host.routes) == (1 if " a" in end or "no " in end else 2))
        await until(lambda: len(ours.requests) == 2)
        assert not ours.tun.closed
    assert ours.requests[0] == ours.requests[1]
    assert len(ours.lost()) == 1


def test_the_addresses_of_the_samples_are_in_the_network() -> None:
    assert packed("10.7.0.2") == OUT[12:16] == BACK[16:20]
