import asyncio
import os
import select
import stat
import sys
import threading
from pathlib import Path

import pytest

from tunnel_rs.errors import LocalError, ProtocolError
from tunnel_rs.net.paste import MAX_INPUT, drop_typed, read_block, write_block
from tunnel_rs.proto.manual_text import BlockKind, encode_block

BODY = b'{"a":1}'
BLOCK = encode_block(BlockKind.OFFER, BODY)


def pipe_with(data: bytes, *, close: bool = True) -> int:
    reader, writer = os.pipe()

    def write() -> None:
        try:
            os.write(writer, data) if len(data) < 4096 else os.fdopen(
                writer, "wb", closefd=False
            ).write(data)
        except BrokenPipeError:
            pass
        if close:
            os.close(writer)

    threading.Thread(target=write, daemon=True).start()
    return reader


async def test_a_block_is_read_from_a_pipe_that_stays_open() -> None:
    reader = pipe_with(f"hi\n{BLOCK}more".encode(), close=False)
    assert await read_block(BlockKind.OFFER, reader) == (BODY, 1)
    os.close(reader)


async def test_a_pipe_that_ends_early_is_explained() -> None:
    reader = pipe_with(BLOCK[:60].encode())
    with pytest.raises(ProtocolError, match="cut off"):
        await read_block(BlockKind.OFFER, reader)
    os.close(reader)


async def test_too_much_text_is_refused() -> None:
    reader = pipe_with(b"chat\n" * (MAX_INPUT // 5 + 20_000))
    with pytest.raises(ProtocolError, match="more than 8 MiB"):
        await read_block(BlockKind.OFFER, reader)
    os.close(reader)


async def test_a_file_is_waited_for_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "offer"
    reading = asyncio.create_task(read_block(BlockKind.OFFER, path))
    await asyncio.sleep(0)
    path.write_text(BLOCK[:80])
    path.write_text(BLOCK)
    assert await reading == (BODY, 0)


async def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = asyncio.create_task(read_block(BlockKind.OFFER, path))
    threading.Thread(target=write_block, args=(path, BLOCK), daemon=True).start()
    assert await reading == (BODY, 0)


async def test_a_damaged_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "offer"
    path.write_text(BLOCK.replace("TRS1", "TRS9"))
    with pytest.raises(ProtocolError, match="version 9"):
        await read_block(BlockKind.OFFER, path)


async def test_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot read the offer"):
        await read_block(BlockKind.OFFER, tmp_path)


async def test_who_gives_up_leaves_no_thread_that_reads_on(tmp_path: Path) -> None:
    reading = asyncio.create_task(read_block(BlockKind.OFFER, tmp_path / "never"))
    await asyncio.sleep(0)
    [thread] = [t for t in threading.enumerate() if t.name == "read offer"]
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


def test_a_written_file_is_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_text("old")
    write_block(path, BLOCK)
    assert path.read_text() == BLOCK and list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be written"):
        write_block(tmp_path / "no" / "answer", BLOCK)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_what_a_terminal_still_holds_is_dropped() -> None:
    import pty

    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"regards\n")
    select.select([terminal], [], [], 5)
    drop_typed(terminal)
    assert select.select([terminal], [], [], 0)[0] == []
    os.close(keyboard)
    os.close(terminal)


def test_where_there_is_no_terminal_nothing_is_dropped() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"kept")
    drop_typed(reader)
    assert os.read(reader, 10) == b"kept"
    os.close(reader)
    os.close(writer)
