import io
import json
import logging
import sys

import pytest

from tunnel_rs.cli.console import Console, Form, LogHandler, wants_color
from tunnel_rs.cli.exits import Outcome
from tunnel_rs.cli.wording import Level
from tunnel_rs.reports import Notice, Trying


class Streams:
    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def console(
        self, *, level: Level = Level.INFO, form: Form = Form.TEXT, color: bool = False
    ) -> Console:
        return Console(self.out, self.err, level=level, form=form, color=color, wall=lambda: 1.0)

    def written(self) -> tuple[str, str]:
        return self.out.getvalue(), self.err.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def broken() -> Exception:
    try:
        raise KeyError("x")
    except KeyError as error:
        return error


def test_text_for_people_goes_to_stderr() -> None:
    streams = Streams()
    streams.console().report(Trying("LAN"))
    assert streams.written() == ("", "trying LAN\n")


def test_json_data_goes_to_stdout_instead() -> None:
    streams = Streams()
    streams.console(form=Form.JSON_DATA).report(Trying("LAN"))
    assert streams.written() == ('{"event":"trying","way":"LAN"}\n', "")


def test_json_logs_go_to_stderr() -> None:
    streams = Streams()
    streams.console(form=Form.JSON_LOG).report(Trying("LAN"))
    expected = '{"time":"1970-01-01T00:00:01.000Z","level":"info","event":"trying","way":"LAN"}\n'
    assert streams.written() == ("", expected)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (Level.WARNING, ["warning: w"]),
        (Level.INFO, ["warning: w", "i"]),
        (Level.DEBUG, ["warning: w", "i", "d"]),
    ],
)
def test_only_what_matters_enough_is_shown(level: Level, shown: list[str]) -> None:
    streams = Streams()
    console = streams.console(level=level)
    for name in ("warning", "info", "debug"):
        console.report(Notice(name, name[0]))
    assert streams.err.getvalue().splitlines() == shown


def test_colours_are_used_only_when_asked_for() -> None:
    colored, plain = Streams(), Streams()
    colored.console(color=True).report(Notice("warning", "w"))
    plain.console().report(Notice("warning", "w"))
    assert colored.err.getvalue() == "\x1b[33mwarning: w\x1b[0m\n"
    assert plain.err.getvalue() == "warning: w\n"


@pytest.mark.parametrize(
    ("choice", "environ", "terminal", "wanted"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_colour_follows_the_choice_then_no_color_then_the_terminal(
    choice: str, environ: dict[str, str], terminal: bool, wanted: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    assert wants_color(choice, stream, environ) is wanted


def test_data_and_remarks_do_not_mix() -> None:
    streams = Streams()
    console = streams.console(level=Level.WARNING)
    console.data("key")
    console.remark("EndpointId: x")
    assert streams.written() == ("key\n", "EndpointId: x\n")


def test_a_failure_is_one_line_on_stderr() -> None:
    streams = Streams()
    streams.console(level=Level.WARNING).failure(Outcome("a: wrong", 6))
    assert streams.written() == ("", "error: a: wrong\n")


def test_a_failure_is_an_event_too_with_json_data() -> None:
    streams = Streams()
    streams.console(form=Form.JSON_DATA).failure(Outcome("a: wrong", 6))
    event = {"event": "error", "message": "a: wrong", "exit_status": 6}
    assert json.loads(streams.out.getvalue()) == event
    assert streams.err.getvalue() == "error: a: wrong\n"


def test_a_failure_is_an_event_only_with_json_logs() -> None:
    streams = Streams()
    streams.console(form=Form.JSON_LOG).failure(Outcome("a: wrong", 6))
    assert streams.out.getvalue() == ""
    event = json.loads(streams.err.getvalue())
    assert (event["event"], event["level"]) == ("error", "error") and event["time"].endswith("Z")


def test_a_silent_outcome_prints_nothing() -> None:
    streams = Streams()
    streams.console(form=Form.JSON_DATA).failure(Outcome("", 130))
    assert streams.written() == ("", "")


def test_a_traceback_is_shown_with_all_details_only() -> None:
    usual, detailed = Streams(), Streams()
    failure = Outcome("internal error: KeyError", 1, broken())
    usual.console(level=Level.DETAIL).failure(failure)
    detailed.console(level=Level.DEBUG).failure(failure)
    assert usual.err.getvalue() == "error: internal error: KeyError\n"
    assert "Traceback (most recent call last)" in detailed.err.getvalue()


@pytest.mark.parametrize("form", Form)
def test_a_closed_pipe_does_not_stop_the_program(form: Form) -> None:
    console = Console(ClosedPipe(), ClosedPipe(), form=form)
    console.report(Trying("LAN"))
    console.failure(Outcome("a: wrong", 6))


def test_data_nobody_reads_ends_the_command() -> None:
    with pytest.raises(BrokenPipeError):
        Console(ClosedPipe(), io.StringIO()).data("token")


def logged(level: Level, number: int, error: Exception | None = None) -> str:
    streams = Streams()
    handler = LogHandler(streams.console(level=level))
    info = (type(error), error, error.__traceback__) if error else None
    handler.handle(logging.LogRecord("quic", number, __file__, 1, "lost %d", (3,), info))
    return streams.err.getvalue()


def test_what_libraries_log_is_shown_on_one_line() -> None:
    assert logged(Level.INFO, logging.WARNING) == "warning: quic: lost 3\n"
    assert logged(Level.INFO, logging.ERROR, broken()) == "warning: quic: lost 3 (KeyError)\n"
    assert logged(Level.INFO, logging.INFO) == ""


def test_what_libraries_log_is_complete_with_all_details() -> None:
    assert logged(Level.DEBUG, logging.DEBUG) == "quic: lost 3\n"
    assert "Traceback" in logged(Level.DEBUG, logging.ERROR, broken())


def test_standard_streams_do() -> None:
    assert Console(sys.stdout, sys.stderr).level is Level.INFO
