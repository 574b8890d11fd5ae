"""The benches are run by hand; here only that their programs start and say what they take."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(sys.platform == "win32", reason="the benches read /proc")
@pytest.mark.parametrize("program", ["figures.py", "plot.py", "udp.py", "vpn.py", "wire.py"])
def test_a_bench_explains_its_options(program: str) -> None:
    command = [sys.executable, str(ROOT / "bench" / program), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and "--" in done.stdout
