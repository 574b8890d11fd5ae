"""The single owner of tasks: every coroutine that runs beside its caller belongs to a scope.

A scope names its tasks, bounds how many there are, reports each failure, and ends with all of
them: when `aclose` has returned, none is left. `asyncio.create_task` is banned everywhere else.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

FailureCallback = Callable[[str, Exception], None]
"""Gets the full name of the task and the exception it ended with. Must not raise."""


class ScopeFullError(RuntimeError):
    """The scope runs as many tasks as it may, or has been closed."""


class TaskScope:
    """A named group of tasks that live no longer than the scope.

    Use it as an async context manager, or call `aclose`. A failing task does not end its siblings:
    `on_failure` decides. Without a callback a failure goes to the event loop's exception handler.
    """

    def __init__(
        self, name: str, *, on_failure: FailureCallback | None = None, limit: int = 10_000
    ) -> None:
        self.name = name
        self._on_failure = on_failure
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        """Tasks that have not ended."""
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `coro` as a task called `<scope>/<name>`. Raises ScopeFullError, and then closes
        `coro` without having run it."""
        if self._closed or len(self._tasks) >= self._limit:
            coro.close()
            state = "is closed" if self._closed else f"is full ({self._limit} tasks)"
            raise ScopeFullError(f"task scope {self.name} {state}")
        task = asyncio.create_task(coro, name=f"{self.name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Wait until no task is left, those spawned meanwhile included."""
        while pending := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(pending)
            await self._let_callbacks_run()

    async def aclose(self) -> None:
        """Refuse new tasks, cancel the running ones and wait for their end. Idempotent. A task of
        the scope may call it: the task itself is then left running."""
        self._closed = True
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel(f"scope {self.name} closes")
        await self.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _let_callbacks_run(self) -> None:
        # `asyncio.wait` may return before `_ended` has been called for every task.
        await asyncio.sleep(0)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if not isinstance(error, Exception):
            return
        if self._on_failure is not None:
            self._on_failure(task.get_name(), error)
        else:
            task.get_loop().call_exception_handler(
                {"message": f"task {task.get_name()} failed", "exception": error, "task": task}
            )
