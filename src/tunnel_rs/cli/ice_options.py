"""What `server` and `client` of `tunnel-rs-ice` share: mode, options, files, hints."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from tunnel_rs.cli.options import click_option, config_path, texts_of
from tunnel_rs.config import ice_schema
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_build import exposed_secrets
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.ice_values import collect, find_mode
from tunnel_rs.config.keyfile import exposure_warning
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, default_config_path
from tunnel_rs.errors import UsageError
from tunnel_rs.reports import Notice, Reporter

F = TypeVar("F", bound=Callable[..., Any])


def ice_options(role: Role) -> Callable[[F], F]:
    """The mode, all options of `role` in any mode, and the two that choose a file. The mode may
    stand before or after them."""

    def decorate(function: F) -> F:
        for option in reversed(ice_schema.all_options(role)):
            if option.flags:
                function = click_option(option)(function)
        function = click.option(
            "--default-config",
            is_flag=True,
            help=f"Load ~/.config/tunnel-rs/{role}_ice.toml.",
        )(function)
        function = click.option(
            "-c",
            "--config",
            metavar="FILE",
            type=click.Path(),
            help="TOML file with options; those given here take precedence.",
        )(function)
        mode = click.argument(
            "mode", type=click.Choice([mode.value for mode in Mode]), required=False
        )
        return mode(function)

    return decorate


def load(role: Role, given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Values, Mode]:
    """Read all sources for `role`; `given` is what click has parsed.

    Raises UsageError or ConfigError.
    """
    options = {name: value for name, value in given.items() if name != "mode"}
    named, default = options.pop("config", None), options.pop("default_config", False)
    if named is not None and default:
        raise UsageError("--default-config cannot be given beside -c/--config; keep one of them")
    path = config_path(named) if named is not None else None
    if default:
        path = default_config_path(role, environ).with_name(f"{role}_ice.toml")
    file = ConfigFile.read(path) if path is not None else None
    mode = find_mode(given.get("mode"), file)
    return collect(role, mode, texts_of(options), environ, file), mode


def warn(values: Values, report: Reporter) -> None:
    """Tell once about secrets that others can see."""
    flags = exposed_secrets(values)
    if flags:
        text = f"{' and '.join(flags)}: other users of this machine can see it in the process list"
        report(Notice("info", f"hint: {text}; use a file or the environment"))
    file = values.get(ice_schema.NSEC_FILE)
    warning = exposure_warning(file) if file else None
    if warning:
        report(Notice("warning", warning))
