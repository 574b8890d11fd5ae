from collections.abc import Sequence

import pytest
from tests.support.commands import FakeRun

from tunnel_rs.errors import LocalError
from tunnel_rs.net.command_network import Changes


def said(run: FakeRun) -> list[str]:
    return [" ".join(command) for command, _ in run.calls]


async def test_changes_are_taken_back_in_reverse_order_once() -> None:
    run = FakeRun()
    changes = Changes(run)
    for name in ("a", "b"):
        await changes.make(("add", name), ("remove", name))
    await changes.make(("look",))
    await changes.take_back()
    await changes.take_back()
    assert said(run) == ["add a", "add b", "look", "remove b", "remove a"]


async def test_what_failed_is_not_taken_back_and_failures_of_that_do_not_matter() -> None:
    run = FakeRun(failing=["add b", "remove a"])
    changes = Changes(run)
    await changes.make(("add", "a"), ("remove", "a"))
    with pytest.raises(LocalError):
        await changes.make(("add", "b"), ("remove", "b"))
    await changes.make(("add", "c"), ("remove", "c"))
    await changes.take_back()
    assert said(run) == ["add a", "add b", "add c", "remove c", "remove a"]


async def test_texts_go_to_stdin() -> None:
    run = FakeRun()
    changes = Changes(run)
    await changes.make(("tool",), ("tool",), text="on", undo_text="off")
    await changes.take_back()
    sent: list[tuple[Sequence[str], str]] = [(("tool",), "on"), (("tool",), "off")]
    assert run.calls == sent
