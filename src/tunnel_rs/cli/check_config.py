"""`tunnel-rs check-config`."""

import json as json_text
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.config import ice_build
from tunnel_rs.config.build import build_client, build_server
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_values import mode_of
from tunnel_rs.config.option import Option
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.config.tables import MANUAL
from tunnel_rs.config.vpn_build import build_vpn_client, build_vpn_server

_BUILDERS: Mapping[str, Callable[[Values], object]] = {
    "tunnel-rs server": build_server,
    "tunnel-rs client": build_client,
    "tunnel-rs-vpn server": build_vpn_server,
    "tunnel-rs-vpn client": build_vpn_client,
    "tunnel-rs-ice server": ice_build.build_server,
    "tunnel-rs-ice client": ice_build.build_client,
}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@output_options(json=True)
def check_config(console: Console, file: Path) -> None:
    """Check a configuration file.

    Nothing is started; every value and where it comes from is shown. Key and token files that it
    names are read too, and environment variables count as usual.

    \b
    Example:
      tunnel-rs check-config server.toml
    """
    content = ConfigFile.read(file)
    role = content.role
    program = click.get_current_context().find_root().command.name
    if program == MANUAL.program and role in MANUAL.options and content.table.program != program:
        mode_of(content)  # says which modes this program has
    values = collect(role, {}, os.environ, content, content.table.mode)
    command = values.table.command(role)
    _BUILDERS[command](values)
    if console.writes_data:
        settings = {key: {"value": shown, "origin": origin} for key, shown, origin in rows(values)}
        event = {"event": "config", "file": str(file), "role": role, "settings": settings}
        console.data(json_text.dumps(event))
        return
    console.data(f"{file}: good for `{command}`")
    for key, shown, origin in rows(values):
        console.data(f"  {key} = {shown}  ({origin})")


def rows(values: Values) -> Iterator[tuple[str, str, str]]:
    """Key, value as text (secrets masked) and origin of every option that a file can set."""
    for option in values.options:
        if option.key:
            yield option.key, _shown(option, values.get(option)), values.origin(option).where


def _shown(option: Option[object], value: object) -> str:
    if value is None or value == ():
        return "-"
    if option.kind.secret:
        return "***"
    if isinstance(value, tuple):
        return ", ".join(map(_item, value))
    return _item(value)


def _item(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
