"""What a program says: text for people on stderr, JSON for programs on stdout or stderr."""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TextIO

import click

from tunnel_rs.cli import wording
from tunnel_rs.cli.exits import Outcome
from tunnel_rs.cli.wording import Level, Line
from tunnel_rs.net.clock import timestamp, wall_clock
from tunnel_rs.reports import Notice, Report, Reporter, silent


class Form(StrEnum):
    """Where reports go, and in which form."""

    TEXT = "text"
    """A line for people on stderr."""

    JSON_LOG = "json"
    """One JSON object a line on stderr (`--log-format json`), with time and level."""

    JSON_DATA = "json-data"
    """One JSON object a line on stdout (`--json`); errors are also a line of text on stderr."""


class Console:
    """The only place that prints reports. A closed pipe silences it; it never raises for one."""

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        *,
        level: Level = Level.INFO,
        form: Form = Form.TEXT,
        color: bool = False,
        listener: Reporter = silent,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """`level`: the least important lines that are shown; JSON follows it too. `listener` gets
        every report, shown or not."""
        self._out = out
        self._err = err
        self._form = form
        self._color = color
        self.level = level
        self._listener = listener
        self._wall = wall

    @property
    def shows_details(self) -> bool:
        """Whether tracebacks of our own mistakes are wanted (`-vv`)."""
        return self.level is Level.DEBUG

    @property
    def writes_data(self) -> bool:
        """Whether reports go to stdout (`--json`)."""
        return self._form is Form.JSON_DATA

    def report(self, report: Report) -> None:
        """Show a report; this is a `Reporter`."""
        self._listener(report)
        line = wording.line(report)
        if line.level < self.level:
            return
        if self._form is Form.TEXT:
            self._write_text(line)
        elif self._form is Form.JSON_DATA:
            self._write(self._out, wording.event(report))
        else:
            self._write(self._err, wording.log_event(report, timestamp(self._wall())))

    def data(self, text: str) -> None:
        """Print what the command was asked for, on stdout."""
        click.echo(text, file=self._out)

    def remark(self, text: str) -> None:
        """Print what belongs to the data but must not be mixed with it, on stderr."""
        self._write(self._err, text)

    def failure(self, outcome: Outcome) -> None:
        """Show the error a command ends with, as one line; nothing for a silent one."""
        if not outcome.text:
            return
        if self._form is not Form.TEXT:
            event = {"event": "error", "message": outcome.text, "exit_status": outcome.status}
            stream = self._out
            if self._form is Form.JSON_LOG:
                stream = self._err
                event = {"time": timestamp(self._wall()), "level": "error", **event}
            self._write(stream, json.dumps(event, separators=(",", ":")))
        if self._form is not Form.JSON_LOG:
            self._write_text(Line(Level.ERROR, f"error: {outcome.text}", "red"))
        if outcome.cause is not None and self.shows_details:
            self._write(self._err, "".join(traceback.format_exception(outcome.cause)).rstrip())

    def _write_text(self, line: Line) -> None:
        text = click.style(line.text, fg=line.color) if line.color and self._color else line.text
        self._write(self._err, text)

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            click.echo(text, file=stream, color=self._color)
        except (OSError, ValueError):
            # The reader has gone away. A server goes on serving; there is nobody left to tell.
            self.level = Level.ERROR


def wants_color(choice: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to colour: `always`, `never`, or `auto`: on a terminal unless `NO_COLOR` is set.

    Source: no-color.org; a `TERM` of `dumb` cannot show colours either.
    """
    if choice != "auto":
        return choice == "always"
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


class LogHandler(logging.Handler):
    """Shows what libraries log as notices: warnings always, the rest with `-vv`, on one line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno >= logging.WARNING else "debug"
        text = f"{record.name}: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            self._console.report(Notice(level, text))
            return
        self._console.report(Notice(level, f"{text} ({type(error).__name__})"))
        for line in "".join(traceback.format_exception(error)).splitlines():
            self._console.report(Notice("debug", line))
