"""The commands of `docs/SELF-HOSTING.md`, run in the order of the page."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import ENVIRONMENT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "SELF-HOSTING.md"
BLOCK = re.compile(
    r"(?:<!-- (?P<what>[a-z ]+?)(?:: (?P<more>.*?))? -->\n)?"
    r"```(?P<language>\w+)\n(?P<text>.*?)```\n",
    re.DOTALL,
)
READY_WITHIN = 30.0


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comment before it says to do with it."""

    what: str | None
    more: str
    text: str


def sections() -> dict[str, list[Block]]:
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        found[title] = list(_blocks(text))
    return found


def _blocks(text: str) -> Iterator[Block]:
    for match in BLOCK.finditer(text):
        yield Block(match["what"], match["more"] or "", match["text"])


SECTIONS = sections()
TO_RUN = [
    title for title, blocks in SECTIONS.items() if any(block.what == "run" for block in blocks)
]


def test_every_block_says_what_is_done_with_it() -> None:
    known = {"run", "keep running", "file", "shown only"}
    blocks = [block for blocks in SECTIONS.values() for block in blocks]
    assert {block.what for block in blocks} == known
    assert PAGE.read_text().count("```") == 2 * len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("title", TO_RUN)
async def test_the_commands_work(title: str, tmp_path: Path) -> None:
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, which is not installed here")
    environment = with_our_program(tmp_path)
    folder = tmp_path / "work"
    folder.mkdir()
    async with AsyncExitStack() as stack:
        for block in SECTIONS[title]:
            if block.what == "file":
                (folder / block.more).write_text(block.text)
            elif block.what == "run":
                await run(block.text, folder, environment)
            elif block.what == "keep running":
                kept = kept_running(block.text, block.more, folder, environment)
                await stack.enter_async_context(kept)


def with_our_program(directory: Path) -> dict[str, str]:
    """An environment in which `tunnel-rs` is the one of this tree."""
    programs = directory / "bin"
    programs.mkdir()
    program = programs / "tunnel-rs"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tunnel_rs "$@"\n')
    program.chmod(0o755)
    home = {"HOME": str(directory), "PATH": f"{programs}:{ENVIRONMENT['PATH']}"}
    return ENVIRONMENT | home


async def run(text: str, folder: Path, environment: dict[str, str]) -> None:
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
    text: str, ready: str, folder: Path, environment: dict[str, str]
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
        os.killpg(process.pid, signal.SIGTERM)
        await process.communicate()
