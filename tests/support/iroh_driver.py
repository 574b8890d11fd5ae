"""The tunnel protocol spoken by REAL iroh 1.x endpoints: the peer our programs must get along with.

Both roles, written from the protocol page alone and sharing no code with `tunnel_rs`, so that a
mistake of ours cannot hide in both ends. Loopback only: relays are off, addresses are given,
nothing is looked up. The binding copies what it sends byte by byte, about 8 MB/s: keep payloads
near 10 MB.
"""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import pytest

try:
    import iroh
except ImportError:
    pytest.skip("needs iroh, which has no wheel for this platform", allow_module_level=True)

IrohError = iroh.IrohError

ALPN = b"multi-forward/1"
VERSION = 3
MAX_MESSAGE = 16_384
CHUNK = 65_536


class PeerError(Exception):
    """The other side did not speak the protocol."""


async def bind(
    *,
    secret: bytes | None = None,
    alpns: tuple[bytes, ...] = (),
    relay: str | None = None,
    ip: str = "127.0.0.1",
) -> iroh.Endpoint:
    """An endpoint on a random port of `ip` that knows this relay alone, and no discovery."""
    mode = iroh.RelayMode.disabled()
    if relay is not None:
        known = iroh.RelayMap.empty()
        # Without a QUIC port: else iroh waits 3 s for address discovery that nobody serves.
        known.insert(iroh.RelayConfig(url=relay, quic_port=None, auth_token=None))
        mode = iroh.RelayMode.custom(known)
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        bind_addr=f"{ip}:0",
        relay_mode=mode,
        secret_key=secret,
        alpns=list(alpns),
    )
    # The binding calls back into one loop for the whole process; an earlier test's is closed.
    loop = asyncio.get_running_loop()
    iroh.iroh_ffi.uniffi_set_event_loop(cast(asyncio.BaseEventLoop, loop))
    return await iroh.Endpoint.bind(options)


def fresh_endpoint_id() -> str:
    """An EndpointId that nobody listens under."""
    return iroh.SecretKey.generate().public().to_bytes().hex()


def socket_address(endpoint: iroh.Endpoint) -> str:
    (address,) = (text for text in endpoint.bound_sockets() if text.startswith("127."))
    return address


@dataclass
class Stream:
    """A bidirectional stream with the reads the protocol needs."""

    send: iroh.SendStream
    recv: iroh.RecvStream

    @classmethod
    def of(cls, pair: iroh.BiStream) -> Self:
        return cls(pair.send(), pair.recv())

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK):
            await self.send.write_all(data[start : start + CHUNK])

    async def read(self, limit: int = CHUNK) -> bytes:
        """Some bytes; empty at the end of the peer's direction."""
        return bytes(await self.recv.read(limit))

    async def chunks(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def read_all(self) -> bytes:
        return b"".join([data async for data in self.chunks()])

    async def write_message(self, **fields: Any) -> None:
        text = json.dumps({"version": VERSION, **fields}).encode()
        await self.write(struct.pack("!I", len(text)) + text)

    async def read_message(self) -> dict[str, Any]:
        (length,) = struct.unpack("!I", await self.recv.read_exact(4))
        if length > MAX_MESSAGE:
            raise PeerError(f"a message of {length} bytes")
        message = json.loads(await self.recv.read_exact(length))
        if message.get("version") != VERSION:
            raise PeerError(f"a message of version {message.get('version')!r}")
        return dict(message)

    async def write_datagram(self, data: bytes) -> None:
        await self.write(struct.pack("!H", len(data)) + data)

    async def read_datagram(self) -> bytes:
        (length,) = struct.unpack("!H", await self.recv.read_exact(2))
        return bytes(await self.recv.read_exact(length)) if length else b""


@dataclass
class Client:
    """A forwarding client on a real iroh endpoint: `async with await Client.connect(...)`."""

    endpoint: iroh.Endpoint
    connection: iroh.Connection

    @classmethod
    async def connect(cls, endpoint_id: str, address: str) -> Self:
        """Handshake with the server at `address`; it must prove `endpoint_id` (64 hex digits)."""
        endpoint = await bind()
        where = iroh.EndpointAddr(iroh.EndpointId.from_string(endpoint_id), None, [address])
        try:
            return cls(endpoint, await endpoint.connect(where, ALPN))
        except BaseException:
            await endpoint.close()
            raise

    async def authenticate(self, token: str) -> dict[str, Any]:
        """The server's answer to `token`."""
        stream = Stream.of(await self.connection.open_bi())
        await stream.write_message(auth_token=token)
        await stream.send.finish()
        return await stream.read_message()

    async def request(self, source: str) -> tuple[Stream, dict[str, Any]]:
        """A new stream, and the server's answer to `source` (`tcp://host:port` or `udp://...`)."""
        stream = Stream.of(await self.connection.open_bi())
        await stream.write_message(source=source)
        return stream, await stream.read_message()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close(0, b"done")
        await self.endpoint.close()


async def send_and_hash(stream: Stream, payload: bytes) -> tuple[int, str]:
    """Write `payload` and finish while reading to the end; count and SHA-256 of what came back."""

    async def write() -> None:
        await stream.write(payload)
        await stream.send.finish()

    digest, count = hashlib.sha256(), 0
    async with asyncio.TaskGroup() as group:
        group.create_task(write(), name="write payload")
        async for data in stream.chunks():
            digest.update(data)
            count += len(data)
    return count, digest.hexdigest()


@dataclass
class Server:
    """A forwarding server on a real iroh endpoint: accepts one token, allows any source."""

    endpoint: iroh.Endpoint
    token: str
    requests: list[str] = field(default_factory=list)
    """Sources asked for, in order."""
    refused: int = 0
    """Clients that showed another token."""
    ends: list[str] = field(default_factory=list)
    """How connections ended, in iroh's words."""
    connections: list[iroh.Connection] = field(default_factory=list)

    @property
    def endpoint_id(self) -> str:
        return self.endpoint.id().to_bytes().hex()

    @property
    def address(self) -> str:
        return socket_address(self.endpoint)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while incoming := await self.endpoint.accept_next():
                group.create_task(self._connection(incoming), name="iroh connection")

    async def _connection(self, incoming: iroh.Incoming) -> None:
        try:
            connection = await (await incoming.accept()).connect()
        except iroh.IrohError as error:
            self.ends.append(error.message())
            return
        self.connections.append(connection)
        async with asyncio.TaskGroup() as group:
            try:
                if not await self._authenticated(connection):
                    return
                while True:
                    stream = Stream.of(await connection.accept_bi())
                    group.create_task(self._source(stream), name="iroh source")
            except iroh.IrohError:
                self.ends.append(connection.close_reason() or "")

    async def _authenticated(self, connection: iroh.Connection) -> bool:
        stream = Stream.of(await connection.accept_bi())
        shown = (await stream.read_message()).get("auth_token")
        if shown == self.token:
            await stream.write_message(accepted=True)
            await stream.send.finish()
            return True
        self.refused += 1
        await stream.write_message(accepted=False, reason="Invalid authentication token")
        await stream.send.finish()
        await stream.send.stopped()
        connection.close(1, b"auth_failed")
        return False

    async def _source(self, stream: Stream) -> None:
        try:
            source = str((await stream.read_message())["source"])
            self.requests.append(source)
            protocol, _, where = source.partition("://")
            host, _, port = where.rpartition(":")
            serve = serve_tcp if protocol == "tcp" else serve_udp
            await serve(stream, host.strip("[]"), int(port))
        except iroh.IrohError:
            pass  # the client or its connection has gone: nobody is left to tell


async def serve_tcp(stream: Stream, host: str, port: int) -> None:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        await stream.write_message(accepted=False, reason=f"{error}")
        await stream.send.finish()
        return
    await stream.write_message(accepted=True)

    async def outward() -> None:
        async for data in stream.chunks():
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def inward() -> None:
        while data := await reader.read(CHUNK):
            await stream.write(data)
        await stream.send.finish()

    try:
        await _both(outward, inward)
    finally:
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def _both(one: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]]) -> None:
    """Run both to their end. Either may find that its side has gone; the other still drains."""
    ends = await asyncio.gather(one(), other(), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, (OSError, iroh.IrohError)):
            raise end


async def serve_udp(stream: Stream, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    # A plain socket: asyncio's datagram transport drops empty datagrams without a word.
    with socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
    ) as sock:
        sock.setblocking(False)
        sock.connect((host, port))
        await stream.write_message(accepted=True)

        async def inward() -> None:
            while True:
                await stream.write_datagram(await loop.sock_recv(sock, 65_535))

        back = asyncio.create_task(inward(), name="iroh udp inward")
        try:
            while True:
                await loop.sock_sendall(sock, await stream.read_datagram())
        finally:
            back.cancel()
            await asyncio.wait([back])


@asynccontextmanager
async def serving(token: str, *, secret: bytes | None = None) -> AsyncIterator[Server]:
    """A running `Server`; on leaving, its endpoint is closed and every task has ended."""
    server = Server(await bind(secret=secret, alpns=(ALPN,)), token)
    running = asyncio.create_task(server.run(), name="iroh server")
    try:
        yield server
    finally:
        await server.endpoint.close()
        await running
