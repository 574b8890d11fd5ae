"""Tests of `tunnel_rs.net.waiters`."""

import asyncio
from collections import deque

import pytest

from tunnel_rs.net.waiters import serve_first, wait_in_line

Line = deque[asyncio.Future[str]]


@pytest.fixture
def line() -> Line:
    return deque()


def nobody(thing: str) -> None:
    pytest.fail(f"{thing} was put back")


async def waiting(line: Line, put_back: object = nobody) -> asyncio.Task[str]:
    task = asyncio.create_task(wait_in_line(line, put_back))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return task


async def test_who_came_first_is_served_first(line: Line) -> None:
    first, second = await waiting(line), await waiting(line)
    assert serve_first(line, "a")
    assert serve_first(line, "b")
    assert (await first, await second) == ("a", "b")
    assert not serve_first(line, "c")


async def test_who_gave_up_leaves_the_line(line: Line) -> None:
    first, second = await waiting(line), await waiting(line)
    first.cancel()
    await asyncio.wait([first])
    assert len(line) == 1
    assert serve_first(line, "a")
    assert await second == "a"


async def test_who_is_just_giving_up_is_passed_over(line: Line) -> None:
    first, second = await waiting(line), await waiting(line)
    first.cancel()
    assert serve_first(line, "a")
    assert await second == "a"
    await asyncio.wait([first])
    assert first.cancelled()


async def test_a_thing_served_in_the_moment_of_giving_up_goes_to_the_next(line: Line) -> None:
    first, second = await waiting(line), await waiting(line)
    serve_first(line, "a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == "a"


async def test_a_thing_nobody_waits_for_any_more_is_put_back(line: Line) -> None:
    back: list[str] = []
    task = await waiting(line, back.append)
    serve_first(line, "a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert back == ["a"]


async def test_an_error_given_in_the_moment_of_giving_up_is_dropped(line: Line) -> None:
    task = await waiting(line)
    line.popleft().set_exception(OSError("over"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
