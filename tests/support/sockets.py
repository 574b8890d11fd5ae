"""Real loopback sockets for tests: connected TCP pairs and scripted peers."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking TCP sockets on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def abort(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def read_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, or fewer when the other end finished before."""
    data = bytearray()
    while len(data) < size:
        chunk = await asyncio.get_running_loop().sock_recv(sock, min(size - len(data), 1 << 20))
        if not chunk:
            break
        data += chunk
    return bytes(data)


async def read_to_eof(sock: socket.socket) -> bytes:
    """All bytes up to the other end's EOF."""
    return await read_exactly(sock, 1 << 40)


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def connect(address: tuple[str, int]) -> socket.socket:
    """A connected non-blocking TCP socket."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class TcpTarget:
    """A TCP service on loopback that hands accepted sockets to the test."""

    def __init__(self, ip: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.setblocking(False)
        self._listener.bind((ip, 0))
        self._listener.listen(256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"tcp://{f'[{ip}]' if ':' in ip else ip}:{self.port}"
        self._accepted: list[socket.socket] = []

    async def accept(self) -> socket.socket:
        sock, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        sock.setblocking(False)
        self._accepted.append(sock)
        return sock

    @property
    def was_dialled(self) -> bool:
        """Whether a connection waits that nobody accepted."""
        try:
            self._accepted.append(self._listener.accept()[0])
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._listener.close()
        for sock in self._accepted:
            sock.close()


class UdpTarget:
    """A UDP service on loopback that answers each datagram with `answer(datagram)`."""

    def __init__(self, answer: Callable[[bytes], bytes | None] = lambda data: data) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"udp://127.0.0.1:{self.port}"
        self.received: list[bytes] = []
        self._answer = answer
        asyncio.get_running_loop().add_reader(self.socket, self._readable)

    def _readable(self) -> None:
        data, peer = self.socket.recvfrom(65535)
        self.received.append(data)
        answer = self._answer(data)
        if answer is not None:
            self.socket.sendto(answer, peer)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()


@asynccontextmanager
async def echo_server() -> AsyncIterator[TcpTarget]:
    """A TCP service that sends back what it gets, and EOF after EOF."""
    target = TcpTarget()

    async def echo(sock: socket.socket) -> None:
        try:
            while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
                await send(sock, data)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # that client is gone; others stay

    async def serve() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(echo(await target.accept()))

    task = asyncio.create_task(serve())
    try:
        yield target
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        target.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until `condition` holds; a test's timeout catches what never does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
