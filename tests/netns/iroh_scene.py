"""A real iroh endpoint in the NAT lab: a server that forwards, or a client for one source.

    python -m tests.netns.iroh_scene server RELAY OUTSIDE TOKEN
    python -m tests.netns.iroh_scene client RELAY OUTSIDE TOKEN SERVER_ID SOURCE

OUTSIDE is the address of the NAT in front, when that keeps ports; else `unknown`. Both print what
happens in the form that our own programs have with `--json`, and the client listens where ours does
in the lab.
"""

import asyncio
import json
import signal
import sys
import time
from contextlib import suppress
from typing import cast

from tests.support.iroh_driver import ALPN, CHUNK, Client, Server, Stream

import iroh

PORT = 7001


def tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


async def bind(relay: str, outside: str) -> iroh.Endpoint:
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
    if outside != "unknown":
        [port] = {text.rpartition(":")[2] for text in endpoint.bound_sockets() if "[" not in text}
        await endpoint.add_external_addr(f"{outside}:{port}")
    return endpoint


async def serve(endpoint: iroh.Endpoint, token: str) -> None:
    server = Server(endpoint, token)
    tell("ready", endpoint_id=server.endpoint_id)
    await server.run()


class Ways(iroh.PathChangeCallback):
    """Tells on which path iroh sends whenever that changes."""

    def __init__(self) -> None:
        self.way = ""

    async def on_change(self, paths: list[iroh.PathSnapshot]) -> None:
        tell("paths_seen", paths=[path.remote_addr for path in paths])
        self.look(paths)

    def look(self, paths: list[iroh.PathSnapshot]) -> None:
        used = next((path.remote_addr for path in paths if path.is_selected), self.way)
        if used != self.way:
            self.way = used
            tell("path_changed", way=used)


async def dial(endpoint: iroh.Endpoint, relay: str, token: str, server: str, source: str) -> None:
    """Returns when the server has closed the connection."""
    began = time.monotonic()
    where = iroh.EndpointAddr(iroh.EndpointId.from_string(server), relay, [])
    client = Client(endpoint, await endpoint.connect(where, ALPN))
    ways = Ways()
    ways.look(client.connection.paths())
    watching = client.connection.watch_paths(ways)
    assert (await client.authenticate(token))["accepted"]
    elapsed = time.monotonic() - began

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream, _ = await client.request(source)
        with suppress(iroh.IrohError, OSError):
            await asyncio.gather(outward(reader, stream), inward(stream, writer))
        writer.close()

    async with await asyncio.start_server(forward, "127.0.0.1", PORT):
        tell("tunnel_up", way=ways.way, elapsed=elapsed)
        try:
            await client.connection.closed()
        finally:
            await watching.stop()
            client.connection.close(0, b"done")


async def outward(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(CHUNK):
        await stream.write(data)
    await stream.send.finish()


async def inward(stream: Stream, writer: asyncio.StreamWriter) -> None:
    async for data in stream.chunks():
        writer.write(data)
        await writer.drain()


async def main(role: str, relay: str, outside: str, token: str, *more: str) -> None:
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    endpoint = await bind(relay, outside)
    try:
        if role == "server":
            await serve(endpoint, token)
        else:
            await dial(endpoint, relay, token, *more)
    finally:
        await endpoint.close()


if __name__ == "__main__":
    with suppress(asyncio.CancelledError):
        asyncio.run(main(*sys.argv[1:]))
