"""The runtime that every test lives in: see `tests.support.hostile`."""

import pytest

from tunnel_rs.net import quic
from tunnel_rs.proto.multipath import MultipathEngine

pytest_plugins = ["tests.support.hostile"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stock-engine", action="store_true", help="endpoints in this process go without fast path"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--stock-engine"):
        quic.FastEngine = MultipathEngine  # type: ignore[assignment, misc]
