"""Running the system's programs: to the end, within a time, with a bounded answer."""

import subprocess
from collections.abc import Awaitable, Callable, Sequence

from tunnel_rs.errors import LocalError
from tunnel_rs.net.threads import in_thread

TIMEOUT = 10.0
MAX_SHOWN = 200

Run = Callable[[Sequence[str], str], Awaitable[str]]
"""`run`, or a stand-in for it: takes the command and what it gets on stdin."""


async def run(command: Sequence[str], text: str = "") -> str:
    """Run a program with `text` on its stdin; what it wrote to stdout. Raises LocalError when it
    is not there, fails, or takes too long."""
    return await in_thread(lambda: _run(command, text))


def _run(command: Sequence[str], text: str) -> str:
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"`{shown}` did not end in {TIMEOUT:g} s") from None
    except OSError as error:
        raise LocalError(f"cannot run {command[0]}: {error.strerror}; is it installed?") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())
        raise LocalError(f"`{shown}` failed: {said[:MAX_SHOWN] or done.returncode}")
    return done.stdout.decode("utf-8", "replace")
