"""Join standard input and output (or any pair of file descriptors) and a stream of a link.

Pipes, sockets and terminals are driven by the event loop where it can do that (POSIX); regular
files, and everything on Windows, by one thread each. The rules of `splice` apply; what cannot be
told to a pipe, a reset, becomes its end.
"""

import asyncio
import os
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from tunnel_rs.net.link import ByteStream
from tunnel_rs.net.splice import WRITE_HIGH_WATER, Attach, Splice, SpliceEnd, join_tcp

CHUNK = 65_536


async def join_stdio(
    stream: ByteStream,
    attach: Attach,
    on_end: Callable[[SpliceEnd], None],
    *,
    stdin: int = 0,
    stdout: int = 1,
) -> Splice:
    """Join the file descriptors `stdin` and `stdout` and a stream. Both are taken over: /dev/null
    stands in for them afterwards, so that a stray print cannot get between the bytes, and closing
    ours is seen as EOF by whoever reads."""
    reading, writing = _take_over(stdin, os.O_RDONLY), _take_over(stdout, os.O_WRONLY)
    if _is_one_socket(reading, writing):
        blocking = os.get_blocking(writing)

        def restore(end: SpliceEnd) -> None:
            os.set_blocking(writing, blocking)
            os.close(writing)
            on_end(end)

        return await join_tcp(socket.socket(fileno=reading), stream, attach, restore)
    side = StdioSide(stream, on_end)
    side.writer = await _open_writer(writing, side)
    await _open_reader(reading, side)
    attach(side.splice)
    return side.splice


def _take_over(fd: int, flags: int) -> int:
    ours = os.dup(fd)
    null = os.open(os.devnull, flags)
    os.dup2(null, fd)
    os.close(null)
    return ours


def _is_one_socket(reading: int, writing: int) -> bool:
    """Whether both descriptors are one stream socket, as some programs give to their helpers: the
    event loop cannot drive it as two pipes."""
    one, other = os.fstat(reading), os.fstat(writing)
    return stat.S_ISSOCK(one.st_mode) and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _can_be_polled(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return os.name == "posix" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd))


class Reader(Protocol):
    """Where local bytes come from. Reports to `StdioSide.splice` and `StdioSide.failed`."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Writer(Protocol):
    """Where the peer's bytes go to."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """Close after what has been written; then call `StdioSide.written`."""

    def abort(self) -> None:
        """Close at once. Nothing is called afterwards."""


class StdioSide:
    """The local side of a splice over two file descriptors. See `splice.LocalSide`."""

    def __init__(self, stream: ByteStream, on_end: Callable[[SpliceEnd], None]) -> None:
        self.splice = Splice(stream, self, on_end)
        self.reader: Reader
        self.writer: Writer
        self._finishing = False
        self._written = False
        self._closing = False
        self._lost = False

    # LocalSide

    def write(self, data: bytes) -> None:
        if not self._finishing and not self._lost:
            self.writer.write(data)

    def write_eof(self) -> None:
        if not self._finishing and not self._lost:
            self._finishing = True
            self.writer.finish()

    def pause_reading(self) -> None:
        self.reader.pause()

    def resume_reading(self) -> None:
        self.reader.resume()

    def close(self, *, reset: bool) -> None:
        self._closing = True
        self.reader.close()
        self.write_eof()
        if self._written:
            self._end(None)

    def abort(self) -> None:
        if not self._lost:
            self._end(None)

    # What reader and writer report.

    def written(self) -> None:
        """All bytes are out and the output is closed."""
        self._written = True
        if self._closing:
            self._end(None)

    def failed(self, error: Exception) -> None:
        """One of the two cannot be used any more."""
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self.reader.close()
            if not self._written:
                self.writer.abort()
            self.splice.local_lost(error)


# Driven by the event loop.


async def _open_reader(fd: int, side: StdioSide) -> None:
    """Give `side` its reader; bytes may come before this returns."""
    if not _can_be_polled(fd):
        side.reader = ThreadReader(fd, side)
        return
    loop = asyncio.get_running_loop()
    reader = side.reader = PipeReader(side, fd, os.get_blocking(fd))
    pipe = os.fdopen(fd, "rb", buffering=0)
    await loop.connect_read_pipe(lambda: reader, pipe)


async def _open_writer(fd: int, side: StdioSide) -> Writer:
    if not _can_be_polled(fd):
        return ThreadWriter(fd, side)
    loop = asyncio.get_running_loop()
    blocking = os.get_blocking(fd)
    pipe = os.fdopen(fd, "wb", buffering=0)
    _, writer = await loop.connect_write_pipe(lambda: PipeWriter(side, fd, blocking), pipe)
    return writer


class PipeReader(asyncio.Protocol):
    """A `Reader` on a pipe, socket or terminal. The descriptor's blocking mode is restored in the
    end: it belongs to the terminal, which the user's shell goes on using."""

    def __init__(self, side: StdioSide, fd: int, blocking: bool) -> None:
        self._side = side
        self._fd = fd
        self._blocking = blocking
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._side.splice.local_data(data)

    def eof_received(self) -> bool:
        self._side.splice.local_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        os.set_blocking(self._fd, self._blocking)  # the transport closes it after this call
        if exc is not None:
            self._side.failed(exc)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class PipeWriter(asyncio.BaseProtocol):
    """A `Writer` on a pipe, socket or terminal."""

    def __init__(self, side: StdioSide, fd: int, blocking: bool) -> None:
        self._side = side
        self._fd = fd
        self._blocking = blocking
        self._aborted = False
        self._finished = False
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def pause_writing(self) -> None:
        self._side.splice.local_full()

    def resume_writing(self) -> None:
        self._side.splice.local_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        os.set_blocking(self._fd, self._blocking)  # the transport closes it after this call
        if self._aborted:
            return
        if self._finished and exc is None:
            self._side.written()
        else:
            self._side.failed(exc or BrokenPipeError())

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def finish(self) -> None:
        self._finished = True
        if not self._transport.is_closing():
            self._transport.close()  # flushes first

    def abort(self) -> None:
        self._aborted = True
        self._transport.abort()


# Driven by threads.


class ThreadReader:
    """A `Reader` on anything: a daemon thread that reads one chunk at a time, each passed on
    before the next is read."""

    def __init__(self, fd: int, side: StdioSide) -> None:
        self._fd = fd
        self._side = side
        self._loop = asyncio.get_running_loop()
        self._may_read = threading.Event()
        self._closed = False
        self._paused = False
        self._waiting: bytes | None = None
        self._may_read.set()
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._waiting is not None:
            data, self._waiting = self._waiting, None
            self._deliver(data)

    def close(self) -> None:
        self._closed = True
        self._may_read.set()

    def _run(self) -> None:
        try:
            while True:
                self._may_read.wait()
                self._may_read.clear()
                if self._closed:
                    break
                try:
                    data = os.read(self._fd, CHUNK)
                except OSError as error:
                    self._loop.call_soon_threadsafe(self._failed, error)
                    break
                self._loop.call_soon_threadsafe(self._deliver, data)
                if not data:
                    break
        except RuntimeError:
            pass  # the loop has closed
        finally:
            os.close(self._fd)

    def _deliver(self, data: bytes) -> None:
        if self._closed:
            return
        if not data:
            self._side.splice.local_eof()
        elif self._paused:
            self._waiting = data
        else:
            self._side.splice.local_data(data)
            self._may_read.set()

    def _failed(self, error: OSError) -> None:
        if not self._closed:
            self._side.failed(error)


class ThreadWriter:
    """A `Writer` on anything: a daemon thread that empties a queue, bounded by the splice, which
    stops the peer while more than `WRITE_HIGH_WATER` bytes wait."""

    def __init__(self, fd: int, side: StdioSide) -> None:
        self._fd = fd
        self._side = side
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._full = False
        self._finished = False
        self._aborted = False
        self._wake = threading.Semaphore(0)
        threading.Thread(target=self._run, name="stdout", daemon=True).start()

    def write(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > WRITE_HIGH_WATER and not self._full:
            self._full = True
            self._side.splice.local_full()
        self._wake.release()

    def finish(self) -> None:
        self._finished = True
        self._wake.release()

    def abort(self) -> None:
        self._aborted = True
        self._wake.release()

    def _run(self) -> None:
        error: OSError | None = None
        try:
            while self._next():
                chunk = self._chunks.popleft()
                _write_all(self._fd, chunk)
                self._loop.call_soon_threadsafe(self._taken, len(chunk))
        except OSError as caught:
            error = caught
        except RuntimeError:
            return  # the loop has closed
        finally:
            os.close(self._fd)
        self._call(self._ended, error)

    def _next(self) -> bool:
        """Wait for a chunk; False when there will be none."""
        while not self._chunks:
            if self._finished or self._aborted:
                return False
            self._wake.acquire()
        return not self._aborted

    def _taken(self, size: int) -> None:
        self._size -= size
        if self._full and self._size <= WRITE_HIGH_WATER // 4:
            self._full = False
            self._side.splice.local_drained()

    def _ended(self, error: OSError | None) -> None:
        if self._aborted:
            return
        if error is not None:
            self._side.failed(error)
        else:
            self._side.written()

    def _call(self, callback: Callable[[OSError | None], None], error: OSError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, error)
        except RuntimeError:
            pass  # the loop has closed


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
