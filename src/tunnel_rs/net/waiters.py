"""Waiting in line for things that come one by one, so that none gets lost with who gives up."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def wait_in_line(line: deque[asyncio.Future[T]], put_back: Callable[[T], object]) -> T:
    """The next thing that `serve_first` hands to this waiter. When the caller is cancelled in the
    moment that it has been served, the thing goes to the next in line, else to `put_back`."""
    waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    line.append(waiter)
    try:
        return await waiter
    except asyncio.CancelledError:
        if waiter in line:
            line.remove(waiter)
        elif not waiter.cancelled() and waiter.exception() is None:
            if not serve_first(line, waiter.result()):
                put_back(waiter.result())
        raise


def serve_first(line: deque[asyncio.Future[T]], thing: T) -> bool:
    """Give `thing` to the first who still waits; False when nobody does."""
    while line:
        waiter = line.popleft()
        if not waiter.done():
            waiter.set_result(thing)
            return True
    return False
