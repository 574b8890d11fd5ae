"""Scenes in which real iroh endpoints and ours find each other by EndpointId alone.

Run by `test_reach_iroh` in namespaces of their own, where the system's resolver is our DNS server:
`python -m tests.interop.reach_scene SCENE` prints what happened as JSON.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.interop.discovery_scene import discovery
from tests.interop.test_reach_iroh import ask, echo, id_of, send_back, sent_and_received, theirs
from tests.support.relay_network import relay_server, url_of

import iroh
from tunnel_rs.iroh.discovery_settings import DiscoverySettings, choose_discovery
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.publish import unix_microseconds
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.quic import ALPN
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.iroh_defaults import PRODUCTION
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import Secret

SEED = Secret(bytes([42]) * 32)
PAYLOAD = bytes(range(256)) * 1000


@asynccontextmanager
async def stock(seed: bytes | None = None) -> AsyncIterator[Any]:
    """A real endpoint with its stock discovery; it uses whatever relay a record names."""
    options = iroh.EndpointOptions(
        preset=iroh.preset_n0(), bind_addr="127.0.0.1:0", secret_key=seed, alpns=[ALPN.encode()]
    )
    bound = await iroh.Endpoint.bind(options)
    try:
        yield bound
    finally:
        await bound.close()


def knows(link: QuicConnection, relay: str) -> bool:
    """Whether the relay is one of the connection's paths; there may be a direct one by now."""
    return relay in {path.address for path in link.paths}


async def their_client_finds_ours() -> dict[str, Any]:
    """Our server publishes itself; a stock iroh client knows its id and nothing else."""
    published = asyncio.Event()

    def report(report: Report) -> None:
        if isinstance(report, Notice) and report.text.startswith("published"):
            published.set()

    async with relay_server() as relay, discovery() as (_, pkarr), stock() as client:
        settings = EndpointSettings(
            secret_key=SEED,
            relays=(url_of(relay),),
            relay_only=False,
            lan_discovery=False,
            discovery=DiscoverySettings(publish_url=pkarr.base_url),
        )
        server = await Endpoint.bind(settings, accept=True, report=report)
        await published.wait()
        answering = asyncio.create_task(send_back(server))
        where = iroh.EndpointAddr(iroh.EndpointId.from_string(str(server.endpoint_id)), None, [])
        same = await ask(client, where, PAYLOAD) == PAYLOAD
        link = await answering
        over_relay = knows(link, url_of(relay).text)
        await server.close()
        return {"same": same, "over_relay": over_relay}


async def our_client_finds_theirs() -> dict[str, Any]:
    """Our client, with the public discovery of iroh 1.x, knows the id of a real server."""
    async with relay_server() as relay, relay_server() as other, discovery() as (_, pkarr):
        async with theirs(relay) as server:
            # A real endpoint publishes to a TLS URL only: its record is put in its place.
            record = EndpointRecord((url_of(relay).text,))
            key = Secret(bytes(server.secret_key().to_bytes()))
            await pkarr.put(SignedPacket.for_record(key, unix_microseconds(), record))
            answering = asyncio.create_task(echo(server))
            settings = EndpointSettings(
                relays=(url_of(other),),
                lan_discovery=False,
                discovery=choose_discovery(None, PRODUCTION, publish=False),
            )
            client = await Endpoint.bind(settings, accept=False, report=lambda _: None)
            link = await client.connect(id_of(server), timeout=10)
            same = await sent_and_received(link, PAYLOAD) == PAYLOAD
            over_relay = knows(link, url_of(relay).text)
            await answering
            await client.close()
            return {"same": same, "over_relay": over_relay}


async def main() -> None:
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    scenes = {
        "their_client_finds_ours": their_client_finds_ours,
        "our_client_finds_theirs": our_client_finds_theirs,
    }
    print(json.dumps(await scenes[sys.argv[1]]()))


if __name__ == "__main__":
    asyncio.run(main())
