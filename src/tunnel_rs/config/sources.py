"""Gather option values from command line, environment and file, each with its origin.

Rank: command line > environment > file > default. A list of a higher rank replaces the whole list.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from tunnel_rs.config import schema
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.option import Exclusion, Option, Role
from tunnel_rs.config.tables import Table, table_for
from tunnel_rs.errors import ConfigError, TunnelError, UsageError

T = TypeVar("T")


class Rank(IntEnum):
    """Where a value can come from; the higher one wins."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    COMMAND_LINE = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was found: the flag, the variable, or file and key."""

    rank: Rank
    where: str

    @property
    def key(self) -> str:
        """The flag, variable or key alone."""
        return self.where.rpartition(": ")[2]

    def error(self, problem: str) -> TunnelError:
        """An error of the right exit status that says where the value is written."""
        kind = UsageError if self.rank is Rank.COMMAND_LINE else ConfigError
        return kind(f"{self.where}: {problem}")


DEFAULT = Origin(Rank.DEFAULT, "default")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and its origin."""

    value: object
    origin: Origin


Layer = Mapping[str, Setting]
"""What one source sets, by option name."""


@dataclass(frozen=True, slots=True)
class Values:
    """The value of every option of one role."""

    role: Role
    settings: Layer
    file: Path | None = None
    mode: str = schema.MODE

    @property
    def table(self) -> Table:
        """The table that the options are of."""
        return table_for(self.role, self.mode)

    @property
    def options(self) -> tuple[Option[object], ...]:
        """All options of the role."""
        return self.table.options[self.role]

    def get(self, option: Option[T]) -> T:
        """The value in force: the one of the highest rank, else the default."""
        setting = self.settings.get(option.name)
        # Each setting was made by its own option's kind, which returns T.
        return option.default if setting is None else setting.value  # type: ignore[return-value]

    def origin(self, option: Option[object]) -> Origin:
        """Where the value in force comes from."""
        setting = self.settings.get(option.name)
        return setting.origin if setting else DEFAULT

    def missing(self, what: str, *options: Option[object], advice: str = "") -> TunnelError:
        """The error for something required that no source gives.

        It is the file's fault if there is one, else the command line's.
        """
        own = {option.name: option for option in self.options}
        options = tuple(own.get(option.name, option) for option in options)
        flags = " or ".join(option.flag for option in options if option.flags)
        keys = " or ".join(option.key for option in options if option.key)
        if self.file is None:
            return UsageError(f"no {what}: give {flags}{advice}")
        return ConfigError(f"{self.file}: no {what}: set {keys}, or give {flags}{advice}")


def command_line(options: Iterable[Option[object]], given: Mapping[str, Sequence[str]]) -> Layer:
    """Read the options given on the command line; `given` maps names to all occurrences."""
    return {
        option.name: _from_texts(option, given[option.name], Rank.COMMAND_LINE, option.flag)
        for option in options
        if given.get(option.name)
    }


def environment(options: Iterable[Option[object]], environ: Mapping[str, str]) -> Layer:
    """Read the environment. Lists are separated by commas; an empty variable counts as not set."""
    layer = {}
    for option in options:
        text = environ.get(option.variable, "") if option.variable else ""
        if option.variable and text:
            texts = _split(text) if option.kind.repeatable else [text]
            layer[option.name] = _from_texts(option, texts, Rank.ENVIRONMENT, option.variable)
    return layer


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _from_texts(option: Option[object], texts: Sequence[str], rank: Rank, where: str) -> Setting:
    origin = Origin(rank, where)
    try:
        return Setting(option.kind.from_texts(texts), origin)
    except ValueError as error:
        raise origin.error(str(error)) from None


def file_values(file: ConfigFile, role: Role, table: Table) -> Layer:
    """Read a file that is for `role`. Raises ConfigError for the first thing that is wrong."""
    layer: dict[str, Setting] = {}
    for option, key, value in file.entries(role, table):
        origin = Origin(Rank.FILE, f"{file.path}: {key}")
        if option.name in layer:
            other = layer[option.name].origin.key
            raise origin.error(f"says the same as {other}; keep one of them")
        try:
            layer[option.name] = Setting(option.kind.from_toml(value), origin)
        except ValueError as error:
            raise origin.error(str(error)) from None
    return layer


def collect(
    role: Role,
    given: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    file: ConfigFile | None,
    mode: str = schema.MODE,
) -> Values:
    """Merge all sources, the command line first. Raises UsageError or ConfigError."""
    table = table_for(role, mode)
    options, exclusions = table.options[role], table.exclusions
    layers = [command_line(options, given), environment(options, environ)]
    if file is not None:
        layers.append(file_values(file, role, table))
    for layer in layers:
        _refuse_exclusive(layer, exclusions)
    return Values(role, _merge(layers, exclusions), file.path if file else None, mode)


def _refuse_exclusive(layer: Layer, exclusions: Sequence[Exclusion]) -> None:
    for exclusion in exclusions:
        first, second = layer.get(exclusion.first.name), layer.get(exclusion.second.name)
        if first and second and not _may_combine(exclusion, first.origin):
            other = first.origin.key
            raise second.origin.error(f"cannot be given beside {other}; keep one of them")


def _may_combine(exclusion: Exclusion, origin: Origin) -> bool:
    return exclusion.together_on_command_line and origin.rank is Rank.COMMAND_LINE


def _merge(layers: Iterable[Layer], exclusions: Sequence[Exclusion]) -> Layer:
    """Join layers, the highest rank first."""
    merged: dict[str, Setting] = {}
    for layer in layers:
        replaced = _excluded_by(merged, exclusions)
        for name, setting in layer.items():
            if name not in replaced:
                merged.setdefault(name, setting)
    return merged


def _excluded_by(names: Iterable[str], exclusions: Sequence[Exclusion]) -> set[str]:
    names = set(names)
    pairs = [(e.first.name, e.second.name) for e in exclusions]
    return {b for a, b in pairs if a in names} | {a for a, b in pairs if b in names}


def default_config_path(role: Role, environ: Mapping[str, str]) -> Path:
    """Where `--default-config` looks: `tunnel-rs/<file of the role>` in the XDG configuration
    directory.

    Source: XDG Base Directory Specification; a relative XDG_CONFIG_HOME is ignored, as it says.
    """
    base = environ.get("XDG_CONFIG_HOME", "")
    directory = Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()
    return directory / "tunnel-rs" / role.file_name
