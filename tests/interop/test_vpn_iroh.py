"""Wire version 1 of the VPN against a second implementation on REAL iroh endpoints, both roles.

The other end is written from the specification's page alone, with nothing of `tunnel_rs`.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.ip_packets import udp
from tests.support.iroh_driver import Stream, bind, socket_address
from tests.support.sockets import until
from tests.support.vpn import TOKEN, FakeHost, FakeTun, server_settings

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.link import Link
from tunnel_rs.reports import silent
from tunnel_rs.values import EndpointId, Secret, SocketAddr
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.settings import ClientSettings

iroh = pytest.importorskip("iroh")

pytestmark = pytest.mark.interop

ALPN = b"tunnel-vpn/1"
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


async def bound(*, accept: bool, **more: object) -> Endpoint:
    settings = EndpointSettings(bind=SocketAddr("127.0.0.1", 0), lan_discovery=False, **more)  # type: ignore[arg-type]
    return await Endpoint.bind(settings, accept=accept, report=silent, alpn=ALPN.decode())


@asynccontextmanager
async def our_server() -> AsyncIterator[tuple[Endpoint, FakeTun]]:
    endpoint, tun = await bound(accept=True, secret_key=Secret(bytes(range(32)))), FakeTun()
    server = VpnServer(server_settings(), tun, FakeHost())
    await server.start()

    async def accept() -> None:
        try:
            while True:
                await server.serve(await endpoint.accept())
        except LinkClosedError:
            pass

    accepting = asyncio.create_task(accept())
    try:
        yield endpoint, tun
    finally:
        await server.close()
        await endpoint.close()
        await accepting


@pytest.mark.parametrize("token", [TOKEN.reveal(), "iZ9-_.Z9-_.Z9-_.ZU"], ids=["right", "wrong"])
async def test_another_client_and_our_server(token: str) -> None:
    async with our_server() as (endpoint, tun):
        other = await bind()
        where = iroh.EndpointAddr(
            iroh.EndpointId.from_string(str(endpoint.endpoint_id)),
            None,
            [str(endpoint.addresses[0])],
        )
        connection = await other.connect(where, ALPN)
        handshake = Stream.of(await connection.open_bi())
        await handshake.write(text(version=1, device_id=2**64 - 1, auth_token=token))
        await handshake.send.finish()
        answer = await read_text(handshake)
        assert answer["version"] == 1
        if token != TOKEN.reveal():
            assert answer["accepted"] is False
            assert answer["reject_reason"] == "Invalid authentication token"
            await connection.closed()
        else:
            assert answer["assigned_ip"] == "10.7.0.2" and answer["network6"] == "fd07::/64"
            data = Stream.of(await connection.open_bi())
            await data.write(framed(OUT) + b"\x01")
            assert await data.recv.read_exact(1) == b"\x02"
            await until(lambda: tun.packets == [OUT])
            tun.bring(BACK)
            assert await data.recv.read_exact(5 + len(BACK)) == framed(BACK)
            connection.close(0, b"")
        await other.close()


async def test_our_client_and_another_server() -> None:
    other = await bind(alpns=(ALPN,))
    requests: list[dict[str, object]] = []
    got: list[bytes] = []

    async def serve() -> None:
        connection = await (await (await other.accept_next()).accept()).connect()
        handshake = Stream.of(await connection.accept_bi())
        requests.append(await read_text(handshake))
        answer = {"assigned_ip": "10.7.0.2", "network": "10.7.0.5/24", "server_ip": "10.7.0.1"}
        await handshake.write(text(version=1, accepted=True, **answer))
        await handshake.send.finish()
        data = Stream.of(await connection.accept_bi())
        got.append(await data.recv.read_exact(1))
        await data.write(b"\x02" + framed(BACK))
        got.append(await data.recv.read_exact(5 + len(OUT)))

    serving = asyncio.create_task(serve())
    address = SocketAddr.parse(socket_address(other))
    endpoint = await bound(accept=False, peer_addrs=(address,))
    peer = EndpointId(bytes(other.id().to_bytes()))

    async def connect() -> Link:
        return await endpoint.connect(peer, timeout=10)

    tun, host = FakeTun(), FakeHost()
    client = VpnClient(ClientSettings(TOKEN), tun, host, connect, device_id=7)
    running = asyncio.create_task(client.run())
    await until(lambda: tun.packets == [BACK])
    tun.bring(OUT)
    await serving
    assert got == [b"\x01", framed(OUT)]
    assert list(requests[0])[:3] == ["version", "device_id", "auth_token"]
    assert (requests[0]["device_id"], requests[0]["auth_token"]) == (7, TOKEN.reveal())
    assert [str(a) for a in host.devices[0].addresses] == ["10.7.0.2/24"]
    await client.close()
    await running
    await endpoint.close()
    await other.close()
