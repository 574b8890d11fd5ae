"""The runtime that every test lives in: see `tests.support.hostile`."""

import sys
from collections.abc import Generator
from typing import TypeVar

import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net import quic
from tunnel_rs.proto.multipath import MultipathEngine

pytest_plugins = ["tests.support.hostile"]

R = TypeVar("R", pytest.CollectReport, pytest.TestReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stock-engine", action="store_true", help="endpoints in this process go without fast path"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--stock-engine"):
        quic.FastEngine = MultipathEngine  # type: ignore[assignment, misc]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    found = getattr(report, "call", None)
    return _without_nostr_keys(report, found and found.excinfo)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _without_nostr_keys(report, call.excinfo)


def _without_nostr_keys(report: R, caught: pytest.ExceptionInfo[BaseException] | None) -> R:
    """On a Python without coincurve, what needs a Nostr key is skipped, and says so."""
    error = caught.value if caught and sys.version_info >= (3, 14) else None
    if isinstance(error, LocalError) and str(error).startswith("Nostr keys need"):
        report.outcome = "skipped"
        report.longrepr = (report.nodeid, 0, f"Skipped: {error}")
    return report
