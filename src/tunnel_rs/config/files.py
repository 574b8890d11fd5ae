"""Read a TOML configuration file and match its keys against the schema."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunnel_rs.config.option import Option, Role
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.config.tables import FORWARD, VPN, options_for, table_for
from tunnel_rs.errors import ConfigError
from tunnel_rs.values import quoted

MAX_FILE_SIZE = 1_048_576
"""Bytes; a configuration is a few kilobytes, so a larger file is the wrong file."""

_OTHER_PROGRAMS = {
    "manual": "tunnel-rs-ice",
    "nostr": "tunnel-rs-ice",
}
_HEAD = ("role", "mode")
_ROLES = " or ".join(f'"{role}"' for role in Role)


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError: absent, unreadable, too large, not UTF-8."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_SIZE:
        raise ConfigError(f"{path}: larger than 1 MiB; is this the right file?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start + 1})") from None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that is TOML; its keys are not checked before `entries`."""

    path: Path
    content: Mapping[str, object]

    @classmethod
    def read(cls, path: Path) -> "ConfigFile":
        """Read and parse. Raises ConfigError: absent, unreadable, too large, not TOML."""
        try:
            return cls(path, tomllib.loads(read_text(path)))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: {_describe_toml(error)}") from None

    @property
    def role(self) -> Role:
        """Which side the file is for. Raises ConfigError when it does not say, or says neither."""
        given = self._head("role", 'role = "server" or role = "client"')
        if given not in set(Role):
            raise self._wrong("role", given, _ROLES)
        return Role(given)

    def entries(self, role: Role) -> Iterator[tuple[Option[object], str, object]]:
        """Every option in the file: the option, the key it is written under, the raw value.

        Raises ConfigError for another role or mode, and for a key `role` does not have.
        """
        self._check_role(role)
        table = table_for(role)
        mode = self._head("mode", f'mode = "{table.mode}"')
        if mode != table.mode:
            raise self._wrong("mode", mode, f'"{table.mode}"')
        own = {key: option for option in table.options[role] for key in option.keys}
        for key, value in self._leaves(self.content, ""):
            if key in _HEAD:
                continue
            option = own.get(key)
            if option is None:
                raise self._unknown(key, role)
            yield option, key, value

    def _check_role(self, role: Role) -> None:
        found = self.role
        if found is not role:
            raise ConfigError(
                f'{self.path}: role: the file says "{found}", the command needs "{role}"; '
                f"use `{found.command}` or another file"
            )

    def _head(self, key: str, advice: str) -> str:
        given = self.content.get(key)
        if given is None:
            raise ConfigError(f"{self.path}: {key} is missing; write {advice} at the top")
        if not isinstance(given, str):
            raise ConfigError(f"{self.path}: {key}: expected a string; write {advice}")
        return given

    def _wrong(self, key: str, given: str, expected: str) -> ConfigError:
        program = _OTHER_PROGRAMS.get(given)
        hint = f"; this file is for {program}" if program else ""
        return ConfigError(f"{self.path}: {key}: expected {expected}, got {quoted(given)}{hint}")

    def _leaves(self, table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
        for name, value in table.items():
            key = f'{prefix}"{name}"' if "." in name else f"{prefix}{name}"
            if key not in _TABLES:
                yield key, value
            elif isinstance(value, dict):
                yield from self._leaves(value, f"{key}.")
            else:
                raise ConfigError(f"{self.path}: {key}: expected a table; write [{key}]")

    def _unknown(self, key: str, role: Role) -> ConfigError:
        for other, options in table_for(role).options.items():
            if other is not role and any(key in option.keys for option in options):
                side = "server" if other.is_server else "client"
                return ConfigError(
                    f"{self.path}: {key}: only for a {side}, this is a {role} file; remove it"
                )
        for refused in table_for(role).refused:
            if refused.key == key:
                return ConfigError(f"{self.path}: {key}: {refused.reason}")
        known = [*_HEAD, *(key for option in options_for(role) for key in option.keys)]
        return ConfigError(f"{self.path}: {_printable(key)}: unknown key{did_you_mean(key, known)}")


def _tables() -> frozenset[str]:
    tables = (options for table in (FORWARD, VPN) for options in table.options.values())
    keys = [key.split(".") for options in tables for option in options for key in option.keys]
    return frozenset(".".join(parts[:depth]) for parts in keys for depth in range(1, len(parts)))


_TABLES = _tables()


def _printable(key: str) -> str:
    return key if key.isprintable() else quoted(key)


def _describe_toml(error: Exception) -> str:
    """`line 3, column 7: not TOML: expected ...`."""
    if isinstance(error, RecursionError):
        return "not TOML that can be read: nested too deeply"
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", str(error), re.S)
    problem, place = found.groups() if found else (str(error), "")
    problem = problem[:1].lower() + problem[1:]
    return f"{place + ': ' if place else ''}not valid TOML: {problem}"
