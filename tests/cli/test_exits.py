import io
import os
import subprocess
import sys

import click
import pytest
from tests.support.samples import BAD_TOKEN, SECRET_KEY, TOKEN

from tunnel_rs import errors
from tunnel_rs.cli import exits
from tunnel_rs.cli.exits import Outcome, outcome
from tunnel_rs.errors import ExitStatus


@click.command()
@click.option("--number", type=int)
@click.option("--relay-way")
@click.pass_context
def program(ctx: click.Context, number: int, relay_way: str) -> None:
    error = ctx.obj
    if error is not None:
        raise error


def run(*arguments: str, raising: BaseException | None = None) -> tuple[int, str]:
    @click.command()
    def failing() -> None:
        if raising is not None:
            raise raising

    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        status = exits.run(failing if raising else program, list(arguments), "prog")
    return status, stderr.getvalue()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.TunnelError("x"), 1),
        (errors.UsageError("x"), 2),
        (errors.AuthRefusedError("x"), 3),
        (errors.PeerNotFoundError("x"), 4),
        (errors.UnreachableError("x"), 5),
        (errors.WrongPeerError("x"), 5),
        (errors.LinkClosedError(0, "x"), 5),
        (errors.ConfigError("x"), 6),
        (errors.LocalError("x"), 1),
        (errors.ProtocolError("x"), 1),
    ],
)
def test_every_error_of_ours_is_its_text_and_its_status(
    error: errors.TunnelError, status: int
) -> None:
    assert outcome(error) == Outcome("x", status)
    assert run(raising=error) == (status, "error: x\n")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), Outcome("", ExitStatus.INTERRUPTED)),
        (click.Abort(), Outcome("", ExitStatus.INTERRUPTED)),
        (click.exceptions.Exit(5), Outcome("", 5)),
        (SystemExit(3), Outcome("", 3)),
        (BrokenPipeError(), Outcome("", ExitStatus.FAILURE)),
        (PermissionError(13, "Permission denied", "/x"), Outcome("/x: Permission denied", 1)),
        (OSError(98, "Address already in use"), Outcome("Address already in use", 1)),
        (
            ExceptionGroup("several", [errors.ConfigError("first"), KeyError()]),
            Outcome("first", ExitStatus.INVALID_CONFIG),
        ),
        (click.UsageError("Wrong  use\nof it."), Outcome("wrong use of it", ExitStatus.USAGE)),
        (click.FileError("x", "gone"), Outcome("could not open file 'x': gone", 1)),
    ],
)
def test_other_ends_are_told_too(error: BaseException, expected: Outcome) -> None:
    assert outcome(error) == expected


def test_a_mistake_of_ours_is_one_line_without_its_message() -> None:
    try:
        raise ValueError(f"secret {TOKEN}")
    except ValueError as error:
        end = outcome(error)
    assert end.text.startswith("internal error: ValueError in test_exits.py, line ")
    assert end.text.endswith("; run it again with -vv for the details")
    assert end.status == ExitStatus.FAILURE
    assert end.cause is not None


def test_no_error_holds_control_characters_or_several_lines() -> None:
    assert outcome(errors.LinkClosedError(0, "a\x1b[2J\nb")).text == "a\\x1b[2J\\nb"


def test_secrets_typed_in_the_wrong_place_are_masked() -> None:
    text = f"'{TOKEN}' and '{SECRET_KEY}' but not {BAD_TOKEN}"
    assert outcome(errors.UsageError(text)).text == f"'***' and '***' but not {BAD_TOKEN}"


SEE = "; see `prog --help`"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--numbr", "1"], f"no such option '--numbr' (did you mean '--number'?){SEE}"),
        (["--zzz"], f"no such option '--zzz'{SEE}"),
        (["--number", "x"], f"invalid value for '--number': 'x' is not a valid integer{SEE}"),
        (["--number"], "option '--number' requires an argument"),
        ([TOKEN], f"got unexpected extra argument (***){SEE}"),
    ],
)
def test_mistakes_on_the_command_line_have_one_form(arguments: list[str], line: str) -> None:
    assert run(*arguments) == (2, f"error: {line}\n")


def test_a_run_to_the_end_has_status_0() -> None:
    assert run() == (0, "")


def test_a_status_is_passed_on() -> None:
    assert run(raising=click.exceptions.Exit(143)) == (143, "")


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    """As in `tunnel-rs generate-token -c 10000 | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "tunnel_rs", "generate-token", "-c", "10000"],
            stdout=closed,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    assert (ended.returncode, ended.stderr) == (1, b"")
