"""Gather the option values of `tunnel-rs-ice`, whose tables depend on the mode.

Rank and merging are those of `config.sources`; what is different is that the mode has to be found
first: the command line names it, or the file does.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_schema import (
    EXCLUSIONS,
    Mode,
    all_options,
    modes_of,
    options_for,
)
from tunnel_rs.config.option import Option, Role
from tunnel_rs.config.sources import Layer, Origin, Rank, Setting, Values
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.errors import ConfigError, UsageError
from tunnel_rs.values import quoted

PROGRAM = "tunnel-rs-ice"
_HEAD = ("role", "mode")
_SERVER_ADVICE = (
    "a server does not choose what is reached; its allowed_sources say what clients may ask for"
)
_CLIENT_ADVICE = "a client does not allow anything; its source says what it wants to reach"


def find_mode(given: str | None, file: ConfigFile | None) -> Mode:
    """The mode to run in. Raises UsageError without any, ConfigError when both differ."""
    written = None if file is None else _mode_of(file)
    if given is None and written is None:
        raise UsageError(
            "no mode: write `manual` or `nostr` after the command, or give a file with one (-c)"
        )
    if file is not None and given is not None and written is not Mode(given):
        raise ConfigError(
            f'{file.path}: mode: the file says "{written}", the command line {given}; '
            "leave the mode out, or use another file"
        )
    return Mode(given) if given is not None else written or Mode.MANUAL


def _mode_of(file: ConfigFile) -> Mode:
    value = file.content.get("mode")
    if value is None:
        raise ConfigError(
            f'{file.path}: mode is missing; write mode = "manual" or mode = "nostr" at the top'
        )
    if value not in set(Mode):
        shown = quoted(value) if isinstance(value, str) else "something else"
        hint = "; this file is for tunnel-rs" if value == "iroh" else ""
        raise ConfigError(f'{file.path}: mode: expected "manual" or "nostr", got {shown}{hint}')
    return Mode(str(value))


def collect(
    role: Role,
    mode: Mode,
    given: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    file: ConfigFile | None,
) -> Values:
    """Merge all sources, the command line first. Raises UsageError or ConfigError."""
    layers = [_command_line(role, mode, given), _environment(role, mode, environ)]
    if file is not None:
        layers.append(_file_values(role, mode, file))
    merged: dict[str, Setting] = {}
    for layer in layers:
        _refuse_exclusive(layer)
        replaced = _excluded_by(merged)
        for name, setting in layer.items():
            if name not in replaced:
                merged.setdefault(name, setting)
    return Values(role, merged, file.path if file else None)


def _command_line(role: Role, mode: Mode, given: Mapping[str, Sequence[str]]) -> Layer:
    layer = {}
    for option in all_options(role):
        if not given.get(option.name):
            continue
        if mode not in modes_of(option.name):
            raise UsageError(
                f"{option.flag}: only in {modes_of(option.name)[0]} mode, this is {mode}"
            )
        origin = Origin(Rank.COMMAND_LINE, option.flag)
        layer[option.name] = _from_texts(option, given[option.name], origin)
    return layer


def _environment(role: Role, mode: Mode, environ: Mapping[str, str]) -> Layer:
    layer = {}
    for option in options_for(role, mode):
        text = environ.get(option.variable, "") if option.variable else ""
        if option.variable and text:
            parts = [part.strip() for part in text.split(",") if part.strip()]
            texts = parts if option.kind.repeatable else [text]
            origin = Origin(Rank.ENVIRONMENT, option.variable)
            layer[option.name] = _from_texts(option, texts, origin)
    return layer


def _from_texts(option: Option[object], texts: Sequence[str], origin: Origin) -> Setting:
    try:
        return Setting(option.kind.from_texts(texts), origin)
    except ValueError as error:
        raise origin.error(str(error)) from None


def _file_values(role: Role, mode: Mode, file: ConfigFile) -> Layer:
    if file.role is not role:
        raise ConfigError(
            f'{file.path}: role: the file says "{file.role}", the command needs "{role}"; '
            f"use `{PROGRAM} {file.role}` or another file"
        )
    known = {key: option for option in options_for(role, mode) for key in option.keys}
    layer: dict[str, Setting] = {}
    for key, value in _leaves(file.path, file.content, "", _tables(known)):
        if key in _HEAD:
            continue
        option = known.get(key)
        if option is None:
            raise _unknown(file.path, key, role, mode)
        origin = Origin(Rank.FILE, f"{file.path}: {key}")
        if option.name in layer:
            other = layer[option.name].origin.key
            raise origin.error(f"says the same as {other}; keep one of them")
        try:
            layer[option.name] = Setting(option.kind.from_toml(value), origin)
        except ValueError as error:
            raise origin.error(str(error)) from None
    return layer


def _tables(keys: Mapping[str, object]) -> frozenset[str]:
    paths = [key.split(".") for key in keys]
    return frozenset(".".join(path[:depth]) for path in paths for depth in range(1, len(path)))


def _leaves(
    path: Path, table: Mapping[str, object], prefix: str, tables: frozenset[str]
) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        key = f'{prefix}"{name}"' if "." in name else f"{prefix}{name}"
        if key not in tables:
            yield key, value
        elif isinstance(value, dict):
            yield from _leaves(path, value, f"{key}.", tables)
        else:
            raise ConfigError(f"{path}: {key}: expected a table; write [{key}]")


def _unknown(path: Path, key: str, role: Role, mode: Mode) -> ConfigError:
    other_role = Role.CLIENT if role is Role.SERVER else Role.SERVER
    there = {k for option in options_for(other_role, mode) for k in option.keys}
    if any(k == key or k.startswith(f"{key}.") for k in there):
        advice = _SERVER_ADVICE if role is Role.SERVER else _CLIENT_ADVICE
        return ConfigError(
            f"{path}: {key}: only for a {other_role}, this is a {role} file; {advice}"
        )
    if key in set(Mode):
        return ConfigError(f'{path}: [{key}]: this file has mode = "{mode}"; remove the table')
    shown = key if key.isprintable() else quoted(key)
    known = [*_HEAD, *(k for option in options_for(role, mode) for k in option.keys)]
    return ConfigError(f"{path}: {shown}: unknown key{did_you_mean(key, known)}")


def _refuse_exclusive(layer: Layer) -> None:
    for exclusion in EXCLUSIONS:
        first, second = layer.get(exclusion.first.name), layer.get(exclusion.second.name)
        if first and second:
            other = first.origin.key
            raise second.origin.error(f"cannot be given beside {other}; keep one of them")


def _excluded_by(names: Mapping[str, Setting]) -> set[str]:
    pairs = [(e.first.name, e.second.name) for e in EXCLUSIONS]
    return {b for a, b in pairs if a in names} | {a for a, b in pairs if b in names}
