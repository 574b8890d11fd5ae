"""Tests of `tunnel_rs.net.stdio`: pipes (event loop) and regular files (threads)."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.memory_link import MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import until

from tunnel_rs.net import stdio as stdio_module
from tunnel_rs.net.splice import WRITE_HIGH_WATER, SpliceEnd
from tunnel_rs.net.stdio import join_stdio


class Bench:
    """stdin and stdout played by the test, and the other end of the stream."""

    def __init__(self) -> None:
        self.ends: list[SpliceEnd] = []
        self.fds: list[int] = []
        self.near: MemoryStream
        self.far: Recorder

    async def join(self, stdin: int, stdout: int, *, sizes: Sizes | None = None) -> None:
        self.link, other = link_pair(sizes)
        other.open_window()
        self.near = await self.link.open_stream()
        self.near.write(b"!")  # shows it to the other end
        self.splice = await join_stdio(
            self.near, self.near.set_receiver, self.ends.append, stdin=stdin, stdout=stdout
        )
        os.close(stdin)  # /dev/null by now, as in a program that goes on
        os.close(stdout)
        self.far = Recorder(await other.accept_stream())

    async def end(self) -> SpliceEnd:
        await until(lambda: bool(self.ends))
        (end,) = self.ends
        return end

    def pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self.fds += [reading, writing]
        return reading, writing

    def ours(self, fd: int) -> int:
        """The splice owns it now."""
        self.fds.remove(fd)
        return fd

    def close(self, fd: int) -> None:
        os.close(self.ours(fd))


@pytest.fixture(params=["event loop", "threads"])
async def bench(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    if request.param == "threads":
        monkeypatch.setattr(stdio_module, "_can_be_polled", lambda fd: False)
    made = Bench()
    yield made
    if not made.ends:
        made.splice.abort("test over")
    for fd in made.fds:
        os.close(fd)


async def in_thread(function: object, *arguments: object) -> object:
    return await asyncio.to_thread(function, *arguments)  # type: ignore[arg-type]


def read_all(fd: int) -> bytes:
    data = bytearray()
    while chunk := os.read(fd, 65536):
        data += chunk
    return bytes(data)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


async def test_bytes_and_eof_pass_both_ways(bench: Bench) -> None:
    stdin, feed = bench.pipe()
    drain, stdout = bench.pipe()
    await bench.join(bench.ours(stdin), bench.ours(stdout))
    up, down = os.urandom(3_000_000), os.urandom(3_000_000)
    feeding = asyncio.create_task(in_thread(write_all, feed, up))
    draining = asyncio.create_task(in_thread(read_all, drain))
    bench.far.stream.write(down)
    await feeding
    await until(lambda: bench.far.data == b"!" + up)
    bench.close(feed)
    await until(lambda: "eof" in bench.far.events)
    bench.far.stream.write(b"after our end")
    bench.far.stream.write_eof()
    assert await draining == down + b"after our end"
    assert await bench.end() == SpliceEnd(len(up), len(down) + 13, "")


async def test_the_peer_s_eof_closes_the_output_and_input_goes_on(bench: Bench) -> None:
    stdin, feed = bench.pipe()
    drain, stdout = bench.pipe()
    await bench.join(bench.ours(stdin), bench.ours(stdout))
    bench.far.stream.write(b"all")
    bench.far.stream.write_eof()
    assert await in_thread(read_all, drain) == b"all"
    write_all(feed, b"still going")
    await until(lambda: bench.far.data == b"!still going")
    bench.close(feed)
    assert (await bench.end()).reason == ""


async def test_an_output_that_nobody_reads_any_more_resets_the_stream(bench: Bench) -> None:
    stdin, _feed = bench.pipe()
    drain, stdout = bench.pipe()
    await bench.join(bench.ours(stdin), bench.ours(stdout))
    bench.close(drain)
    bench.far.stream.write(b"nobody reads this")
    await until(lambda: sorted(bench.far.events) == ["reset 1", "stop 1"])
    assert (await bench.end()).reason == "the local connection was reset"


async def test_the_link_s_loss_ends_it_with_the_reason(bench: Bench) -> None:
    stdin, _feed = bench.pipe()
    drain, stdout = bench.pipe()
    await bench.join(bench.ours(stdin), bench.ours(stdout))
    bench.link.lose("gone")
    assert (await bench.end()).reason == "gone"
    await until(lambda: bench.near.unconsumed == 0)


async def test_a_slow_output_holds_the_peer(bench: Bench) -> None:
    stdin, _feed = bench.pipe()
    drain, stdout = bench.pipe()
    window = 128 * 1024
    await bench.join(bench.ours(stdin), bench.ours(stdout), sizes=Sizes(window=window))
    total = 8 * 1024 * 1024
    bench.far.stream.write(bytes(total))
    bench.far.stream.write_eof()
    left = -1
    while left != bench.far.stream.unsent:
        left = bench.far.stream.unsent
        for _ in range(2000):
            await asyncio.sleep(0)
    assert left >= total - window - WRITE_HIGH_WATER - 2 * 65536 - window
    assert await in_thread(read_all, drain) == bytes(total)


async def test_a_slow_peer_holds_the_input(bench: Bench) -> None:
    stdin, feed = bench.pipe()
    drain, stdout = bench.pipe()
    sizes = Sizes(window=64 * 1024, high_water=64 * 1024)
    await bench.join(bench.ours(stdin), bench.ours(stdout), sizes=sizes)
    bench.far.consume = False
    data = os.urandom(4 * 1024 * 1024)
    feeding = asyncio.create_task(in_thread(write_all, feed, data))
    sent = -1
    while sent != bench.splice.sent or sent == 0:
        sent = bench.splice.sent
        for _ in range(2000):
            await asyncio.sleep(0)
    assert sent < 1024 * 1024
    bench.far.consume = True
    bench.far.stream.consumed(bench.far.stream.unconsumed)
    await feeding
    await until(lambda: bench.far.data == b"!" + data)


async def test_regular_files_are_forwarded_by_threads(tmp_path: Path) -> None:
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(500_000))
    bench = Bench()
    stdin = os.open(source, os.O_RDONLY)
    stdout = os.open(sink, os.O_WRONLY | os.O_CREAT, 0o600)
    await bench.join(stdin, stdout)
    await until(lambda: bench.far.events == ["eof"])
    assert bench.far.data == b"!" + source.read_bytes()
    bench.far.stream.write(b"kept")
    bench.far.stream.write_eof()
    await bench.end()
    assert sink.read_bytes() == b"kept"


async def test_a_descriptor_s_blocking_mode_is_restored() -> None:
    ours, theirs = socket.socketpair()
    assert ours.getblocking()
    bench = Bench()
    await bench.join(os.dup(ours.fileno()), os.dup(ours.fileno()))
    assert not os.get_blocking(ours.fileno())
    bench.splice.abort("over")
    await bench.end()
    await until(lambda: os.get_blocking(ours.fileno()))
    ours.close()
    theirs.close()


async def test_the_standard_descriptors_are_replaced_by_the_null_device() -> None:
    reading, writing = os.pipe()
    ours = stdio_module._take_over(writing, os.O_WRONLY)
    os.write(writing, b"a stray print")
    os.write(ours, b"payload")
    os.close(ours)
    assert os.read(reading, 100) == b"payload"
    assert os.read(reading, 100) == b""
    os.close(reading)
    os.close(writing)
