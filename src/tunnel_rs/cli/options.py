"""Bundles of click options: those of the schema, those that choose a file, those for output."""

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from tunnel_rs.cli.console import Console, Form, LogHandler, wants_color
from tunnel_rs.cli.exits import outcome
from tunnel_rs.cli.service_state import state_notices
from tunnel_rs.cli.wording import Level
from tunnel_rs.config import kinds
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.option import Option, Role
from tunnel_rs.config.sources import Values, collect, default_config_path
from tunnel_rs.config.tables import options_for
from tunnel_rs.errors import UsageError
from tunnel_rs.net.service_notices import ServiceNotices

F = TypeVar("F", bound=Callable[..., Any])

_LEVELS = (Level.INFO, Level.DETAIL, Level.DEBUG)


def source_options(role: Role) -> Callable[[F], F]:
    """All options of the schema for `role`, and the two that choose a configuration file.

    Values stay text here; `load` reads them.
    """

    def decorate(function: F) -> F:
        for option in reversed(options_for(role)):
            if option.flags:
                function = click_option(option)(function)
        function = click.option(
            "--default-config",
            is_flag=True,
            help=f"Load ~/.config/tunnel-rs/{role.file_name}.",
        )(function)
        config = click.option("-c", "--config", metavar="FILE", type=click.Path(), help=_CONFIG)
        return config(function)

    return decorate


_CONFIG = "TOML file with options; those given here take precedence."


def click_option(option: Option[object]) -> Callable[[F], F]:
    """One option of a schema as click's; the value stays text."""
    if option.kind.switch:
        return _click_switch(option)
    return click.option(
        *option.flags,
        option.name,
        metavar=option.metavar,
        type=click.Path() if option.kind is kinds.FILE else click.STRING,
        multiple=option.kind.repeatable,
        hidden=option.hidden,
        help=_help(option),
    )


def _click_switch(option: Option[object]) -> Callable[[F], F]:
    flag = option.flag
    if option.default is True:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    return click.option(flag, option.name, is_flag=True, default=None, help=_help(option))


def _help(option: Option[object]) -> str:
    notes = ["repeatable"] if option.kind.repeatable else []
    if option.default is True:
        notes.append("default: on")
    elif option.default is not False and isinstance(option.default, int | float):
        notes.append(f"default: {option.default:g}")
    if option.variable:
        notes.append(f"env: {option.variable}")
    return f"{option.doc}  [{'; '.join(notes)}]" if notes else option.doc


def load(role: Role, given: Mapping[str, Any], environ: Mapping[str, str]) -> Values:
    """Read all sources for `role`; `given` is what click has parsed.

    Raises UsageError or ConfigError.
    """
    file = config_file(given, default_config_path(role, environ))
    return collect(role, texts_of(given), environ, file)


def config_file(given: Mapping[str, Any], default: Path) -> ConfigFile | None:
    """The file that -c/--config or --default-config choose. Raises UsageError or ConfigError."""
    config, default_config = given.get("config"), given.get("default_config")
    if config is not None and default_config:
        raise UsageError("--default-config cannot be given beside -c/--config; keep one of them")
    if config is not None:
        return ConfigFile.read(config_path(config))
    return ConfigFile.read(default) if default_config else None


def config_path(text: str) -> Path:
    """A file named on the command line. Raises UsageError."""
    try:
        return kinds.FILE.from_texts([text])
    except ValueError as error:
        raise UsageError(f"--config: {error}") from None


def texts_of(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What click has parsed, as all occurrences of each option that was given."""
    texts: dict[str, tuple[str, ...]] = {}
    for name, value in given.items():
        if isinstance(value, bool):
            texts[name] = ("true" if value else "false",)
        elif isinstance(value, str):
            texts[name] = (value,)
        elif value:
            texts[name] = tuple(value)
    return texts


def output_options(*, json: bool = False) -> Callable[[F], Callable[..., Any]]:
    """Options for what is printed; the function gets a `Console` as its first argument.

    Whatever it raises becomes one line and an exit status. `json` adds `--json`.
    """

    def decorate(function: F) -> Callable[..., Any]:
        wrapped = _with_console(function)
        wrapped = click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            help="Form of the messages on stderr.",
        )(wrapped)
        wrapped = click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="Colour on stderr; auto: on a terminal, unless NO_COLOR is set.",
        )(wrapped)
        wrapped = click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")(
            wrapped
        )
        wrapped = click.option("-v", "--verbose", count=True, help="More; -vv for all.")(wrapped)
        if json:
            wrapped = click.option(
                "--json", "json_data", is_flag=True, help="One JSON object a line on stdout."
            )(wrapped)
        return wrapped

    return decorate


def _with_console(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(*, verbose: int, quiet: bool, color: str, log_format: str, **given: Any) -> Any:
        form = Form.JSON_LOG if log_format == "json" else Form.TEXT
        if given.pop("json_data", False):
            form = Form.JSON_DATA
        console = Console(
            sys.stdout,
            sys.stderr,
            level=Level.WARNING if quiet else _LEVELS[min(verbose, 2)],
            form=form,
            color=wants_color(color, sys.stderr, os.environ),
            listener=state_notices(ServiceNotices.of(os.environ)),
        )
        with _library_logs(console):
            return _run(function, console, given)

    return command


def _run(function: Callable[..., Any], console: Console, given: Mapping[str, Any]) -> None:
    """Call the command and leave by click's Exit, with the status its end asks for."""
    try:
        status = function(console, **given)
    except (click.exceptions.Exit, click.UsageError):
        raise
    except BaseException as error:
        end = outcome(error)
        console.failure(end)
        raise click.exceptions.Exit(end.status) from None
    raise click.exceptions.Exit(int(status or 0))


@contextmanager
def _library_logs(console: Console) -> Iterator[None]:
    """While entered, what libraries log is shown by a console.

    aioquic warns of whatever a peer does wrong: a stranger could fill the terminal with it.
    """
    quic = logging.getLogger("quic")
    root = logging.getLogger()
    before = root.level
    handler = LogHandler(console)
    root.addHandler(handler)
    quic.setLevel(logging.NOTSET if console.shows_details else logging.CRITICAL + 1)
    root.setLevel(logging.DEBUG if console.shows_details else logging.WARNING)
    try:
        yield
    finally:
        root.setLevel(before)
        quic.setLevel(logging.NOTSET)
        root.removeHandler(handler)
