"""A STUN server on loopback that answers as a test says."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from tunnel_rs.values import SocketAddr

COOKIE = 0x2112A442
Answer = Callable[[bytes, tuple[str, int]], bytes | None]


def xor_answer(request: bytes, address: tuple[str, int]) -> bytes:
    """What an honest server says: the address the request came from."""
    return binding_answer(request, *address)


def binding_answer(request: bytes, ip: str, port: int) -> bytes:
    packed = bytes(map(int, ip.split(".")))
    masked = bytes(a ^ b for a, b in zip(packed, COOKIE.to_bytes(4, "big"), strict=True))
    value = struct.pack(">BBH", 0, 1, port ^ (COOKIE >> 16)) + masked
    return struct.pack(">HHI12sHH", 0x0101, 12, COOKIE, request[8:20], 0x20, 8) + value


class StunServer(asyncio.DatagramProtocol):
    """Counts the requests; `answer` None is silence."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None
        self.requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.requests += 1
        answer = self._answer(data, addr)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def stun_server(answer: Answer = xor_answer) -> AsyncIterator[tuple[StunServer, SocketAddr]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: StunServer(answer), ("127.0.0.1", 0)
    )
    try:
        yield protocol, SocketAddr(*transport.get_extra_info("sockname")[:2])
    finally:
        transport.close()
        await asyncio.sleep(0)
