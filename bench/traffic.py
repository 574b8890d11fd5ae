"""The one traffic tool of all benches: a target process, and the measurements against it.

A connection begins with a mode letter and an 8-byte count. `U`: the target reads `count` bytes and
answers with 8 bytes. `D`: it sends `count` bytes. `E`: it echoes until EOF. `H`: it reads to EOF,
then answers with the SHA-256 of what it got: only a kept half-close lets that answer through.
"""

import hashlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

BLOCK = 1 << 20
PING = 64
TIMEOUT = 120.0
HEADER = struct.Struct("!cQ")


# The target


def serve() -> None:
    """Listen on a random port of 127.0.0.1, print it, and serve for ever, a thread each."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print("port", listener.getsockname()[1], flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve_one, args=(sock,), daemon=True).start()


def _serve_one(sock: socket.socket) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            header = _receive(sock, HEADER.size)
            mode, count = HEADER.unpack(header)
            _MODES[mode](sock, count)
        except (OSError, EOFError):
            pass  # the measuring side has seen it end


def _swallow(sock: socket.socket, count: int) -> None:
    _discard(sock, count)
    sock.sendall(struct.pack("!Q", count))


def _pour(sock: socket.socket, count: int) -> None:
    block = memoryview(os.urandom(BLOCK))
    while count:
        part = min(count, BLOCK)
        sock.sendall(block[:part])
        count -= part


def _echo(sock: socket.socket, _: int) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def _digest(sock: socket.socket, _: int) -> None:
    digest = hashlib.sha256()
    while data := sock.recv(65536):
        digest.update(data)
    sock.sendall(digest.digest())


_MODES = {b"U": _swallow, b"D": _pour, b"E": _echo, b"H": _digest}


# The measurements


@dataclass(frozen=True)
class Times:
    """Durations in seconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, durations: list[float]) -> "Times":
        ordered = sorted(durations)
        return cls(ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])


def upload(port: int, count: int) -> float:
    """Seconds to move `count` bytes to the target, until it says that it has them all."""
    block = memoryview(os.urandom(BLOCK))
    with _open(port, b"U", count) as sock:
        began, left = time.perf_counter(), count
        while left:
            part = min(left, BLOCK)
            sock.sendall(block[:part])
            left -= part
        _receive(sock, 8)
        return time.perf_counter() - began


def download(port: int, count: int) -> float:
    """Seconds to get `count` bytes from the target."""
    began = time.perf_counter()
    with _open(port, b"D", count) as sock:
        _discard(sock, count)
        return time.perf_counter() - began


def round_trips(port: int, count: int) -> Times:
    """`count` exchanges of 64 bytes, one after the other, on one connection."""
    message, durations = os.urandom(PING), []
    with _open(port, b"E", 0) as sock:
        for _ in range(count + count // 10):
            began = time.perf_counter()
            sock.sendall(message)
            _receive(sock, PING)
            durations.append(time.perf_counter() - began)
    return Times.of(durations[count // 10 :])


def new_connections(port: int, count: int) -> Times:
    """Connect, send 64 bytes and get them back, `count` times on a new connection each."""
    message, durations = os.urandom(PING), []
    for _ in range(count):
        began = time.perf_counter()
        with _open(port, b"E", 0) as sock:
            sock.sendall(message)
            _receive(sock, PING)
            durations.append(time.perf_counter() - began)
    return Times.of(durations)


def at_once(transfer: Callable[[int, int], float], port: int, count: int, streams: int) -> float:
    """Seconds until `streams` connections at a time have each moved their share of `count`."""
    began = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        moves = [pool.submit(transfer, port, count // streams) for _ in range(streams)]
        for move in moves:
            move.result()
    return time.perf_counter() - began


def echo_intact(port: int, count: int) -> bool:
    """Whether `count` random bytes come back as they were, both ways at once."""
    data = os.urandom(count)
    with _open(port, b"E", 0) as sock, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sock.sendall, data)
        try:
            back = _receive(sock, count)
        except (OSError, EOFError):
            return False
        sending.result()
    return hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


def half_close(port: int, count: int) -> bool:
    """Whether an answer comes back, and the right one, after our direction has ended."""
    data = os.urandom(count)
    try:
        with _open(port, b"H", 0) as sock:
            sock.settimeout(15)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return _receive(sock, 32) == hashlib.sha256(data).digest()
    except (OSError, EOFError):
        return False


def _open(port: int, mode: bytes, count: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(HEADER.pack(mode, count))
    return sock


def _receive(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError(f"the connection ended after {len(data)} of {count} bytes")
        data += part
    return bytes(data)


def _discard(sock: socket.socket, count: int) -> None:
    buffer = bytearray(BLOCK)
    while count:
        got = sock.recv_into(buffer, min(count, BLOCK))
        if not got:
            raise EOFError(f"the connection ended {count} bytes early")
        count -= got


if __name__ == "__main__":
    try:
        serve()
    except KeyboardInterrupt:
        sys.exit(130)
