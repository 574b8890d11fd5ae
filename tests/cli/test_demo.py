"""`tunnel-rs demo` as a user runs it."""

import asyncio
import re
import signal
import sys

from tests.support.servers import ENVIRONMENT

from tunnel_rs.errors import ExitStatus


async def _started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tunnel_rs",
        "demo",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )


async def test_it_shows_a_tunnel_at_work_and_ends_with_0() -> None:
    process = await _started()
    out, err = await process.communicate()
    assert process.returncode == ExitStatus.DONE, err.decode()
    text = out.decode()
    assert "same SHA-256" in text
    assert "100 datagrams there and back" in text
    assert "all as it should be" in text
    assert err == b""


async def test_with_keep_it_prints_commands_that_work_until_it_is_interrupted() -> None:
    process = await _started("--keep")
    assert process.stdout is not None and process.stderr is not None
    text = (await process.stdout.readuntil(b"Press Ctrl-C to end.")).decode()
    typed = re.search(r"tunnel-rs (client.*?)\nA server", text, re.DOTALL)
    assert typed is not None
    words = typed[1].replace("\\\n", " ").split()
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunnel_rs", *words, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT
    )
    assert client.stderr is not None
    seen = b""
    while b"is up by" not in seen:
        line = await client.stderr.readline()
        assert line, seen.decode()
        seen += line
    client.send_signal(signal.SIGINT)
    await client.communicate()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == ExitStatus.INTERRUPTED
