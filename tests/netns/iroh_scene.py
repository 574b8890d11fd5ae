"""A real iroh endpoint in the NAT lab.

    python -m tests.netns.iroh_scene ROLE IP RELAY TOKEN [ID PORT]

Its NAT keeps ports, and IP is the NAT's address outside. As `server` it prints its id and forwards.
As `client` it forwards to the server with that ID, to a port of its loopback; it prints `direct` or
`relay`, the seconds that took, and how many bytes came back.
"""

import asyncio
import sys
import time
from typing import cast

from tests.support.iroh_driver import ALPN, Client, Server, send_and_hash

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


async def dial(endpoint: iroh.Endpoint, relay: str, token: str, peer: str, port: str) -> None:
    where = iroh.EndpointAddr(iroh.EndpointId.from_string(peer), relay, [])
    began = time.monotonic()
    client = Client(endpoint, await endpoint.connect(where, ALPN))
    answer = await client.authenticate(token)
    assert answer["accepted"], answer
    stream, response = await client.request(f"tcp://127.0.0.1:{port}")
    assert response["accepted"], response
    way = "relay"
    while way == "relay" and time.monotonic() < began + 15:
        used = [path for path in client.connection.paths() if path.is_selected]
        way = "relay" if not used or used[0].is_relay else "direct"
        await asyncio.sleep(0.05)
    took = time.monotonic() - began
    size, _ = await send_and_hash(stream, bytes(100_000))
    print(f"{way} {took:.2f} {size}", flush=True)
    await endpoint.close()


async def main(role: str, ip: str, relay: str, token: str, *peer: str) -> None:
    endpoint = await bind(ip, relay)
    if role == "server":
        await serve(endpoint, token)
    else:
        await dial(endpoint, relay, token, *peer)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
