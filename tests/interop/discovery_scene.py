"""Scenes with real iroh endpoints whose system resolver is our DNS server on port 53.

Run by `test_discovery_iroh` in namespaces of their own: `python -m tests.interop.discovery_scene
SCENE` prints what happened as JSON.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.discovery import LOOPBACK

import iroh
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.publish import Publisher, published_record, unix_microseconds
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsServerSettings, DnsSettings
from tunnel_rs.values import EndpointId, Secret, SocketAddr

ALPN = b"test/discovery"
ORIGINS = ("dns.iroh.link.", "staging-dns.iroh.link.")
ANSWERING_SEED = Secret(b"\x2a" * 32)
PAYLOAD = bytes(range(256)) * 100


class CountingServer(DnsServer):
    """Counts how often endpoints are looked up; queries for other names are none of the scenes'
    business (iroh also asks for the addresses of the hosts it would publish to)."""

    def __init__(self, settings: DnsServerSettings) -> None:
        super().__init__(settings)
        self.lookups = 0
        self.third_lookup = asyncio.Event()

    def _look_up(self, endpoint_id: EndpointId) -> SignedPacket | None:
        self.lookups += 1
        if self.lookups == 3:
            self.third_lookup.set()
        return super()._look_up(endpoint_id)


@asynccontextmanager
async def discovery() -> AsyncIterator[tuple[CountingServer, PkarrClient]]:
    settings = DnsServerSettings(
        http=LOOPBACK, dns=DnsSettings(bind=SocketAddr("127.0.0.1", 53), origins=ORIGINS)
    )
    server = CountingServer(settings)
    await server.start()
    try:
        async with PkarrClient(server.pkarr_url or "") as client:
            yield server, client
    finally:
        await server.close()


@asynccontextmanager
async def endpoint(seed: bytes | None = None) -> AsyncIterator[Any]:
    """An iroh endpoint with its stock discovery and no relay."""
    options = iroh.EndpointOptions(
        preset=iroh.preset_n0_disable_relay(),
        bind_addr="127.0.0.1:0",
        secret_key=seed,
        alpns=[ALPN],
    )
    bound = await iroh.Endpoint.bind(options)
    try:
        yield bound
    finally:
        await bound.close()


def where(bound: Any) -> SocketAddr:
    return SocketAddr.parse(next(text for text in bound.bound_sockets() if "[" not in text))


async def echo(listener: Any) -> None:
    incoming = await listener.accept_next()
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    await stream.send().write_all(await stream.recv().read_to_end(len(PAYLOAD)))
    await stream.send().finish()
    await connection.closed()


async def echoed(dialling: Any, peer: Any) -> bool:
    """Whether a connection by EndpointId alone carries the payload there and back."""
    connection = await dialling.connect(iroh.EndpointAddr(peer, None, []), ALPN)
    stream = await connection.open_bi()
    await stream.send().write_all(PAYLOAD)
    await stream.send().finish()
    same = bytes(await stream.recv().read_to_end(len(PAYLOAD))) == PAYLOAD
    connection.close(0, b"done")
    return same


async def connects() -> dict[str, Any]:
    """One real endpoint finds another through a record that our publisher has put."""
    async with (
        discovery() as (server, client),
        endpoint(ANSWERING_SEED.reveal()) as answering,
        endpoint() as dialling,
        TaskScope("scene") as scope,
    ):
        reported = asyncio.Event()
        publisher = Publisher(client, ANSWERING_SEED, report=lambda _: reported.set())
        scope.spawn(publisher.run(), "publish")
        publisher.update(published_record((), [where(answering)], direct=True))
        await reported.wait()
        scope.spawn(echo(answering), "echo")
        same = await echoed(dialling, answering.id())
        return {"same": same, "lookups": server.lookups}


async def finds_later() -> dict[str, Any]:
    """The record appears only while the real endpoint is already asking."""
    async with (
        discovery() as (server, client),
        endpoint(ANSWERING_SEED.reveal()) as answering,
        endpoint() as dialling,
        TaskScope("scene") as scope,
    ):
        scope.spawn(echo(answering), "echo")
        connecting = scope.spawn(echoed(dialling, answering.id()), "connect")
        await server.third_lookup.wait()
        record = EndpointRecord((), (where(answering),))
        await client.put(SignedPacket.for_record(ANSWERING_SEED, unix_microseconds(), record))
        return {"same": await connecting, "lookups": server.lookups}


async def knows_nobody() -> dict[str, Any]:
    """Nothing is published: the real endpoint gives up."""
    async with discovery() as (server, _), endpoint() as dialling:
        stranger = SignedPacket.sign(ANSWERING_SEED, 0, b"").endpoint_id
        try:
            await echoed(dialling, iroh.EndpointId.from_string(str(stranger)))
        except iroh.IrohError as error:
            reason = error.message()
        return {"reason": reason, "lookups": server.lookups}


async def main() -> None:
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    scene = {"connects": connects, "finds_later": finds_later, "knows_nobody": knows_nobody}
    print(json.dumps(await scene[sys.argv[1]]()))


if __name__ == "__main__":
    asyncio.run(main())
