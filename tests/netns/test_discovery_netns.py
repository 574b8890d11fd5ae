"""Our resolver with the system's resolver configuration, in a network of its own."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.namespace import needs_namespaces, run_in_namespace

pytestmark = [pytest.mark.netns, needs_namespaces]


def look_up(tmp_path: Path, resolv_conf: str) -> Any:
    path = tmp_path / "resolv.conf"
    path.write_text(resolv_conf)
    return run_in_namespace("tests.netns.discovery_scene", "look_up", resolv_conf=path)


def test_the_systems_resolver_is_used(tmp_path: Path) -> None:
    seen = look_up(tmp_path, "nameserver 127.0.0.1\n")
    assert seen["found"] == ["https://relay.example/"]
    assert seen["elapsed"] < 1


def test_a_first_resolver_that_is_dead_costs_a_second_at_most(tmp_path: Path) -> None:
    # 127.0.0.9 refuses at once; 192.0.2.1 is unreachable here.
    seen = look_up(tmp_path, "nameserver 127.0.0.9\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n")
    assert seen["found"] == ["https://relay.example/"]
    assert seen["elapsed"] < 3


@pytest.mark.slow
def test_without_any_resolver_the_reason_is_told(tmp_path: Path) -> None:
    seen = look_up(tmp_path, "nameserver 192.0.2.1\n")
    assert "no record of" in seen["found"][0]
    assert 3 <= seen["elapsed"] < 7
