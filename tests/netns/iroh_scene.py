"""A real iroh endpoint that forwards, in the NAT lab. It prints its id.

    python -m tests.netns.iroh_scene IP RELAY TOKEN

Its NAT keeps ports, and IP is the NAT's address outside.
"""

import asyncio
import sys
from typing import cast

from tests.support.iroh_driver import ALPN, Server

import iroh


async def bind(ip: str, relay: str) -> iroh.Endpoint:
    relays = iroh.RelayMap.empty()
    relays.insert(iroh.RelayConfig(url=relay, quic_port=None, auth_token=None))
    loop = asyncio.get_running_loop()
    iroh.iroh_ffi.uniffi_set_event_loop(cast(asyncio.BaseEventLoop, loop))
    endpoint = await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr="0.0.0.0:0",
            relay_mode=iroh.RelayMode.custom(relays),
            alpns=[ALPN],
        )
    )
    await endpoint.online()
    [port] = {text.rpartition(":")[2] for text in endpoint.bound_sockets() if "[" not in text}
    await endpoint.add_external_addr(f"{ip}:{port}")
    return endpoint


async def serve(endpoint: iroh.Endpoint, token: str) -> None:
    server = Server(endpoint, token)
    print(server.endpoint_id, flush=True)
    await server.run()


async def main(ip: str, relay: str, token: str) -> None:
    await serve(await bind(ip, relay), token)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
