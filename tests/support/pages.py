"""The documentation as data: pages, their fenced blocks, and running those blocks as typed.

A comment before a block says what is done with it:

    <!-- run -->                     run it to its end; it has to succeed
    <!-- keep running: TEXT -->      start it, wait until it prints TEXT, end it after the section
    <!-- file: NAME -->             write it to that file of the reader's folder
    <!-- shown only: REASON -->      not run, and why
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.servers import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("tunnel-rs", "tunnel-rs-ice", "tunnel-rs-vpn")
READY_WITHIN = 30.0
"""Seconds that a command has to end or to say that it is ready, on a busy machine."""

_MODULES = {"tunnel-rs": "main", "tunnel-rs-ice": "ice", "tunnel-rs-vpn": "vpn"}
_BLOCK = re.compile(
    r"(?:<!-- (?P<what>[a-z ]+?)(?:: (?P<more>.*?))? -->\n)?"
    r"```(?P<language>\w*)\n(?P<text>.*?)```\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comment before it says to do with it."""

    what: str | None
    more: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every page that readers are sent to."""
    folders = (ROOT, ROOT / "docs", ROOT / "container-deploy")
    return sorted(page for folder in folders for page in folder.glob("*.md"))


def blocks(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        yield Block(match["what"], match["more"] or "", match["language"], match["text"])


def sections(page: Path) -> dict[str, list[Block]]:
    """The blocks under each heading of the second level; those before the first under ''."""
    found = {}
    for section in ("\n" + page.read_text()).split("\n## "):
        title, _, text = section.partition("\n")
        found[title] = list(blocks(text))
    return found


def environment(directory: Path) -> dict[str, str]:
    """A reader's home in `directory`, whose programs are those of this tree."""
    programs = directory / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        program = programs / name
        call = f"from tunnel_rs.cli.{_MODULES[name]} import main; main()"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c \'{call}\' "$@"\n')
        program.chmod(0o755)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return ENVIRONMENT | {
        "HOME": str(directory),
        "PATH": f"{programs}:{ENVIRONMENT['PATH']}",
        # Where its control sockets are: those of others on this machine are none of its business.
        "XDG_RUNTIME_DIR": str(directory),
    }


async def follow(
    section: Sequence[Block],
    folder: Path,
    environment: Mapping[str, str],
    place: Callable[[str], str] = str,
) -> None:
    """Do what a section says, in its order, in `folder`. `place` puts what a reader has to put
    into the text of a block: ids, the port of something real."""
    async with AsyncExitStack() as stack:
        for block in (replace(block, text=place(block.text)) for block in section):
            if block.what == "file":
                (folder / block.more).write_text(block.text)
            elif block.what == "run":
                await run(block.text, folder, environment)
            elif block.what == "keep running":
                kept = kept_running(block.text, block.more, folder, environment)
                await stack.enter_async_context(kept)


async def run(text: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a block to its end."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", text),
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(READY_WITHIN):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        pytest.fail(f"did not end:\n{text}")
    assert process.returncode == 0, f"{text}\n{output.decode()}"


@asynccontextmanager
async def kept_running(
    text: str, ready: str, folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[None]:
    """A shell of its own process group, so that all it has started ends with it."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", text),
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = ""
    try:
        try:
            async with asyncio.timeout(READY_WITHIN):
                while ready not in seen and (line := await process.stdout.readline()):
                    seen += line.decode()
        except TimeoutError:
            pass
        assert ready in seen, f"{text}\nprinted no {ready!r}, but:\n{seen}"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, signal.SIGTERM)
        await process.communicate()
