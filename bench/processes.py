"""Start the programs that are measured, and read what they cost from /proc (Linux)."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

ENVIRONMENT = os.environ | {
    "PATH": PATH,
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
}


class BenchError(Exception):
    """A measured program did not do its part; the message says which and what it printed."""


class Program:
    """A child process; the first lines of its output can be waited for."""

    def __init__(self, command: Sequence[str | Path], *, core: int | None = None) -> None:
        """`core`: the processor it is held to, so that both sides of a tunnel have one each."""
        self.command = [str(part) for part in command]
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )
        self.pid = self._process.pid
        self._output = b""
        if core is not None:
            os.sched_setaffinity(self.pid, {core})

    def wait_for(self, text: str, within: float = 60) -> str:
        """The first line that holds `text`. Raises BenchError when it does not come."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within
        searched = 0
        while True:
            while (end := self._output.find(b"\n", searched)) >= 0:
                line, searched = self._output[searched:end].decode(errors="replace"), end + 1
                if text in line:
                    self._output = self._output[searched:]
                    return line
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(left, 0))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                printed = self._output.decode(errors="replace").strip()
                raise BenchError(f"{' '.join(self.command)}: no {text!r}; it printed: {printed}")
            self._output += data

    def discard_output(self) -> None:
        """Throw away what is waiting, so that a full pipe never holds the program up."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], 0)[0]:
            if not os.read(self._process.stdout.fileno(), 1 << 20):
                return

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Ask it to end; what it still says can be waited for."""
        self._process.terminate()

    def stop(self) -> None:
        if not self.ended:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Usage:
    """What a group of processes has used (CPU) and holds (the rest) at one moment."""

    cpu: float
    """Seconds on a processor, user and system, all threads."""
    rss: int
    """Resident bytes."""
    fds: int
    threads: int


def usage(pids: Iterable[int]) -> Usage:
    """The sum over `pids` and their children, sshd's for example."""
    cpu, rss, fds, threads = 0.0, 0, 0, 0
    for pid in _with_children(pids):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        # Fields of proc(5), counted from the state: 11 utime, 12 stime, 17 threads, 21 rss.
        cpu += (int(stat[11]) + int(stat[12])) / TICK
        threads += int(stat[17])
        rss += int(stat[21]) * PAGE
        fds += descriptors
    return Usage(cpu, rss, fds, threads)


def _with_children(pids: Iterable[int]) -> list[int]:
    found = list(pids)
    for pid in found:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            continue
        found.extend(int(child) for child in children)
    return found


def printed(*arguments: str | Path) -> str:
    """What Python prints, run with `arguments`. Raises BenchError."""
    command = [str(part) for part in python(*arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def python(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, *arguments]
