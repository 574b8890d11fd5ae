from typing import Any

import pytest
from tests.support.observed import PEER, FakeObserved

from tunnel_rs import reports
from tunnel_rs.cli import status_lines
from tunnel_rs.cli.overview import Overview
from tunnel_rs.cli.plain import plain


def answer(role: str = "server") -> dict[str, Any]:
    view = Overview("tunnel-rs", role, wall=lambda: 0.0, now=lambda: 5.0)
    view.observe(PEER, FakeObserved())
    view.report(reports.ServerReady(PEER, (), ()))
    view.report(reports.ClientRefused(None, "192.0.2.9:1", "no"))
    values = plain(view.status())
    assert isinstance(values, dict)
    return {**values, "pid": 42}


def test_a_program_is_told_with_peers_paths_sessions_tunnels_and_errors() -> None:
    assert list(status_lines.lines(answer())) == [
        "server 42: ready, up 0 s; 2 of 7 session(s) open; 1.0 kB out, 2.0 kB in",
        "  tunnel 1: 127.0.0.1:2222 -> tcp://127.0.0.1:22",
        "  client d75a980182 (alice), 1 min 5 s: 10 B out, 20 B in",
        "    path 192.0.2.1:4433: direct, 12.5 ms",
        "    path https://relay.example/: relay, not in use",
        "    session 4: tcp://127.0.0.1:22, 1 s, 10 B out, 20 B in",
        "  errors: 1 clients refused; last: connection from 192.0.2.9:1: refused: no",
        "  slowed down after wrong tokens: all who are new (120 failures, 1 min 5 s left), "
        "192.0.2.7 (4 failures, 15 s left) and 5 more",
    ]


def test_why_a_client_is_not_connected_is_told() -> None:
    values = {**answer("client"), "state": "connecting", "reason": "no answer", "peers": []}
    assert "client 42: connecting (no answer), up" in status_lines.headline(values)


def test_rates_are_told_while_something_moves() -> None:
    moving = {"sent": 5, "received": 6, "send_rate": 1_250_000.0, "receive_rate": 0.0}
    assert status_lines.moved(moving) == "5 B out, 6 B in (now 10.0 Mbit/s out, 0 bit/s in)"
    still = {**moving, "send_rate": 0.0}
    assert status_lines.moved(still) == "5 B out, 6 B in"


def test_where_a_name_led_is_told() -> None:
    session = {"session": 1, "source": "tcp://db:22", "target": "10.0.0.5:22", "seconds": 1}
    assert "tcp://db:22 -> 10.0.0.5:22, 1 s" in status_lines.session_line(session)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (10**18, "1000 PB"),
        (None, "?"),
    ],
)
def test_sizes_have_three_digits(count: object, text: str) -> None:
    assert status_lines.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7500, "2 h 5 min"), (273_700, "3 d 4 h")],
)
def test_spans_have_two_units(seconds: float, text: str) -> None:
    assert status_lines.span(seconds) == text


def test_an_answer_that_tells_nothing_is_no_error() -> None:
    assert list(status_lines.lines({}))
    assert list(status_lines.lines({"peers": [{}], "tunnels": [{}]}))
