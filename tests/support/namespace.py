"""Runs a Python module in network and mount namespaces of its own (needs root, Linux)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="needs Linux, root and unshare",
)

_SET_UP = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


def run_in_namespace(
    module: str, *arguments: str, resolv_conf: Path, environment: dict[str, str] | None = None
) -> Any:
    """What the module prints on stdout as JSON. It sees loopback alone, and `resolv_conf` in the
    place of the system's."""
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", _SET_UP, "sh", resolv_conf, sys.executable]
        + ["-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"src{os.pathsep}."} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
