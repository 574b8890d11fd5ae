import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.program import tunnel_rs

from tunnel_rs.cli.programs import Choice
from tunnel_rs.cli.top import watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

PROGRAM = "from tunnel_rs.cli.main import main; main()"


def test_without_a_terminal_it_says_so() -> None:
    ended = tunnel_rs("top")
    assert ended.status == 2
    assert ended.err == "error: top needs a terminal; `tunnel-rs status` does not\n"


def test_it_draws_until_it_is_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    out, waits = io.StringIO(), [False, False, True]
    screen = Console(file=out, force_terminal=True, width=80, height=20)
    watch(Choice(), screen, lambda seconds: waits.pop(0))
    assert out.getvalue().count("no server or client of this user is running") == 3


@pytest.mark.parametrize("end", ["q", "ctrl-c", "sigterm"])
def test_in_a_terminal_it_shows_and_leaves_the_screen_as_it_was(tmp_path: Path, end: str) -> None:
    here, there = pty.openpty()
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "top"],
        stdin=there,
        stdout=there,
        stderr=there,
        env=environ,
        start_new_session=True,
        preexec_fn=lambda: os.close(here),
    )
    os.close(there)
    try:
        shown = read_until(here, b"is running")
        if end == "sigterm":
            process.send_signal(signal.SIGTERM)
        elif end == "ctrl-c":
            process.send_signal(signal.SIGINT)
        else:
            os.write(here, b"q")
        shown += read_until(here, b"\x1b[?1049l")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(here)
    assert b"\x1b[?1049h" in shown, "on a screen of its own"


def read_until(descriptor: int, wanted: bytes) -> bytes:
    data, until = b"", time.monotonic() + 40
    while wanted not in data and time.monotonic() < until:
        data += os.read(descriptor, 65_536)
    assert wanted in data
    return data
