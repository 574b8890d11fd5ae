"""An event loop whose clock jumps: when nothing is ready, it is the next timer's time at once.

Real loopback sockets work on it, as their datagrams are readable as soon as they are sent, or as
soon as a loaded kernel gets to it. So a test of timeouts of minutes takes milliseconds, and its
times are exact.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

_KERNEL_DELAY = 0.001
"""Real seconds that a datagram sent on loopback may take under load."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.turns += 1
        ready = super().select(0)
        if ready or timeout is not None and timeout <= 0:
            return ready
        if timeout is None:
            return super().select(10)  # for something real; a test that hangs times out
        ready = super().select(_KERNEL_DELAY)
        if not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`turns` counts how often the loop has woken up."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # So that a timer counts as due at exactly its time.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.now

    @property
    def turns(self) -> int:
        return self._jumping.turns


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test on a `VirtualTimeLoop`; it must leave no task behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def checked() -> None:
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left running: {left}"

        with asyncio.Runner(debug=True, loop_factory=VirtualTimeLoop) as runner:
            runner.run(checked())

    return run


def turns() -> int:
    """How often the running loop has woken up."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop.turns
