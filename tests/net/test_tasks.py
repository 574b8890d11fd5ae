"""Tests of `tunnel_rs.net.tasks`."""

import asyncio
from typing import Any

import pytest

from tunnel_rs.net.tasks import ScopeFullError, TaskScope


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_spawned_task_runs_under_the_scope_s_name_and_gives_its_result() -> None:
    async def work() -> int:
        return 7

    async with TaskScope("server") as scope:
        task = scope.spawn(work(), "auth")
        assert task.get_name() == "server/auth"
        assert await task == 7


async def test_leaving_the_scope_cancels_and_reaps_every_task() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async with TaskScope("scope") as scope:
        scope.spawn(work("a"), "a")
        scope.spawn(work("b"), "b")
        await asyncio.sleep(0)
        assert len(scope) == 2
    assert sorted(ended) == ["a", "b"]
    assert len(scope) == 0


async def test_a_failure_is_reported_once_and_leaves_the_siblings_alone() -> None:
    failures: list[tuple[str, str]] = []

    async def fail() -> None:
        raise ValueError("broken")

    async with TaskScope("s", on_failure=lambda n, e: failures.append((n, str(e)))) as scope:
        sibling = scope.spawn(forever(), "sibling")
        with pytest.raises(ValueError, match="broken"):
            await scope.spawn(fail(), "bad")
        await asyncio.sleep(0)
        assert not sibling.done()
    assert failures == [("s/bad", "broken")]


async def test_a_failure_without_a_callback_reaches_the_loop_s_exception_handler() -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))

    async def fail() -> None:
        raise ValueError("broken")

    async with TaskScope("s") as scope:
        scope.spawn(fail(), "bad")
        await scope.join()
    assert [str(context["exception"]) for context in seen] == ["broken"]
    assert seen[0]["message"] == "task s/bad failed"


async def test_a_failure_while_the_scope_closes_is_reported_too() -> None:
    failures: list[str] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            raise ValueError("in cleanup")

    async with TaskScope("s", on_failure=lambda name, _: failures.append(name)) as scope:
        scope.spawn(work(), "w")
        await asyncio.sleep(0)
    assert failures == ["s/w"]


async def test_a_full_scope_refuses_and_does_not_leak_the_coroutine() -> None:
    async with TaskScope("s", limit=1) as scope:
        scope.spawn(forever(), "one")
        with pytest.raises(ScopeFullError, match=r"full \(1 tasks\)"):
            scope.spawn(forever(), "two")
        assert len(scope) == 1


async def test_a_closed_scope_refuses_even_what_a_dying_task_spawns() -> None:
    refused: list[str] = []
    scope = TaskScope("s")

    async def work() -> None:
        try:
            await forever()
        finally:
            try:
                scope.spawn(forever(), "late")
            except ScopeFullError as error:
                refused.append(str(error))

    scope.spawn(work(), "w")
    await asyncio.sleep(0)
    await scope.aclose()
    await scope.aclose()
    assert refused == ["task scope s is closed"]


async def test_join_waits_for_tasks_spawned_meanwhile() -> None:
    done: list[str] = []

    async def second() -> None:
        done.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        scope.spawn(second(), "second")
        done.append("first")

    async with TaskScope("s") as scope:
        scope.spawn(first(), "first")
        await scope.join()
        assert done == ["first", "second"]


async def test_a_task_may_close_its_own_scope() -> None:
    scope = TaskScope("s")
    sibling = scope.spawn(forever(), "sibling")
    closer = scope.spawn(scope.aclose(), "closer")
    await closer
    assert sibling.cancelled()
