"""Run `tunnel-rs` inside the test process, from its arguments to its exit status."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from tunnel_rs.cli import exits
from tunnel_rs.cli.main import PROGRAM, cli


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status, and what went to stdout and stderr."""

    status: int
    out: str
    err: str


def tunnel_rs(*arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    """Run with nothing but `environ` (and HOME=/nowhere) in the environment."""
    return run(arguments, {"HOME": "/nowhere", **(environ or {})})


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with patch.dict("os.environ", environ, clear=True), redirect_stdout(out), redirect_stderr(err):
        status = exits.run(cli, list(arguments), PROGRAM)
    return Ended(status, out.getvalue(), err.getvalue())
