"""Something that answers, in an event loop in a thread of its own, while a test runs commands."""

import asyncio
import threading
from abc import ABC, abstractmethod


class Answering(ABC):
    """`serve` brings up what answers, and stays in `until_stopped` while it does."""

    def __init__(self) -> None:
        self._up, self._end = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self.serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(20)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        self._loop.close()

    @abstractmethod
    async def serve(self) -> None: ...

    async def until_stopped(self) -> None:
        self._up.set()
        await self._end.wait()
