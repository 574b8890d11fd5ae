"""Blocks of text that people carry: read from a terminal, a pipe or a file that will appear."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from tunnel_rs.errors import LocalError, ProtocolError, TunnelError
from tunnel_rs.proto.manual_text import BlockKind, PasteReader

MAX_INPUT = 8 << 20
"""Most bytes read in search of a block."""

_CHUNK = 65_536
_POLL = 0.2
"""Seconds between looks at a file that is not there, or not complete, yet."""


async def read_block(kind: BlockKind, source: Path | int) -> tuple[bytes, int]:
    """The JSON of the first block of `kind`, and how many lines before it were left out.

    `source` is a descriptor, which is read to the end of the block, or the path of a file or pipe,
    which is waited for. Raises ProtocolError for damage, LocalError when it cannot be read.
    """
    # A thread, as neither terminals nor files can be awaited everywhere. It is a daemon and does
    # not touch `sys.stdin`, so that it never keeps the program from ending.
    loop = asyncio.get_running_loop()
    result: asyncio.Future[tuple[bytes, int]] = loop.create_future()
    stop = threading.Event()

    def deliver(found: tuple[bytes, int] | None, error: TunnelError | None) -> None:
        if result.done():
            return
        if found is not None:
            result.set_result(found)
        elif error is not None:
            result.set_exception(error)

    def work() -> None:
        found: tuple[bytes, int] | None = None
        failure: TunnelError | None = None
        try:
            found = _from_fd(kind, source) if isinstance(source, int) else _wait(kind, source, stop)
        except TunnelError as error:
            failure = error
        except OSError as error:
            failure = LocalError(f"cannot read the {kind.lower()}: {error.strerror or error}")
        try:
            loop.call_soon_threadsafe(deliver, found, failure)
        except RuntimeError:
            pass  # the loop has closed: nobody waits any more

    threading.Thread(target=work, name=f"read {kind.lower()}", daemon=True).start()
    try:
        return await result
    finally:
        stop.set()


def _wait(kind: BlockKind, path: Path, stop: threading.Event) -> tuple[bytes, int] | None:
    """Look at a file again and again until it holds a whole block."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            pass
        else:
            try:
                return _from_fd(kind, fd)
            except CutOffError:
                pass  # somebody is writing it just now
            finally:
                os.close(fd)
        if stop.wait(_POLL):
            return None


class CutOffError(ProtocolError):
    """The input ended before the block did."""


def _from_fd(kind: BlockKind, fd: int) -> tuple[bytes, int]:
    reader = PasteReader(kind)
    for line in _lines(fd):
        body = reader.feed(line.decode("utf-8", "replace"))
        if body is not None:
            return body, reader.trimmed
    raise CutOffError(str(reader.end()))


def _lines(fd: int) -> Iterator[bytes]:
    total = 0
    rest = b""
    while chunk := os.read(fd, _CHUNK):
        total += len(chunk)
        if total > MAX_INPUT:
            raise ProtocolError(
                f"more than {MAX_INPUT >> 20} MiB of text; is this the right input?"
            )
        *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        yield from lines
    if rest:
        yield rest


def drop_typed(fd: int) -> None:
    """Forget what a terminal holds that was not read: words that were pasted after a block would
    else be commands to the shell, once we end. Nothing happens where there is no terminal."""
    try:
        import termios
    except ImportError:
        return  # Windows; its consoles keep no input for the next program that way
    with contextlib.suppress(termios.error, OSError):
        termios.tcflush(fd, termios.TCIFLUSH)


def write_block(path: Path, text: str) -> None:
    """Write a block to a file, which others then find whole; a pipe is written as it is. Readable
    by the owner only, as it holds a password. Raises LocalError."""
    try:
        if path.exists() and not path.is_file():
            with path.open("w") as pipe:
                pipe.write(text)
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(text)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"{path}: cannot be written: {error.strerror or error}") from None
