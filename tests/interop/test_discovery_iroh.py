"""Real iroh endpoints, unchanged and with their public defaults, use our discovery server: in a
network of their own, where the system's resolver is ours."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.namespace import needs_namespaces, run_in_namespace

pytest.importorskip("iroh", reason="the iroh package has no wheel for this platform")

pytestmark = [pytest.mark.interop, pytest.mark.netns, needs_namespaces]


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    return path


def play(scene: str, resolv_conf: Path, **environment: str) -> Any:
    return run_in_namespace(
        "tests.interop.discovery_scene", scene, resolv_conf=resolv_conf, environment=environment
    )


def test_a_real_endpoint_finds_a_peer_by_its_id_alone(resolv_conf: Path) -> None:
    seen = play("connects", resolv_conf)
    assert seen["same"] is True
    assert seen["lookups"] == 1


def test_the_staging_origin_is_served_too(resolv_conf: Path) -> None:
    assert play("connects", resolv_conf, IROH_FORCE_STAGING_RELAYS="1")["same"] is True


def test_a_record_that_appears_while_it_is_asked_for_is_found(resolv_conf: Path) -> None:
    seen = play("finds_later", resolv_conf)
    assert seen["same"] is True
    assert seen["lookups"] > 3


@pytest.mark.slow
def test_a_real_endpoint_is_told_that_nobody_is_known(resolv_conf: Path) -> None:
    seen = play("knows_nobody", resolv_conf)
    assert "addressing information" in seen["reason"]
    assert seen["lookups"] == 7
