"""Run `tunnel-rs` inside the test process, from its arguments to its exit status."""

import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from unittest.mock import patch

import click
import pytest

from tunnel_rs.cli import exits
from tunnel_rs.cli.main import PROGRAM, cli


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status, and what went to stdout and stderr."""

    status: int
    out: str
    err: str


def tunnel_rs(*arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    """Run with nothing but `environ` in the environment (and HOME=/nowhere, and no control
    socket)."""
    own = {"HOME": "/nowhere", "TUNNEL_RS_CONTROL_SOCKET": "none"}
    return run(arguments, {**own, **(environ or {})})


def import_anew(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let `module` be imported again in this test, with the fakes there are for what it imports;
    afterwards it is what it was before."""
    package, _, name = module.rpartition(".")
    # Both places that an import is remembered in.
    for known, key in ((sys.modules, module), (vars(sys.modules[package]), name)):
        monkeypatch.setitem(known, key, ModuleType(module))
        del known[key]


def run_vpn(*arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    """The same with `tunnel-rs-vpn`."""
    from tunnel_rs.cli import vpn

    environment = {"HOME": "/nowhere", **(environ or {})}
    return run(arguments, environment, program=vpn.cli, name=vpn.PROGRAM)


def run_ice(*arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    """The same with `tunnel-rs-ice`."""
    from tunnel_rs.cli import ice

    environment = {"HOME": "/nowhere", **(environ or {})}
    return run(arguments, environment, program=ice.cli, name=ice.PROGRAM)


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    program: click.Command = cli,
    name: str = PROGRAM,
) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with patch.dict("os.environ", environ, clear=True), redirect_stdout(out), redirect_stderr(err):
        status = exits.run(program, list(arguments), name)
    return Ended(status, out.getvalue(), err.getvalue())
