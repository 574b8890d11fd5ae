"""`tunnel-rs netcheck --bundle`: what helps to find a fault, in one archive to send to others."""

import json
import os
import platform
import re
import socket
import stat
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from tunnel_rs import __version__
from tunnel_rs.cli.programs import PATTERN, silence
from tunnel_rs.cli.redaction import Redactor
from tunnel_rs.config.files import read_text
from tunnel_rs.config.masking import masked
from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.net.control_socket import ask_all, runtime_directory

Contents = Mapping[str, str]
"""File names and texts."""

MAX_CONFIG_FILES = 20

_NAME = re.compile(r"[^A-Za-z0-9._-]")
"""What ends the name of a requirement."""

_README = """\
Written by `tunnel-rs netcheck --bundle`. Look through it before you send it to anybody.

netcheck.txt, netcheck.json  what this network allows
versions.txt                 this program, what it is built on, the system
system.txt                   limits and kernel settings that matter, names of environment variables
status-N.json                what running programs of this user told of themselves
status-silent.txt            which of them did not answer, if any
config/...                   configuration files: known settings that are no secret
config/LIST.txt              names, sizes and modes of the other files there, which are not in it

Left out or replaced: tokens, keys, passwords and queries in URLs (***), EndpointIds (id-N),
addresses that are unique in the world (ipv4-N, ipv6-N), the names of user and machine. Host names
of relays and targets, and the names that you gave to tokens, are in it.
"""

_SETTINGS = (
    "/proc/sys/net/core/rmem_max",
    "/proc/sys/net/core/wmem_max",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6",
)
_VARIABLES = ("TUNNEL_RS_", "IROH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "XDG_")


def contents(findings: Sequence[str], event: str, environ: Mapping[str, str]) -> Contents:
    """What belongs into the archive, redacted. `findings` and `event` are netcheck's, as lines and
    as JSON."""
    host = socket.gethostname()
    private = {_home(environ): "~", _user(environ): "USER"}
    redact = Redactor(private | ({host: "HOST"} if host != "localhost" else {}))
    found = {
        "README.txt": _README,
        "netcheck.txt": "\n".join(findings) + "\n",
        "netcheck.json": event + "\n",
        "versions.txt": "\n".join(_versions()) + "\n",
        "system.txt": "\n".join(_system(environ)) + "\n",
        **dict(_statuses(environ)),
        **dict(_config(environ)),
    }
    return {name: text if name == "README.txt" else redact(text) for name, text in found.items()}


def write(path: Path, files: Contents) -> None:
    """Make the archive, for this user alone. Raises LocalError, also when there is such a file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in files.items():
                    archive.writestr(f"tunnel-rs-bundle/{name}", text)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror or error}") from None


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or environ.get("USERPROFILE") or ""


def _user(environ: Mapping[str, str]) -> str:
    user = environ.get("USER") or environ.get("USERNAME") or ""
    return "" if user == "root" else user


def _versions() -> Iterator[str]:
    yield f"tunnel-rs {__version__}"
    yield f"Python {sys.version.split()[0]} ({platform.python_implementation()})"
    yield f"{platform.system()} {platform.release()} {platform.machine()}"
    for name in sorted({_NAME.split(text)[0] for text in _requirements()}):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} is not installed"


def _requirements() -> Sequence[str]:
    try:
        listed = requires("tunnel-rs") or ()
    except PackageNotFoundError:
        return ()
    return [text for text in listed if "extra ==" not in text] + ["uvloop", "pyroute2"]


def _system(environ: Mapping[str, str]) -> Iterator[str]:
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield f"open files: {soft} ({hard})"
    for path in map(Path, _SETTINGS):
        if path.exists():
            yield f"{path}: {path.read_text().strip()}"
    names = sorted(name for name in environ if name.upper().startswith(_VARIABLES))
    yield f"environment variables that are set: {', '.join(names) or 'none'}"


def _statuses(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    answers = ask_all(runtime_directory(environ), PATTERN)
    for number, answer in enumerate(answers.given.values(), 1):
        yield f"status-{number}.json", json.dumps(answer, indent=2) + "\n"
    if answers.silent:
        yield "status-silent.txt", "".join(f"{silence(path)}\n" for path in answers.silent)


def _config(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    base = environ.get("XDG_CONFIG_HOME", "")
    directory = Path(base if os.path.isabs(base) else f"{_home(environ)}/.config") / "tunnel-rs"
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        yield "config/LIST.txt", f"{directory}: {error.strerror}\n"
        return
    yield "config/LIST.txt", "".join(map(_listed, paths))
    for path in [path for path in paths if path.suffix == ".toml"][:MAX_CONFIG_FILES]:
        try:
            yield f"config/{path.name}", masked(read_text(path))
        except ConfigError as error:
            yield f"config/{path.name}", f"# {error}\n"


def _listed(path: Path) -> str:
    found = path.lstat()
    return f"{stat.filemode(found.st_mode)} {found.st_size:>9} {path.name}\n"
