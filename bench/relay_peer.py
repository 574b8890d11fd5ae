"""Clients of a relay that cost little themselves: raw WebSocket frames, no library in the way.

Masks are zero, which the protocol allows and which leaves the bytes as they are.
"""

import asyncio
import base64
import os
import struct
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel_rs.proto.relay_frames import encode_ping, encode_pong
from tunnel_rs.proto.relay_handshake import ClientHandshake, RelayIdentity
from tunnel_rs.values import EndpointId

SEND, RECEIVED, PING, CONFIRMED = 4, 6, 9, 2
_BINARY, _CLOSE, _WS_PING = 2, 8, 9
_OWN_HEADER = 1 + 32 + 1
"""Bytes before the contents of a datagram frame: type, id, ECN."""


def masked(payload: bytes) -> bytes:
    """A client's binary WebSocket frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB4x", 0x80 | _BINARY, 0x80 | size) + payload
    return struct.pack(">BBH4x", 0x80 | _BINARY, 0x80 | 126, size) + payload


class Peer(asyncio.Protocol):
    """One client. `on_datagram` gets the contents of each datagram."""

    def __init__(self, on_datagram: Callable[["Peer", bytes], None]) -> None:
        key = Ed25519PrivateKey.generate()
        self.endpoint_id = EndpointId(key.public_key().public_bytes_raw())
        self._handshake = ClientHandshake(RelayIdentity(self.endpoint_id, key.sign))
        self._on_datagram = on_datagram
        self._buffer = bytearray()
        self._upgraded = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            "GET /relay HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "sec-websocket-protocol: iroh-relay-v2, iroh-relay-v1\r\n\r\n"
        )
        transport.write(request.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the relay closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in self._buffer[:end].split(b"\r\n")[0]:
                self.transport.abort()
                return
            self._upgraded = True
            del self._buffer[: end + 4]
        self._frames()

    def _frames(self) -> None:
        buffer, position = self._buffer, 0
        while len(buffer) - position >= 2:
            size, start = buffer[position + 1], position + 2
            if size == 126:
                if len(buffer) < start + 2:
                    break
                size, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
            elif size == 127:
                if len(buffer) < start + 8:
                    break
                size, start = int.from_bytes(buffer[start : start + 8], "big"), start + 8
            if len(buffer) < start + size:
                break
            opcode = buffer[position] & 0x0F
            position = start + size
            if opcode == _BINARY:
                self._message(bytes(buffer[start:position]))
        del buffer[:position]

    def _message(self, message: bytes) -> None:
        kind = message[0]
        if kind == RECEIVED:
            self._on_datagram(self, message[_OWN_HEADER:])
        elif kind == PING:
            self.transport.write(masked(encode_pong(message[1:])))
        elif kind < SEND:
            answer = self._handshake.receive(message)
            if answer is not None:
                self.transport.write(masked(answer))
            elif kind == CONFIRMED and not self.ready.done():
                self.transport.write(masked(encode_ping(bytes(8))))
                self.ready.set_result(None)


def datagram_to(peer: EndpointId, contents: bytes) -> bytes:
    """What to write to send one datagram."""
    return masked(bytes([SEND]) + peer.key + b"\0" + contents)


async def connected(port: int, on_datagram: Callable[[Peer, bytes], None]) -> Peer:
    """A client the relay on 127.0.0.1 has let in."""
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(lambda: Peer(on_datagram), "127.0.0.1", port)
    async with asyncio.timeout(30):
        await peer.ready
    return peer
