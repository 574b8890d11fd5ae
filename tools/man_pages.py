"""Write the manual pages of the three programs, one a command, from the commands themselves.

    python tools/man_pages.py [DIRECTORY]

`tests/test_man_pages.py` fails when those in `docs/man` are not what this writes.
"""

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

from tunnel_rs.config.reference import MEANINGS
from tunnel_rs.errors import ExitStatus

PROGRAMS = {"tunnel-rs": "main", "tunnel-rs-ice": "ice", "tunnel-rs-vpn": "vpn"}
DIRECTORY = Path(__file__).resolve().parents[1] / "docs" / "man"

_FILES = [
    ("~/.config/tunnel-rs/", "the files that --default-config names; XDG_CONFIG_HOME is respected"),
    ("$XDG_RUNTIME_DIR/tunnel-rs/", "sockets and locks of running programs"),
]


def pages() -> dict[str, str]:
    """File name and text of every page."""
    found = {}
    for program, module in PROGRAMS.items():
        root: click.Command = import_module(f"tunnel_rs.cli.{module}").cli
        # With the settings it runs with: click keeps the help option of whoever asks first.
        top = click.Context(root, info_name=program, **root.context_settings)
        for context in _contexts(top):
            found[f"{_page_name(context)}.1"] = "\n".join(_page(context)) + "\n"
    return found


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """The command of `context` and all below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            if not command.hidden:
                yield from _contexts(click.Context(command, info_name=name, parent=context))


def _page_name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _page(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f'.TH "{_page_name(context).upper()}" 1 "" "tunnel-rs" "User commands"'
    yield ".SH NAME"
    yield f"{_text(_page_name(context))} \\- {_text(command.get_short_help_str(200).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(context.command_path)}"
    yield _text(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    yield from _description(command)
    yield from _options(context)
    if isinstance(command, click.Group):
        yield from _commands(context)
    if context.parent is None:
        yield from _of_programs()
    yield ".SH SEE ALSO"
    others = [context.parent] if context.parent else [*_others(context)]
    yield ",\n".join(f".BR {_text(name)} (1)" for name in map(_name_of, others))


def _others(context: click.Context) -> Iterator[str]:
    return (program for program in PROGRAMS if program != context.info_name)


def _name_of(other: click.Context | str) -> str:
    return other if isinstance(other, str) else _page_name(other)


def _description(command: click.Command) -> Iterator[str]:
    """Click's conventions: paragraphs are refilled, those after a backspace are not."""
    for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield ".nf"
            yield from map(_text, paragraph.split("\n")[1:])
            yield ".fi"
        else:
            yield from map(_text, paragraph.split("\n"))


def _options(context: click.Context) -> Iterator[str]:
    records = [param.get_help_record(context) for param in context.command.get_params(context)]
    known = [record for record in records if record is not None]
    if known:
        yield ".SH OPTIONS"
    yield from _list(known)


def _commands(context: click.Context) -> Iterator[str]:
    yield ".SH COMMANDS"
    for below in _contexts(context):
        if below.parent is context:
            yield ".TP"
            yield f".BR {_text(_page_name(below))} (1)"
            yield _text(below.command.get_short_help_str(200))


def _of_programs() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    yield from _list([(str(status.value), MEANINGS[status]) for status in ExitStatus])
    yield ".SH FILES"
    yield from _list(_FILES)


def _list(items: list[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in items:
        yield ".TP"
        yield f".B {_text(term)}"
        yield _text(meaning)


def _text(text: str) -> str:
    """Text that means nothing to the formatter."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.1"):
        old.unlink()
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
