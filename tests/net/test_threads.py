import asyncio
import threading

import pytest

from tunnel_rs.net.threads import in_thread


async def test_what_it_returns_and_raises_comes_out() -> None:
    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_when_cancelled_it_still_waits_for_the_end() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(5)
        done.set()
        raise ValueError("nobody asks any more")

    task = asyncio.create_task(in_thread(work))
    await in_thread(lambda: begun.wait(5))
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
