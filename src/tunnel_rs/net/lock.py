"""One instance at a time: a lock that goes with the process.

The file is the one of other versions, but who runs as another user or without a runtime directory
looks for another file. So on Linux a name in the network namespace, where all the routes are that
two instances would fight over, is held as well.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tunnel_rs.errors import LocalError


def vpn_client_lock(environ: Mapping[str, str]) -> Path:
    """The file VPN clients of all versions lock (spec `vpn.md` section 2.8)."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    directory = Path(runtime) if os.path.isabs(runtime) else Path(tempfile.gettempdir())
    return directory / "tunnel-vpn.lock"


NAME = "\0tunnel-rs-vpn-client"
"""Of an abstract Unix socket (unix(7)), which is there as long as it is open."""


class InstanceLock:
    """While entered, no other process can enter it with the same file. The file stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._name: socket.socket | None = None

    def __enter__(self) -> Self:
        """Raises LocalError when another process has it."""
        try:
            # Somebody else's link in a directory that all can write to is not followed.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            self._fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise LocalError(
                f"cannot open the lock {self._path}: {error.strerror}; "
                "if it is another user's and no VPN client is running, remove it"
            ) from None
        try:
            _lock(self._fd)
            self._name = _hold(NAME)
        except OSError:
            self._close()
            raise LocalError(
                f"another VPN client is running on this machine (see {self._path}, or "
                "`tunnel-rs-vpn status`); stop it first"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1
        if self._name is not None:
            self._name.close()


def _hold(name: str) -> socket.socket | None:
    """Raises OSError when somebody has it."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(name)
    except OSError:
        sock.close()
        raise
    return sock


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
