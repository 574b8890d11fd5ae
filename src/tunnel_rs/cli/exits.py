"""From an error to one line for a person and an exit status. No traceback reaches a user."""

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from tunnel_rs.cli.redaction import without_secrets
from tunnel_rs.cli.wording import printable
from tunnel_rs.config.suggestions import did_you_mean
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.values import quoted


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ends: the one line (empty: nothing to say) and the exit status.

    `cause` is set when we made a mistake; its traceback is shown with `-vv` only.
    """

    text: str
    status: int
    cause: BaseException | None = None


def outcome(error: BaseException) -> Outcome:
    """The line and exit status for whatever ended a command."""
    error = _single(error)
    match error:
        case TunnelError():
            return Outcome(_one_line(str(error)), error.exit_status)
        case click.exceptions.Exit():
            return Outcome("", error.exit_code)
        case click.UsageError():
            return Outcome(_usage(error), ExitStatus.USAGE)
        case click.ClickException():
            return Outcome(_sentence(error.format_message()), error.exit_code)
        case KeyboardInterrupt() | click.Abort():
            return Outcome("", ExitStatus.INTERRUPTED)
        case SystemExit(code=int(code)):
            return Outcome("", code)
        case BrokenPipeError():
            return Outcome("", ExitStatus.FAILURE)
        case OSError():
            return Outcome(_system(error), ExitStatus.FAILURE)
    return Outcome(_internal(error), ExitStatus.FAILURE, error)


def _single(error: BaseException) -> BaseException:
    """The first error of a group; several at once have one first cause worth a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _usage(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        text = _no_such_option(error)
    else:
        text = _sentence(error.format_message())
    return f"{text}; see `{error.ctx.command_path} --help`" if error.ctx else text


def _no_such_option(error: click.NoSuchOption) -> str:
    name = error.option_name
    options = error.ctx.command.get_params(error.ctx) if error.ctx else []
    known = [flag for option in options for flag in option.opts + option.secondary_opts]
    return _one_line(f"no such option {quoted(name)}{did_you_mean(name, known)}")


def _sentence(text: str) -> str:
    """Click's wording as ours: on one line, without capital and full stop."""
    text = " ".join(text.split()).removesuffix(".")
    return _one_line(text[:1].lower() + text[1:])


def _one_line(text: str) -> str:
    """No control characters, and no secret that was typed where something else belongs."""
    return printable(without_secrets(text))


def _system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return _one_line(f"{where}{error.strerror or type(error).__name__}")


def _internal(error: BaseException) -> str:
    """Type and place only: the message of an unforeseen error might hold a secret."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = ""
    if frame is not None:
        place = f" in {Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno}"
    return f"internal error: {type(error).__name__}{place}; run it again with -vv for the details"


def run(program: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    """Run a click program to its end and return the exit status. Raises nothing."""
    try:
        status = program.main(arguments, name, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else ExitStatus.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.message, err=True)
        return ExitStatus.USAGE
    except BaseException as error:
        end = outcome(error)
        _say(end)
        return end.status


def leave(program: click.Command, name: str) -> NoReturn:
    """Run a click program on the arguments of this process, and end the process."""
    status = run(program, None, name)
    # The interpreter would look through all modules for garbage: on a slow machine, a second.
    gc.freeze()
    sys.exit(status)


def _say(end: Outcome) -> None:
    try:
        if end.text:
            click.echo(f"error: {end.text}", err=True)
        sys.stdout.flush()
    except OSError:
        # Python flushes stdout once more at exit; a closed pipe would then draw a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
