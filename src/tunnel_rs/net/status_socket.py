"""What a running program is doing, for `status`: a Unix socket that answers every connection with
one JSON object, and closes it. Only the same user can ask.
"""

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tunnel_rs.errors import LocalError

ASK_TIMEOUT = 2.0
MAX_ANSWER = 16 << 20

Describe = Callable[[], Mapping[str, object]]


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Where sockets of running programs are: the XDG runtime directory (XDG Base Directory
    Specification), /run for root, else one of the user's own among the temporary files."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return Path(runtime) / "tunnel-rs"
    if os.geteuid() == 0:
        return Path("/run/tunnel-rs")
    return Path(tempfile.gettempdir()) / f"tunnel-rs-{os.geteuid()}"


class _Answer(asyncio.Protocol):
    def __init__(self, describe: Describe) -> None:
        self._describe = describe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        stream.write(json.dumps(self._describe(), separators=(",", ":")).encode() + b"\n")
        stream.close()


class StatusSocket:
    """Answers while it is entered."""

    def __init__(self, path: Path, describe: Describe) -> None:
        self._path = path
        self._describe = describe
        self._server: asyncio.AbstractServer | None = None

    async def __aenter__(self) -> "StatusSocket":
        """Raises LocalError when the socket cannot be made."""
        loop = asyncio.get_running_loop()
        try:
            sock = _listen(self._path)
            self._server = await loop.create_unix_server(lambda: _Answer(self._describe), sock=sock)
        except OSError as error:
            raise LocalError(
                f"cannot make the status socket {self._path}: {error.strerror or error}"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink()


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise PermissionError(1, "its directory belongs to another user")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a process that was killed: the names are for one process each
    sock = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(16)
    except BaseException:
        sock.close()
        raise
    return sock


def ask_all(directory: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """The answers of all programs that run. Sockets nobody answers on are left out."""
    for path in sorted(directory.glob(pattern)):
        with contextlib.suppress(OSError, ValueError):
            yield _ask(path)


def _ask(path: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ASK_TIMEOUT)
        sock.connect(str(path))
        data = bytearray()
        while chunk := sock.recv(65_536):
            data += chunk
            if len(data) > MAX_ANSWER:
                raise ValueError("the answer is too long")
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    return answer
