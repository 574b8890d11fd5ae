"""The event loop the programs run in."""

import asyncio
import ctypes
import functools
import gc
import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from tunnel_rs.net.service_notices import Watchdog

T = TypeVar("T")

KEPT_FREE = 2 << 20
"""Free bytes at the top of the heap that are not given back to the system."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


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
    _steady_heap()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_watched(main))


@functools.cache
def _settle_memory() -> None:
    """Leave what has been imported, for good, out of the search for unreachable objects.

    The search stops the program for as long as it takes, tens of milliseconds with all modules
    among the objects, and is put off the longer the more there are: it would find what ended links
    and sessions have left only after thousands of them. Once: what a second run finds may be just
    that.
    """
    gc.freeze()
    gc.collect()  # nothing is left to search; from this the collector takes its measure


def _steady_heap() -> None:
    """Have glibc keep a little free memory instead of asking the kernel for the same pages again.

    Batches of a transfer take and free up to half a megabyte each. By default that is given back
    every time or, once something large has been freed, nothing is any more.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not in musl
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE)
        mallopt(_M_MMAP_THRESHOLD, 2 * KEPT_FREE)


async def _watched(main: Coroutine[Any, Any, T]) -> T:
    with Watchdog.of(os.environ):
        return await main
