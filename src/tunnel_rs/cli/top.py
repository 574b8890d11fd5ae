"""`tunnel-rs top`."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click
from rich.console import Console as Screen
from rich.live import Live

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.control import chosen
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.programs import Choice
from tunnel_rs.cli.top_view import view
from tunnel_rs.errors import ExitStatus, UsageError

EVERY = 1.0
"""Seconds between two looks."""


@click.command()
@chosen
@output_options()
def top(console: Console, choice: Choice) -> ExitStatus:
    """Watch servers and clients in the terminal.

    q or Ctrl-C ends it.

    \b
    Example:
      tunnel-rs top
    """
    screen = Screen(file=sys.stdout)
    if not screen.is_terminal:
        raise UsageError("top needs a terminal; `tunnel-rs status` does not")
    choice.find_all(os.environ)  # a socket that was named and is wrong is told at once
    with _until_signal(), _keys() as wants_to_end:
        watch(choice, screen, wants_to_end)
    return ExitStatus.DONE


def watch(choice: Choice, screen: Screen, wants_to_end: Callable[[float], bool]) -> None:
    """Draw until `wants_to_end`, which waits for the seconds it is given, says so."""
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        try:
            while True:
                programs = [program.status for program in choice.find_all(os.environ)]
                live.update(view(programs), refresh=True)
                if wants_to_end(EVERY):
                    return
        except KeyboardInterrupt:
            return


@contextmanager
def _until_signal() -> Iterator[None]:
    """While entered, SIGTERM ends like Ctrl-C: the terminal gets its own screen back."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """What waits for seconds, and tells whether `q` was pressed meanwhile. Where keys cannot be
    read one by one it only waits."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        from threading import Event

        never = Event()
        yield lambda seconds: never.wait(seconds)
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _pressed(descriptor: int, seconds: float) -> bool:
    ready, _, _ = select.select([descriptor], [], [], seconds)
    return bool(ready) and os.read(descriptor, 64).lower() in (b"q", b"")
