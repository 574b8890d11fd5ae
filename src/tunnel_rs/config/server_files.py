"""Files of the self-hosted servers: a table of keys, and the values a file or the environment
gives them.

Key names are those of the iroh programs where these have them, so that their files work here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.kinds import Kind
from tunnel_rs.config.sources import DEFAULT, Origin, Rank, Setting
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.errors import ConfigError, TunnelError
from tunnel_rs.values import quoted

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Key(Generic[T_co]):
    """One thing a file can set. `path` is dotted; `ours` marks what the iroh program lacks."""

    path: str
    kind: Kind[T_co]
    default: T_co
    ours: bool = False
    variable: str | None = None
    """Environment variable that goes before the file."""


@dataclass(frozen=True, slots=True)
class FileSchema:
    """All keys of one kind of file."""

    keys: tuple[Key[object], ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Keys that the iroh program knows and that are an error here, and why."""

    @property
    def tables(self) -> frozenset[str]:
        parts = [key.path.split(".") for key in self.keys]
        return frozenset(".".join(part[:depth]) for part in parts for depth in range(1, len(part)))


@dataclass(frozen=True, slots=True)
class FileValues:
    """What a file and the environment give."""

    path: Path | None
    settings: Mapping[str, Setting]
    tables: frozenset[str]
    """Tables that the file has, empty ones included."""

    def get(self, key: Key[T]) -> T:
        setting = self.settings.get(key.path)
        # Each setting was made by its own key's kind, which returns T.
        return key.default if setting is None else setting.value  # type: ignore[return-value]

    def is_given(self, key: Key[object]) -> bool:
        return key.path in self.settings

    def origin(self, key: Key[object]) -> Origin:
        setting = self.settings.get(key.path)
        return setting.origin if setting is not None else DEFAULT

    def error(self, key: Key[object], problem: str) -> TunnelError:
        """An error that says where the value is, or would be, written."""
        if self.is_given(key):
            return self.origin(key).error(problem)
        place = f"{self.path}: " if self.path is not None else ""
        return ConfigError(f"{place}{key.path}: {problem}")


def read_values(schema: FileSchema, path: Path | None, environ: Mapping[str, str]) -> FileValues:
    """Read a file (None: there is none) and the environment. Raises ConfigError for the first
    thing that is wrong."""
    settings: dict[str, Setting] = {}
    tables: set[str] = set()
    if path is not None:
        content = ConfigFile.read(path).content
        for key, value in _leaves(schema, path, content, "", tables):
            settings[key.path] = _setting(key, value, Origin(Rank.FILE, f"{path}: {key.path}"))
    for key in schema.keys:
        text = environ.get(key.variable, "") if key.variable else ""
        if key.variable and text:
            origin = Origin(Rank.ENVIRONMENT, key.variable)
            try:
                settings[key.path] = Setting(key.kind.from_texts([text]), origin)
            except ValueError as error:
                raise origin.error(str(error)) from None
    return FileValues(path, settings, frozenset(tables))


def _setting(key: Key[object], value: object, origin: Origin) -> Setting:
    try:
        return Setting(key.kind.from_toml(value), origin)
    except ValueError as error:
        raise origin.error(str(error)) from None


def _leaves(
    schema: FileSchema, path: Path, table: Mapping[str, object], prefix: str, seen: set[str]
) -> Iterator[tuple[Key[object], object]]:
    known = {key.path: key for key in schema.keys}
    for name, value in table.items():
        dotted = f'{prefix}"{name}"' if "." in name else f"{prefix}{name}"
        if dotted in schema.tables and isinstance(value, dict):
            seen.add(dotted)
            yield from _leaves(schema, path, value, f"{dotted}.", seen)
        elif dotted in known:
            yield known[dotted], value
        elif dotted in schema.tables:
            raise ConfigError(f"{path}: {dotted}: expected a table; write [{dotted}]")
        else:
            raise _unknown(schema, path, dotted)


def _unknown(schema: FileSchema, path: Path, dotted: str) -> ConfigError:
    shown = dotted if dotted.isprintable() else quoted(dotted)
    if dotted in schema.refused:
        return ConfigError(f"{path}: {shown}: {schema.refused[dotted]}")
    known = [*(key.path for key in schema.keys), *schema.tables]
    return ConfigError(f"{path}: {shown}: unknown key{did_you_mean(dotted, known)}")
