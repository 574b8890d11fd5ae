"""The event loop the programs run in."""

import asyncio
import gc
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from tunnel_rs.net.service_notices import Watchdog

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop when it is installed; on Windows the selector loop, as we watch sockets ourselves."""
    if sys.platform != "win32":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in a loop of its own, and close it. A service manager that watches is told
    that the loop turns."""
    _settle_memory()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_watched(main))


def _settle_memory() -> None:
    """Leave what has been imported, for good, out of the search for unreachable objects.

    The search stops the program for as long as it takes, tens of milliseconds with all modules
    among the objects, and is put off the longer the more there are: it would find what ended links
    and sessions have left only after thousands of them.
    """
    if not gc.get_freeze_count():
        gc.freeze()
        gc.collect()  # nothing is left to search; from this the collector takes its measure


async def _watched(main: Coroutine[Any, Any, T]) -> T:
    with Watchdog.of(os.environ):
        return await main
