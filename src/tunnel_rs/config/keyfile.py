"""The file that holds a server's identity: base64 of an Ed25519 seed, mode 0600 (spec
`tunnel-protocol.md`, "Keys")."""

import contextlib
import os
import stat
from pathlib import Path
from secrets import token_hex

from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.proto.identity import decode_secret_key, encode_secret_key
from tunnel_rs.values import Secret

MAX_FILE_SIZE = 1024
"""Most bytes read of a key file; a key takes 45."""

_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_secret_key(path: Path, seed: Secret[bytes], force: bool) -> None:
    """Write a new key file: see `write_key_file`."""
    write_key_file(path, encode_secret_key(seed).encode() + b"\n", force)


def write_key_file(path: Path, content: bytes, force: bool) -> None:
    """Write a file with a key, at once and whole, readable by its owner only from the start.

    Without `force` a file of that name is never replaced, also when it appears meanwhile; with
    it only a regular file is. Raises LocalError, and leaves nothing behind then.
    """
    destination = _destination(path, force)
    temporary = destination.with_name(f".tunnel-rs-{token_hex(8)}.tmp")
    try:
        try:
            _write_durably(temporary, content)
            if force:
                os.replace(temporary, destination)
            else:
                _move_to_free_name(temporary, destination)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(destination.parent)
    except FileExistsError:
        raise _exists(path) from None
    except FileNotFoundError:
        raise LocalError(
            f"cannot write the key file {path}: the directory {path.parent} does not exist; "
            f"create it first"
        ) from None
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot write the key file {path}: {_cause(error)}") from None


def read_secret_key(path: Path) -> Secret[bytes]:
    """The key in a file. Raises ConfigError, one line naming the file, never its content."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"the key file {path} does not exist; make one with: "
            f"tunnel-rs generate-server-key -o {path}"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the key file {path}: {_cause(error)}") from None
    if len(content) > MAX_FILE_SIZE:
        raise ConfigError(f"{path} is no key file: it has more than {MAX_FILE_SIZE} bytes")
    try:
        return decode_secret_key(content.decode("ascii", "replace"))
    except ValueError as error:
        raise ConfigError(f"{path} is no key file: {error}") from None


def exposure_warning(path: Path) -> str | None:
    """One line when users other than the owner may read or change the file, else None. Always
    None on Windows, where the mode says nothing, and for what cannot be examined."""
    if os.name != "posix":
        return None
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(mode) or not mode & _OTHERS:
        return None
    return (
        f"the key file {path} is open to other users (mode {stat.S_IMODE(mode):04o}); "
        f"run: chmod 600 {path}"
    )


def _cause(error: Exception) -> str:
    """What the system says, without the file name that our own text gives already."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or type(error).__name__).lower()


def _exists(path: Path) -> LocalError:
    return LocalError(f"{path} exists and is not replaced; --force replaces it, and its identity")


def _destination(path: Path, force: bool) -> Path:
    """Where the file is to be; behind a symbolic link when one is to be replaced."""
    if path.is_dir():
        raise LocalError(f"{path} is a directory; name a file in it for the key")
    if not force or not os.path.lexists(path):
        return path
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise LocalError(f"{path} is not a regular file; name another file for the key")
        return path.resolve()
    except OSError as error:
        raise LocalError(f"cannot write the key file {path}: {_cause(error)}") from None


def _write_durably(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, _MODE), "wb") as file:
        if hasattr(os, "fchmod"):
            # The umask may have taken rights of the owner away too.
            os.fchmod(file.fileno(), _MODE)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_to_free_name(temporary: Path, destination: Path) -> None:
    """Give the file its name unless that name is taken, in one step. Raises FileExistsError."""
    if os.name == "nt":
        os.rename(temporary, destination)
        return
    try:
        os.link(temporary, destination)
    except FileExistsError:
        raise
    except OSError:
        _move_without_links(temporary, destination)


def _move_without_links(temporary: Path, destination: Path) -> None:
    """For file systems without hard links: claim the name with an empty file, then fill it."""
    os.close(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))
    try:
        os.replace(temporary, destination)
    except OSError:
        with contextlib.suppress(OSError):
            destination.unlink()
        raise


def _sync_directory(directory: Path) -> None:
    """Make the new name durable, where directories can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
