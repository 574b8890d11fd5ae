"""What a service is made of: which command it runs, with which files, as whom."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tunnel_rs.config import ice_build, kinds, schema
from tunnel_rs.config.build import build_client, build_server
from tunnel_rs.config.dns_server_file import load_dns_server
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_schema import NSEC_FILE, Mode
from tunnel_rs.config.ice_values import mode_of
from tunnel_rs.config.option import Role
from tunnel_rs.config.relay_file import load_relay
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.config.vpn_build import build_vpn_client, build_vpn_server
from tunnel_rs.errors import ConfigError, LocalError, UsageError
from tunnel_rs.values import quoted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""What a second service of a kind may be called."""


class Scope(StrEnum):
    """Whose service it is: that of a user, while logged in, or the machine's."""

    USER = "user"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Kind:
    """A command that can be a service. `words` are the program and its subcommand; `build` reads
    all that the configuration names and raises what is wrong with it."""

    name: str
    words: tuple[str, str]
    build: Callable[[Values], object] | None = None
    role: Role | None = None
    config_flag: str = "--config"
    reloads: bool = True
    low_ports: bool = False
    keeps_data: bool = False

    @property
    def is_vpn(self) -> bool:
        """It makes devices and routes, which takes root."""
        return self.words[0] == "tunnel-rs-vpn"

    @property
    def is_ice(self) -> bool:
        """Its files have a mode of their own."""
        return self.words[0] == "tunnel-rs-ice"


def _read(kind: Kind, path: Path) -> Values | None:
    """Read a configuration as its program would, with none of our environment: a service has none
    of it. Raises ConfigError. None: it names no files that could be given on the command line."""
    if kind.name == "relay":
        load_relay(path, {})
        return None
    if kind.name == "dns-server":
        load_dns_server(path, {})
        return None
    assert kind.role is not None and kind.build is not None
    file = ConfigFile.read(path)
    values = collect(kind.role, {}, {}, file, _mode(kind, file))
    kind.build(values)
    return values


def _mode(kind: Kind, file: ConfigFile) -> str:
    """Raises ConfigError for a mode in which nothing runs by itself."""
    if not kind.is_ice:
        return schema.MODE
    if mode_of(file) is Mode.MANUAL:
        raise ConfigError(
            f"{file.path}: mode: in manual mode somebody pastes a block at each start; "
            'a service needs mode = "nostr"'
        )
    return Mode.NOSTR


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("server", ("tunnel-rs", "server"), build_server, Role.SERVER),
        Kind("client", ("tunnel-rs", "client"), build_client, Role.CLIENT, reloads=False),
        Kind("relay", ("tunnel-rs", "relay"), config_flag="--config-path", low_ports=True),
        Kind("dns-server", ("tunnel-rs", "dns-server"), low_ports=True, keeps_data=True),
        Kind("vpn-server", ("tunnel-rs-vpn", "server"), build_vpn_server, Role.VPN_SERVER),
        Kind(
            "vpn-client",
            ("tunnel-rs-vpn", "client"),
            build_vpn_client,
            Role.VPN_CLIENT,
            reloads=False,
        ),
        Kind("ice-server", ("tunnel-rs-ice", "server"), ice_build.build_server, Role.SERVER),
        Kind(
            "ice-client",
            ("tunnel-rs-ice", "client"),
            ice_build.build_client,
            Role.CLIENT,
            reloads=False,
        ),
    )
}
"""What `tunnel-rs service` can install."""

_SECRETS = frozenset(
    {schema.SECRET_FILE.name, schema.AUTH_TOKEN_FILE.name, "relay_token_file", NSEC_FILE.name}
)
"""Files with secrets that are read once, at the start. Those read again on SIGHUP are not among
them: what systemd hands over is a copy."""

_WRITTEN = frozenset({"audit_log", "control_socket"})
"""Files that a program makes: they may be anywhere, and need not be there."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the configuration names. `once`: a secret that is read at the start only."""

    flag: str
    option: str
    path: Path
    once: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a service file is written from. `program` is the command without its options."""

    kind: Kind
    scope: Scope
    config: Path
    program: tuple[str, ...]
    run_as: str | None = None
    instance: str | None = None
    files: tuple[NamedFile, ...] = field(default=())

    @property
    def name(self) -> str:
        """What the service is called: `tunnel-rs-server`, or `tunnel-rs-server-office`."""
        return service_name(self.kind, self.instance)

    @property
    def readable(self) -> Iterator[Path]:
        """Files that the service reads itself, as the user it runs as."""
        yield self.config
        yield from (file.path for file in self.files if not file.once)


def service_name(kind: Kind, instance: str | None) -> str:
    """Raises UsageError for an instance that cannot be part of a file name."""
    if instance is None:
        return f"tunnel-rs-{kind.name}"
    if not NAME.fullmatch(instance):
        raise UsageError(
            f"--name: {quoted(instance)}: letters, digits, - and _ only, 32 of them at most"
        )
    return f"tunnel-rs-{kind.name}-{instance}"


def make_plan(
    kind: Kind, scope: Scope, config: Path, *, run_as: str | None, instance: str | None
) -> Plan:
    """Check the configuration as the program itself would, and plan. Raises ConfigError, UsageError
    or LocalError."""
    service_name(kind, instance)
    if kind.is_vpn and scope is Scope.USER:
        raise UsageError(f"a {kind.name} needs root: install it with --system")
    config = Path(os.path.abspath(config))
    if not str(config).isprintable():
        raise UsageError(f"--config: {quoted(str(config))}: give it a name without control marks")
    values = _read(kind, config)
    files = tuple(named_files(values)) if values is not None else ()
    program = program_words(kind.words, Path(sys.executable), shutil.which)
    return Plan(kind, scope, config, program, run_as, instance, files)


def named_files(values: Values) -> Iterator[NamedFile]:
    """The files a configuration names, with absolute paths: a service starts elsewhere."""
    for option in values.options:
        path = values.get(option)
        is_named = option.kind is kinds.FILE and option.flags and option.name not in _WRITTEN
        if is_named and isinstance(path, Path):
            absolute = Path(os.path.abspath(path))
            yield NamedFile(option.flags[-1], option.name, absolute, option.name in _SECRETS)


def program_words(
    words: tuple[str, str], python: Path, which: Callable[[str], str | None]
) -> tuple[str, ...]:
    """The absolute path of the program beside our own Python, else that in the PATH, and its
    subcommand. Raises LocalError when it is in neither."""
    program, subcommand = words
    suffix = ".exe" if os.name == "nt" else ""
    beside = python.with_name(program + suffix)
    found = str(beside) if beside.exists() else which(program)
    if found is None:
        raise LocalError(f"cannot find the program {program}; install the package first")
    return os.path.abspath(found), subcommand
