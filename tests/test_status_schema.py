"""`docs/status.schema.json` is what the programs tell of themselves."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.support.json_schema import problems
from tests.support.observed import PEER, FakeObserved
from tunnel_rs import reports
from tunnel_rs.cli.overview import Overview
from tunnel_rs.cli.plain import plain

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCHEMA = json.loads((DOCS / "status.schema.json").read_text())


OF_A_VPN = frozenset(
    {
        *("device", "addresses", "routes", "connected", "peer", "path", "rtt_ms", "dropped"),
        *("sent_packets", "sent_bytes", "received_packets", "received_bytes"),
        *("nat64_flows", "clients"),
    }
)


def told(*, full: bool) -> Any:
    """What a program tells, as it comes out of JSON."""
    now = [0.0]
    view = Overview("tunnel-rs", "server", wall=lambda: 0.0, now=lambda: now[0])
    if full:
        view.observe(PEER, FakeObserved())
        view.report(reports.ServerReady(PEER, (), ()))
        view.report(reports.ClientRefused(None, "192.0.2.1:5", "no"))
        for second in range(3):
            now[0] = float(second)
            view.sample()
    return json.loads(json.dumps(plain(view.status())))


@pytest.mark.parametrize("full", [False, True], ids=["at the start", "at work"])
def test_a_status_fits_the_schema(full: bool) -> None:
    assert problems(told(full=full), SCHEMA, SCHEMA) == []


def test_every_field_of_a_status_is_required_and_described() -> None:
    page = (DOCS / "STATUS-JSON.md").read_text()
    for part in (SCHEMA, *(SCHEMA["$defs"][name] for name in ("peer", "session", "path"))):
        for name in part["properties"]:
            assert f"`{name}`" in page or name == "event"
            optional = {"event", *OF_A_VPN} if part is SCHEMA else set()
            assert name in part["required"] or name in optional


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (["state"], "fine"),
        (["pid"], 0),
        (["pid"], True),
        (["endpoint_id"], "xyz"),
        (["peers", 0, "paths"], {}),
        (["peers", 0, "paths", 0, "kind"], "magic"),
        (["peers", 0, "sessions", 0, "source"], "http://a"),
        (["history", 0], [1.0]),
        (["counts", "warnings"], -1),
        (["more"], 1),
    ],
)
def test_what_does_not_fit_is_found(place: list[Any], wrong: Any) -> None:
    status = deepcopy(told(full=True))
    inner = status
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = wrong
    assert problems(status, SCHEMA, SCHEMA)


def test_a_missing_field_is_found() -> None:
    status = told(full=True)
    del status["peers"][0]["name"]
    assert problems(status, SCHEMA, SCHEMA) == ["/peers/0: name is missing"]
