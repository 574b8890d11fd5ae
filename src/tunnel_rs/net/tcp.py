"""Open TCP connections to addresses that were checked, and accept them on local ones.

Both give plain connected sockets: nothing is read from one before somebody wants its bytes.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence

from tunnel_rs.errors import LocalError, TargetError
from tunnel_rs.net.bind import bind, local_address
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.happy_eyeballs import ATTEMPT_DELAY, Race
from tunnel_rs.values import HostPort, SocketAddr

BACKLOG = 511
"""Connections the kernel completes before we accept them; a browser opens dozens at once."""

_ACCEPTS_PER_WAKEUP = 64
_ACCEPT_PAUSE = 1.0
"""Seconds without accepting when the process has run out of file descriptors or memory."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_LINGER_ZERO = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


async def dial(
    ips: Sequence[str], port: int, *, timeout: float, attempt_delay: float = ATTEMPT_DELAY
) -> socket.socket:
    """Connect to the first of `ips` (all allowed by policy) that answers, by Happy Eyeballs.

    Gives a non-blocking connected socket; the losers are closed. `timeout` is in seconds over all
    attempts. Raises TargetError naming each address and why it did not work.
    """
    race = Race(ips, attempt_delay=attempt_delay)
    winner = _Winner()
    try:
        async with TaskScope("dial") as attempts, asyncio.timeout(timeout):
            await _run_race(race, winner, attempts, port)
    except TimeoutError:
        if winner.socket is None:
            race.abandon(f"no answer in {timeout:g} s")
    except BaseException:
        winner.close()
        raise
    if winner.socket is None:
        tried = "; ".join(f"{_address(ip, port)} {why}" for ip, why in race.failures.items())
        raise TargetError(f"cannot connect: {tried or 'no address to try'}")
    return winner.socket


class _Winner:
    """The first connected socket; every later one is closed."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None

    def offer(self, sock: socket.socket) -> None:
        if self.socket is None:
            self.socket = sock
        else:
            sock.close()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()


async def _run_race(race: Race, winner: _Winner, attempts: TaskScope, port: int) -> None:
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    async def attempt(ip: str) -> None:
        try:
            winner.offer(await _connect(ip, port))
        except OSError as error:
            race.failed(ip, _why(error), loop.time())
        changed.set()

    while winner.socket is None and not race.lost:
        for ip in race.due(loop.time()):
            attempts.spawn(attempt(ip), ip)
        changed.clear()
        try:
            async with asyncio.timeout_at(race.next_start):
                await changed.wait()
        except TimeoutError:
            pass


async def _connect(ip: str, port: int) -> socket.socket:
    """One attempt. Raises OSError; never leaves a socket open."""
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # A peer that vanished without a word would keep the session open for ever.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, (ip, port))
        if sock.getsockname() == sock.getpeername():
            # TCP simultaneous open with itself: the port was ephemeral and nobody listened.
            raise OSError(errno.ECONNREFUSED, "Connection refused")
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close a connected TCP socket so that the other end sees a reset, not an orderly end."""
    try:
        linger_zero(sock)
    except OSError:
        pass  # the connection is gone already
    sock.close()


def linger_zero(sock: socket.socket) -> None:
    """Make the coming close of a TCP socket send RST (RFC 9293 section 3.10.5, ABORT)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


class TcpListener:
    """Accepts connections on all addresses of one `HostPort`. Made by `listen`."""

    def __init__(
        self, sockets: Sequence[socket.socket], on_connection: Callable[[socket.socket], None]
    ) -> None:
        self._sockets = sockets
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self.addresses: tuple[SocketAddr, ...] = tuple(map(local_address, sockets))
        self._closed = False
        for sock in sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Stop accepting. Idempotent."""
        self._closed = True
        for timer in self._paused.values():
            timer.cancel()
        for sock in self._sockets:
            if sock.fileno() != -1:
                self._loop.remove_reader(sock)
                sock.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_WAKEUP):
            if self._closed:  # by the callback
                return
            try:
                sock, _peer = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(listener)
                    return
                continue  # that connection died before we got to it
            sock.setblocking(False)
            self._on_connection(sock)

    def _pause(self, listener: socket.socket) -> None:
        """Leave waiting connections to the kernel for a moment instead of spinning."""
        self._loop.remove_reader(listener)
        self._paused[listener] = self._loop.call_later(_ACCEPT_PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        del self._paused[listener]
        self._loop.add_reader(listener, self._accept, listener)


async def listen(
    where: HostPort, on_connection: Callable[[socket.socket], None], resolve: Resolve
) -> TcpListener:
    """Listen on every address of `where` (see `bind`) and call `on_connection` with each accepted
    non-blocking socket, which it then owns. Raises LocalError."""
    sockets = await bind(where, socket.SOCK_STREAM, resolve)
    try:
        for sock in sockets:
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise LocalError(
            f"cannot listen on {where}: another program uses the port; choose another one"
        ) from None
    return TcpListener(sockets, on_connection)


def _why(error: OSError) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "refused the connection"
        case errno.ETIMEDOUT:
            return "did not answer"
        case errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EADDRNOTAVAIL:
            return "is unreachable"
        case _:
            return f"failed ({(error.strerror or str(error)).lower()})"


def _address(ip: str, port: int) -> str:
    return str(SocketAddr(ip, port))
