import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest

from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus, UnreachableError
from tunnel_rs.reports import Report, Stopping, silent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals to itself")


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def forever() -> None:
    await asyncio.Event().wait()


async def nothing() -> None:
    pass


both_ways = pytest.mark.parametrize("portable", [False, True], ids=["add_handler", "wakeup_fd"])


@both_ways
@pytest.mark.parametrize("stopped", [True, False])
def test_handlers_are_as_before_once_the_loop_is_closed(portable: bool, stopped: bool) -> None:
    async def main() -> None:
        with StopSignals(portable=portable) as signals:
            if stopped:
                send(signal.SIGINT)
                await signals.first

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    asyncio.run(main())
    assert [signal.getsignal(number) for number in numbers] == before


@both_ways
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, ExitStatus.INTERRUPTED),
        (signal.SIGTERM, ExitStatus.TERMINATED),
        (signal.SIGHUP, ExitStatus.HUNG_UP),
    ],
)
async def test_a_signal_stops_in_order(
    portable: bool, number: signal.Signals, status: ExitStatus
) -> None:
    stopped: list[str] = []
    reports: list[Report] = []

    async def running() -> None:
        send(number)
        await forever()

    async def stop() -> None:
        stopped.append("stop")

    with StopSignals(portable=portable) as signals:
        ended = await run_until_signal(running(), stop, signals, reports.append)
    assert ended is status
    assert stopped == ["stop"]
    assert reports == [Stopping(number.name)]


@both_ways
async def test_a_second_signal_ends_at_once(portable: bool) -> None:
    cancelled: list[str] = []

    async def running() -> None:
        send(signal.SIGTERM)
        await forever()

    async def stop() -> None:
        send(signal.SIGINT)
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append("stop")
            raise

    with StopSignals(portable=portable) as signals:
        ended = await run_until_signal(running(), stop, signals, silent, stop_time=3600)
    assert ended is ExitStatus.TERMINATED
    assert cancelled == ["stop"]


async def test_more_signals_do_not_break_off_what_is_closed_after_that() -> None:
    with StopSignals() as signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            send(number)
        await signals.second
    closed = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) * 3:
        send(number)
        await asyncio.sleep(0)
        closed += 1
    assert closed == 9


async def test_sessions_that_do_not_finish_are_cut_off_when_the_time_is_up() -> None:
    async def running() -> None:
        send(signal.SIGINT)
        await forever()

    with StopSignals() as signals:
        ended = await run_until_signal(running(), forever, signals, silent, stop_time=0.01)
    assert ended is ExitStatus.INTERRUPTED


@both_ways
async def test_sighup_re_reads_and_goes_on(portable: bool) -> None:
    reloaded = asyncio.Event()

    async def running() -> None:
        send(signal.SIGHUP)
        await reloaded.wait()

    with StopSignals(reloaded.set, portable=portable) as signals:
        ended = await run_until_signal(running(), nothing, signals, silent)
    assert ended is ExitStatus.DONE


async def test_what_ends_by_itself_is_closed_too() -> None:
    order: list[str] = []

    def note(word: str) -> Callable[[], Awaitable[None]]:
        async def noted() -> None:
            order.append(word)

        return noted

    with StopSignals() as signals:
        ended = await run_until_signal(_await(note("run")), note("stop"), signals, silent)
    assert (ended, order) == (ExitStatus.DONE, ["run", "stop"])


async def _await(function: Callable[[], Awaitable[None]]) -> None:
    await function()


async def test_an_error_is_raised_after_all_is_closed() -> None:
    stopped = asyncio.Event()

    async def fail() -> None:
        raise UnreachableError("the server does not answer")

    async def stop() -> None:
        stopped.set()

    with StopSignals() as signals:
        with pytest.raises(UnreachableError, match="does not answer"):
            await run_until_signal(fail(), stop, signals, silent)
    assert stopped.is_set()


async def test_an_error_while_stopping_is_raised_too() -> None:
    async def fail() -> None:
        raise RuntimeError("stop")

    with StopSignals() as signals:
        with pytest.raises(RuntimeError, match="stop"):
            await run_until_signal(nothing(), fail, signals, silent)


async def test_errors_after_a_signal_do_not_change_the_status() -> None:
    async def running() -> None:
        send(signal.SIGINT)
        try:
            await forever()
        finally:
            raise UnreachableError("closed under way")

    with StopSignals() as signals:
        ended = await run_until_signal(running(), nothing, signals, silent)
    assert ended is ExitStatus.INTERRUPTED


async def test_no_task_is_left() -> None:
    with StopSignals() as signals:
        await run_until_signal(nothing(), nothing, signals, silent)
    assert asyncio.all_tasks() == {asyncio.current_task()}
