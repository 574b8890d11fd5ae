"""Scenes with our own resolver and the system's configuration, run by `test_discovery_netns` in
namespaces of their own: `python -m tests.netns.discovery_scene SCENE` prints JSON."""

import asyncio
import json
import sys
from typing import Any

from tests.support.discovery import LOOPBACK, ORIGIN, packet

from tunnel_rs.errors import PeerNotFoundError
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.resolve import DnsResolver
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsServerSettings, DnsSettings
from tunnel_rs.values import SocketAddr


async def look_up() -> dict[str, Any]:
    """What the system's resolvers say about a published endpoint, and in what time."""
    server = DnsServer(
        DnsServerSettings(
            http=LOOPBACK, dns=DnsSettings(bind=SocketAddr("127.0.0.1", 53), origins=(ORIGIN,))
        )
    )
    await server.start()
    async with PkarrClient(server.pkarr_url or "") as client:
        await client.put(packet())
    started = asyncio.get_running_loop().time()
    try:
        record = await DnsResolver(ORIGIN).look_up(packet().endpoint_id)
        found = list(record.relay_urls)
    except PeerNotFoundError as error:
        found = [str(error)]
    elapsed = asyncio.get_running_loop().time() - started
    await server.close()
    return {"found": found, "elapsed": elapsed}


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"look_up": look_up}[sys.argv[1]]())))
