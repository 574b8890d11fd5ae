"""A running program's ear for its own user: a Unix socket where each connection carries one
request and its answer, a line of JSON each way.

Only the same user, or root, is heard. Windows has no such sockets for asyncio: there the program
listens on loopback, and a file that only its user can read tells the port and a token to show.
"""

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import socket
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

from tunnel_rs.errors import LocalError, TunnelError
from tunnel_rs.net.tasks import ScopeFullError, TaskScope

ASK_TIMEOUT = 20.0
"""Seconds an answer may take: a ping waits for its peer."""

ALL_TIMEOUT = 3.0
"""Seconds each of several programs has to tell what it knows."""

MAX_REQUEST = 64 << 10
MAX_ANSWER = 64 << 20
MAX_ASKING = 32
"""Connections at a time."""
MAX_ASKED = 32
"""Programs asked at a time."""

_REQUEST_TIMEOUT = 5.0
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1  # <sys/un.h> of macOS and FreeBSD

Request = Mapping[str, Any]
Handle = Callable[[Request], Awaitable[Mapping[str, object]]]
"""Answers a request, `{"command": ...}`. What it raises as a TunnelError is told."""

STATUS: Request = {"command": "status"}


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Where sockets of running programs are: what systemd gives a service (systemd.exec(5),
    RuntimeDirectory=), the XDG runtime directory (XDG Base Directory Specification), /run for root,
    else one of the user's own among the temporary files."""
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "tunnel-rs" / "run"
    service = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(service):
        return Path(service)
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return Path(runtime) / "tunnel-rs"
    if os.geteuid() == 0:
        return Path("/run/tunnel-rs")
    return Path(tempfile.gettempdir()) / f"tunnel-rs-{os.geteuid()}"


class ControlSocket:
    """Answers while it is entered. `path` ends in `.sock`."""

    def __init__(
        self, path: Path, handle: Handle, *, portable: bool = sys.platform == "win32"
    ) -> None:
        """`portable`: loopback and a token in a file, in place of a Unix socket."""
        self.path = path.with_suffix(".port") if portable else path
        self._handle = handle
        self._token = secrets.token_hex(32) if portable else ""
        self._server: asyncio.Server | None = None
        self._asking: set[_Asker] = set()
        self._tasks = TaskScope("control", limit=MAX_ASKING)

    async def __aenter__(self) -> "ControlSocket":
        """Raises LocalError when the socket cannot be made."""
        loop = asyncio.get_running_loop()
        try:
            _make_directory(self.path.parent)
            if self._token:
                self._server = await loop.create_server(self._asker, "127.0.0.1", 0)
                port = self._server.sockets[0].getsockname()[1]
                _write_private(self.path, json.dumps({"port": port, "token": self._token}))
            else:
                sock = _listen(self.path)
                self._server = await loop.create_unix_server(self._asker, sock=sock)
        except OSError as error:
            self._stop()
            raise LocalError(
                f"cannot make the control socket {self.path}: {error.strerror or error}"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._stop()
            with contextlib.suppress(OSError):
                self.path.unlink()
        await self._tasks.aclose()
        for asker in list(self._asking):
            asker.abort()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def _asker(self) -> "_Asker":
        return _Asker(self, self._asking)

    def admits(self, transport: asyncio.Transport) -> bool:
        """Whether who has connected may ask at all."""
        return len(self._asking) <= MAX_ASKING and (bool(self._token) or _is_ours(transport))

    def answer(self, line: bytes, reply: Callable[[Mapping[str, object]], None]) -> None:
        """Handle one request; `reply` is called once, later."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            reply({"error": "a request is one line with a JSON object"})
        elif self._token and not _same(request.pop("token", ""), self._token):
            reply({"error": "the token of the control socket is wrong"})
        else:
            try:
                self._tasks.spawn(self._answer(request, reply), "request")
            except ScopeFullError:
                reply({"error": "too many requests at a time"})

    async def _answer(
        self, request: Request, reply: Callable[[Mapping[str, object]], None]
    ) -> None:
        try:
            reply(await self._handle(request))
        except TunnelError as error:
            reply({"error": str(error), "exit_status": int(error.exit_status)})


class _Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, owner: ControlSocket, asking: "set[_Asker]") -> None:
        self._owner = owner
        self._asking = asking
        self._received = bytearray()
        self._asked = False
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._asking.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_REQUEST_TIMEOUT, self._transport.abort)
        if not self._owner.admits(self._transport):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._asked:
            return
        self._received += data
        line, newline, _ = self._received.partition(b"\n")
        if newline:
            self._asked = True
            self._timer.cancel()
            self._owner.answer(bytes(line), self._reply)
        elif len(self._received) > MAX_REQUEST:
            self._transport.abort()

    def eof_received(self) -> bool:
        return self._asked  # the answer is still to come

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._asking.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def _reply(self, answer: Mapping[str, object]) -> None:
        if not self._transport.is_closing():
            self._transport.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
            self._transport.close()


def _is_ours(transport: asyncio.Transport) -> bool:
    """Whether the other end is this user or root."""
    uid = _peer_uid(transport.get_extra_info("socket"))
    # None: no way to tell on this system; there the modes of socket and directory keep others out.
    return uid in (None, 0, os.geteuid())


def _peer_uid(sock: socket.socket) -> int | None:
    system: str = sys.platform
    if system == "linux":
        pid_uid_gid = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", pid_uid_gid)[1])
    if system == "darwin" or system.startswith("freebsd"):
        credentials = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)  # struct xucred
        return int(struct.unpack_from("II", credentials)[1])
    return None


def _same(given: object, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_trusted(path):
        raise PermissionError(1, "its directory belongs to another user")


def _is_trusted(directory: Path) -> bool:
    """Whether what is in a directory was put there by this user, or for root by anybody."""
    if sys.platform == "win32":
        return True
    owner = directory.lstat().st_uid
    return not directory.is_symlink() and os.geteuid() in (owner, 0)


def _listen(path: Path) -> socket.socket:
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


def _write_private(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


# The side that asks; it blocks.


def find(directory: Path, pattern: str) -> list[Path]:
    """Control sockets, some of which may have been left behind by programs that were killed."""
    names = (f"{pattern}.sock", f"{pattern}.port")
    found = [path for name in names for path in directory.glob(name)]
    with contextlib.suppress(OSError):
        if _is_trusted(directory):
            return sorted(found)
    return []


class Answers(NamedTuple):
    """What several programs said to one request, by their sockets."""

    given: dict[Path, dict[str, Any]]
    silent: list[Path]
    """Programs that are there and did not answer in time: stopped, or very busy."""


def ask_all(directory: Path, pattern: str, request: Request = STATUS) -> Answers:
    """Ask all programs that run, at the same time, each with `ALL_TIMEOUT` seconds to answer.
    Sockets with nobody behind them are left out."""
    answers = Answers({}, [])
    paths = find(directory, pattern)
    with ThreadPoolExecutor(max_workers=MAX_ASKED) as pool:
        asked = [(path, pool.submit(ask, path, request, timeout=ALL_TIMEOUT)) for path in paths]
        for path, answer in asked:
            try:
                answers.given[path] = answer.result()
            except (TimeoutError, BlockingIOError):
                answers.silent.append(path)
            except (OSError, ValueError, TunnelError):
                pass  # of a program that was killed, or that ends just now
    return answers


def ask(path: Path, request: Request, *, timeout: float = ASK_TIMEOUT) -> dict[str, Any]:
    """The answer of one program. Raises OSError when none is there, TimeoutError when it says
    nothing for `timeout` seconds, ValueError when what answers makes no sense, and LocalError with
    what the program finds wrong."""
    with _connect(path, request, timeout) as (sock, full_request):
        sock.sendall(json.dumps(full_request).encode() + b"\n")
        data = bytearray()
        while chunk := sock.recv(65_536):
            data += chunk
            if len(data) > MAX_ANSWER:
                raise ValueError("the answer is too long")
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    if "error" in answer:
        raise LocalError(str(answer["error"]))
    return answer


@contextlib.contextmanager
def _connect(
    path: Path, request: Request, timeout: float
) -> Iterator[tuple[socket.socket, Request]]:
    family, address, token = _address(path)
    with socket.socket(family) as sock:
        sock.settimeout(timeout)
        sock.connect(address)
        yield sock, {**request, **token}


def _address(path: Path) -> tuple[socket.AddressFamily, Any, dict[str, str]]:
    """Where a program listens, and what to add to a request."""
    if path.suffix != ".port":
        return socket.AF_UNIX, str(path), {}
    try:
        known = json.loads(path.read_text())
        return socket.AF_INET, ("127.0.0.1", int(known["port"])), {"token": str(known["token"])}
    except (KeyError, TypeError):
        raise ValueError(f"{path} does not tell where a program listens") from None
