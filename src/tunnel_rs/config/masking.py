"""A configuration file for others to see: what a schema knows and takes for no secret is shown.

Everything else is masked, so that a secret under a misspelt key is not given away.
"""

import tomllib
from collections.abc import Iterator, Mapping

import tomli_w

from tunnel_rs.config import dns_server_file, relay_file
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.tables import TABLES

MASK = "***"
_HEAD = ("role", "mode")
_OF_TUNNELS = tuple(f"{m}.tunnels.{k}" for m in ("iroh", *Mode) for k in ("source", "target"))


def masked(text: str) -> str:
    """`text` (TOML) with its unknown and secret values masked; comments are gone."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return "# not valid TOML, and therefore not shown\n"
    return tomli_w.dumps(_table(content, ""))


def _table(table: Mapping[str, object], prefix: str) -> dict[str, object]:
    return {name: _value(value, f"{prefix}{name}") for name, value in table.items()}


def _value(value: object, key: str) -> object:
    if isinstance(value, Mapping):
        return _table(value, f"{key}.")
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [_value(item, key) for item in value]
    return value if key in _SHOWN else MASK


def _shown_keys() -> Iterator[str]:
    yield from _HEAD
    yield from _OF_TUNNELS
    for table in TABLES:
        for options in table.options.values():
            for option in options:
                if not option.kind.secret:
                    yield from option.keys
    for schema in (relay_file.SCHEMA, dns_server_file.SCHEMA):
        yield from (key.path for key in schema.keys if not key.kind.secret)


_SHOWN = frozenset(_shown_keys())
