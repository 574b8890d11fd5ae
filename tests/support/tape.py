"""A stream receiver that writes down every call in order, and can be told what to do in them."""

import asyncio
from collections.abc import Callable

from tunnel_rs.net.link import ByteStream, StreamReceiver

Event = tuple[str, object]


class Tape(StreamReceiver):
    """`calls` are ("data", bytes), ("eof", None), ("reset", code), ("stop", code),
    ("pause", None), ("resume", None), ("lost", error). `on` maps such a name to what to do."""

    def __init__(self, stream: ByteStream, *, consume: bool = True, attach: bool = True) -> None:
        self.stream = stream
        self.consume = consume
        self.calls: list[Event] = []
        self.on: dict[str, Callable[[], object]] = {}
        self.changed = asyncio.Event()
        if attach:
            stream.set_receiver(self)

    def _note(self, name: str, value: object = None) -> None:
        self.calls.append((name, value))
        self.changed.set()
        if name in self.on:
            self.on[name]()

    @property
    def data(self) -> bytes:
        return b"".join(value for _, value in self.calls if isinstance(value, bytes))

    @property
    def names(self) -> list[str]:
        """The calls without those for data."""
        return [name for name, _ in self.calls if name != "data"]

    @property
    def lost(self) -> list[object]:
        return [value for name, value in self.calls if name == "lost"]

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def heard(self, name: str, seconds: float = 30.0) -> None:
        """Wait for a call of this name."""
        await self.until(lambda: any(each == name for each, _ in self.calls), seconds)

    async def read(self, size: int) -> bytes:
        """Wait for so many bytes in all; returns all that have come."""
        await self.until(lambda: len(self.data) >= size)
        return self.data

    def data_received(self, data: bytes) -> None:
        if self.consume:
            self.stream.consumed(len(data))
        self._note("data", data)

    def eof_received(self) -> None:
        self._note("eof")

    def reset_received(self, code: int) -> None:
        self._note("reset", code)

    def stop_received(self, code: int) -> None:
        self._note("stop", code)

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self._note("lost", error)
