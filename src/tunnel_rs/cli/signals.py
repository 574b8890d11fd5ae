"""Signals: stop in order on the first SIGINT or SIGTERM, at once on the second. Further ones change
nothing.

SIGHUP re-reads the settings of a program that can do so, and stops the others: it is how OpenSSH
ends a ProxyCommand, whose server must not be left with half a session.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any, Self

from tunnel_rs.errors import ExitStatus
from tunnel_rs.net.service_notices import ServiceNotices
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Reporter, Stopping

STOP_TIME = 6.0
"""Seconds to stop in after the first signal: sessions get 5 to finish, then they are closed."""

_STATUS = {signal.SIGINT: ExitStatus.INTERRUPTED, signal.SIGTERM: ExitStatus.TERMINATED}
_HANGUP = None if sys.platform == "win32" else signal.SIGHUP
if _HANGUP is not None:
    _STATUS[_HANGUP] = ExitStatus.HUNG_UP


class StopSignals:
    """While entered, turns SIGINT and SIGTERM into futures, and SIGHUP into a call of `reload` or,
    without one, a future too."""

    def __init__(
        self, reload: Callable[[], None] | None = None, *, portable: bool = sys.platform == "win32"
    ) -> None:
        """`portable`: do without `loop.add_signal_handler`, which Windows does not have."""
        self._reload = reload
        self._portable = portable
        self._undo = ExitStack()
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[signal.Signals] = loop.create_future()
        self.second: asyncio.Future[signal.Signals] = loop.create_future()

    def __enter__(self) -> Self:
        stopping = {signal.SIGINT, signal.SIGTERM}
        install = self._install_portable if self._portable else self._install
        install(stopping if _HANGUP is None else stopping | {_HANGUP})
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.first.done() and not self._portable:
            # The rest of the program is being closed. Who presses Ctrl-C once more would break off
            # the loop in the middle of it; the loop takes its handlers away when it closes.
            self._reload = None
            return
        self._undo.close()

    def _install(self, signals: set[signal.Signals]) -> None:
        loop = asyncio.get_running_loop()
        for number in signals:
            loop.add_signal_handler(number, self.received, number)
            self._undo.callback(loop.remove_signal_handler, number)

    def _install_portable(self, signals: set[signal.Signals]) -> None:
        # The interpreter writes the number of each signal to a socket that the loop watches:
        # a plain handler would not wake a loop that waits in `select`.
        loop = asyncio.get_running_loop()
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
            self._undo.callback(end.close)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno()))
        for number in signals:
            self._undo.callback(signal.signal, number, signal.signal(number, _noted_by_wakeup))
        loop.add_reader(reader, self._read, reader)
        self._undo.callback(loop.remove_reader, reader)

    def _read(self, reader: socket.socket) -> None:
        for number in reader.recv(256):
            self.received(signal.Signals(number))

    def received(self, number: signal.Signals) -> None:
        """Take note of a signal. Runs in the event loop."""
        notices = ServiceNotices.of(os.environ)
        if number == _HANGUP and self._reload is not None:
            notices.reloading()
            self._reload()
            notices.ready()
        elif not self.first.done():
            notices.stopping()
            self.first.set_result(number)
        elif not self.second.done():
            self.second.set_result(number)


def _noted_by_wakeup(number: int, frame: FrameType | None) -> None:
    """A handler has to be set for the interpreter to write to the wake-up socket."""


async def run_until_signal(
    running: Coroutine[Any, Any, None],
    stop: Callable[[], Awaitable[None]],
    signals: StopSignals,
    report: Reporter,
    *,
    stop_time: float = STOP_TIME,
) -> ExitStatus:
    """Run to the end, or until a signal; then `stop` gets `stop_time` seconds.

    `stop` is awaited in either case: it ends listeners and links in order, and is cancelled by a
    second signal. Returns the exit status; raises what `running` raised.
    """
    async with TaskScope("program", on_failure=_ignore) as scope:
        task = scope.spawn(running, "run")
        await _first_of(task, signals.first)
        if signals.first.done():
            report(Stopping(signals.first.result().name))
        stopping = scope.spawn(_call(stop), "stop")
        await _first_of(stopping, signals.second, timeout=stop_time)
    if signals.first.done():
        return _STATUS[signals.first.result()]
    task.result()
    stopping.result()
    return ExitStatus.DONE


async def _first_of(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _call(function: Callable[[], Awaitable[None]]) -> None:
    await function()


def _ignore(name: str, error: Exception) -> None:
    """Failures of both tasks are raised by `run_until_signal` itself."""
