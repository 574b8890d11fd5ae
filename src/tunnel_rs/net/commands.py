"""Running the system's programs: to the end, within a time, with a bounded answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from tunnel_rs.errors import LocalError

TIMEOUT = 10.0
MAX_SHOWN = 200

Run = Callable[[Sequence[str], str], Awaitable[str]]
"""`run`, or a stand-in for it."""


async def run(command: Sequence[str], text: str = "") -> str:
    """Run a program with `text` on its stdin; what it wrote to stdout. Raises LocalError when it
    is not there, fails, or takes too long."""
    program = command[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise LocalError(f"cannot run {program}: {error.strerror}; is it installed?") from None
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate(text.encode())
    except TimeoutError:
        raise LocalError(f"`{' '.join(command)}` did not end in {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        said = " ".join((err or out).decode("utf-8", "replace").split())[:MAX_SHOWN]
        raise LocalError(f"`{' '.join(command)}` failed: {said or process.returncode}")
    return out.decode("utf-8", "replace")
