"""A STUN server on loopback that answers as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aioice import stun

from tunnel_rs.values import SocketAddr

Answer = Callable[[stun.Message, tuple[str, int]], bytes | None]


def mapped(ip: str, port: int, name: str = "XOR-MAPPED-ADDRESS") -> Answer:
    """Answers that the asker is seen at this address."""

    def answer(request: stun.Message, _: tuple[str, int]) -> bytes:
        response = stun.Message(
            stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id
        )
        response.attributes[name] = (ip, port)
        return bytes(response)

    return answer


def silent(_: stun.Message, __: tuple[str, int]) -> None:
    return None


class _Server(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked += 1
        answer = self._answer(stun.parse_message(data), addr[:2])
        if answer is not None:
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def stun_server(answer: Answer, ip: str = "127.0.0.1") -> AsyncIterator[SocketAddr]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Server(answer), local_addr=(ip, 0))
    try:
        yield SocketAddr(*transport.get_extra_info("sockname")[:2])
    finally:
        transport.close()
