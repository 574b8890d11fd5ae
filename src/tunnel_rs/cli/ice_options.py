"""What `server` and `client` of `tunnel-rs-ice` share: mode, options, files, hints."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from tunnel_rs.cli.hints import warn_of_exposed_secrets
from tunnel_rs.cli.options import click_option, config_file, texts_of
from tunnel_rs.config.ice_schema import NSEC_FILE, Mode, all_options, modes_of
from tunnel_rs.config.ice_values import find_mode
from tunnel_rs.config.keyfile import exposure_warning
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, collect, default_config_path
from tunnel_rs.errors import UsageError
from tunnel_rs.reports import Notice, Reporter

F = TypeVar("F", bound=Callable[..., Any])

_NO_OPTIONS = ("mode", "config", "default_config")


def ice_options(role: Role) -> Callable[[F], F]:
    """The mode, all options of `role` in any mode, and the two that choose a file. The mode may
    stand before or after them."""

    def decorate(function: F) -> F:
        for option in reversed(all_options(role)):
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


def load(role: Role, given: Mapping[str, Any], environ: Mapping[str, str]) -> Values:
    """Read all sources for `role`; `given` is what click has parsed.

    Raises UsageError or ConfigError.
    """
    default = default_config_path(role, environ).with_name(f"{role}_ice.toml")
    file = config_file(given, default)
    mode = find_mode(given.get("mode"), file)
    texts = texts_of({name: value for name, value in given.items() if name not in _NO_OPTIONS})
    for option in all_options(role):
        modes = modes_of(option.name)
        if option.name in texts and mode not in modes:
            raise UsageError(f"{option.flag}: only in {modes[0]} mode, this is {mode}")
    return collect(role, texts, environ, file, mode)


def warn(values: Values, report: Reporter) -> None:
    """Tell once about secrets that others can see."""
    warn_of_exposed_secrets(values, report)
    file = values.get(NSEC_FILE)
    warning = exposure_warning(file) if file else None
    if warning:
        report(Notice("warning", warning))
