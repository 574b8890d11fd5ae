import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands


async def test_stdin_goes_in_and_stdout_comes_out() -> None:
    assert await commands.run(("cat",), "hello") == "hello"


async def test_a_failure_is_one_line_with_what_the_program_said() -> None:
    with pytest.raises(LocalError, match=r"^`sh -c .*` failed: no such thing$"):
        await commands.run(("sh", "-c", "echo no such >&2; echo thing >&2; exit 3"))


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(LocalError, match="cannot run no-such-program: .*is it installed"):
        await commands.run(("no-such-program",))


async def test_a_program_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "TIMEOUT", 0.05)
    with pytest.raises(LocalError, match="did not end"):
        await commands.run(("sleep", "60"))


async def test_what_is_said_is_cut() -> None:
    with pytest.raises(LocalError) as caught:
        await commands.run(("sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x >&2; exit 1"))
    assert len(str(caught.value)) < 400
