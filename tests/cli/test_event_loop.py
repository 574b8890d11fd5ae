import asyncio
import importlib.util
import subprocess
import sys

import pytest

from tunnel_rs.cli import event_loop


async def loop_type() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_is_used_when_it_can_be_imported() -> None:
    pytest.importorskip("uvloop")
    assert event_loop.run(loop_type()) == "uvloop"


def test_asyncio_will_do_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.run(loop_type()).startswith("asyncio")


def test_windows_gets_the_selector_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    loop = event_loop.new_event_loop()
    loop.close()
    assert isinstance(loop, asyncio.SelectorEventLoop)


def test_the_result_is_returned_and_errors_are_raised() -> None:
    async def fail() -> None:
        raise KeyError("x")

    assert event_loop.run(asyncio.sleep(0, result=7)) == 7
    with pytest.raises(KeyError):
        event_loop.run(fail())


def test_uvloop_is_never_needed() -> None:
    """It is an extra: nothing of ours may import it at the top."""
    spec = importlib.util.find_spec("tunnel_rs.cli.event_loop")
    assert spec is not None and spec.origin is not None
    with open(spec.origin) as source:
        assert not any(line.startswith(("import uvloop", "from uvloop")) for line in source)


def holds(script: str) -> bool:
    """Whether a process of its own prints True."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout == "True\n"


def test_what_a_program_has_imported_is_not_searched_for_garbage() -> None:
    """In a process of its own: this one must go on to find what tests leave behind."""
    script = (
        "import gc, tunnel_rs.cli.server\n"
        "from tunnel_rs.cli import event_loop\n"
        "async def main(): return len(gc.get_objects())\n"
        "before = len(gc.get_objects())\n"
        "print(event_loop.run(main()) < before / 10)\n"
    )
    assert holds(script)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")
def test_what_a_batch_frees_stays_with_the_process() -> None:
    """Page faults of a process that takes and frees a batch of datagrams again and again."""
    script = (
        "import asyncio, resource\n"
        "from tunnel_rs.cli import event_loop\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "async def main():\n"
        "    batch = lambda: b''.join([bytes(16_384) for _ in range(32)])\n"
        "    batch()\n"
        "    before = faults()\n"
        "    for _ in range(100): batch()\n"
        "    return faults() - before\n"
        "print(event_loop.run(main()) < 500)\n"
    )
    assert holds(script)
