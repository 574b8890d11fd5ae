"""Read a TOML configuration file and match its keys against the schema."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunnel_rs.config.option import Option, Role
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.config.tables import TABLES, Table, table_for
from tunnel_rs.errors import ConfigError
from tunnel_rs.values import quoted

MAX_FILE_SIZE = 1_048_576
"""Bytes; a configuration is a few kilobytes, so a larger file is the wrong file."""

_HEAD = ("role", "mode")
_CHOSEN_BY_CLIENTS = "a server's allowed_sources say what clients may ask for"
_ADVICE = {
    "source": _CHOSEN_BY_CLIENTS,
    "request_source": _CHOSEN_BY_CLIENTS,
    "target": _CHOSEN_BY_CLIENTS,
    "allowed_sources": "a client's source says what it wants to reach",
}
"""What to do about keys of the other side that are written for a reason."""

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

    @property
    def table(self) -> Table:
        """Which program and mode the file is for; for a mode that its role does not have, a table
        whose `entries` say so. Raises ConfigError when it does not say which side it is for."""
        role, mode = self.role, self.content.get("mode")
        fitting = (table for table in TABLES if role in table.options and table.mode == mode)
        return next(fitting, None) or table_for(role)

    def entries(self, role: Role, table: Table) -> Iterator[tuple[Option[object], str, object]]:
        """Every option in the file: the option, the key it is written under, the raw value.

        Raises ConfigError for another role or mode, and for a key `role` does not have.
        """
        self._check_role(role)
        mode = self._head("mode", f'mode = "{table.mode}"')
        if mode != table.mode:
            raise self._wrong("mode", mode, f'"{table.mode}"')
        own = {key: option for option in table.options[role] for key in option.keys}
        for key, value in self._leaves(self.content, "", table.sections):
            if key in _HEAD:
                continue
            option = own.get(key)
            if option is None:
                raise self._unknown(key, role, table)
            yield option, key, value

    def _check_role(self, role: Role) -> None:
        found = self.role
        if found is not role:
            raise ConfigError(
                f'{self.path}: role: the file says "{found}", the command needs "{role}"; '
                f"use `{self.table.command(found)}` or another file"
            )

    def _head(self, key: str, advice: str) -> str:
        given = self.content.get(key)
        if given is None:
            raise ConfigError(f"{self.path}: {key} is missing; write {advice} at the top")
        if not isinstance(given, str):
            raise ConfigError(f"{self.path}: {key}: expected a string; write {advice}")
        return given

    def _wrong(self, key: str, given: str, expected: str) -> ConfigError:
        program = next((table.program for table in TABLES if table.mode == given), None)
        hint = f"; this file is for {program}" if program else ""
        return ConfigError(f"{self.path}: {key}: expected {expected}, got {quoted(given)}{hint}")

    def _leaves(
        self, table: Mapping[str, object], prefix: str, sections: frozenset[str]
    ) -> Iterator[tuple[str, object]]:
        for name, value in table.items():
            key = f'{prefix}"{name}"' if "." in name else f"{prefix}{name}"
            if key not in sections:
                yield key, value
            elif isinstance(value, dict):
                yield from self._leaves(value, f"{key}.", sections)
            else:
                raise ConfigError(f"{self.path}: {key}: expected a table; write [{key}]")

    def _unknown(self, key: str, role: Role, table: Table) -> ConfigError:
        for other, options in table.options.items():
            if other is not role and any(key in option.keys for option in options):
                side = "server" if other.is_server else "client"
                advice = next((_ADVICE[p] for p in key.split(".") if p in _ADVICE), "remove it")
                return ConfigError(
                    f"{self.path}: {key}: only for a {side}, this is a {role} file; {advice}"
                )
        for refused in table.refused:
            if refused.key == key:
                return ConfigError(f"{self.path}: {key}: {refused.reason}")
        known = [*_HEAD, *(key for option in table.options[role] for key in option.keys)]
        return ConfigError(f"{self.path}: {_printable(key)}: unknown key{did_you_mean(key, known)}")


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
