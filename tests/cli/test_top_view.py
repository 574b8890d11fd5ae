import io
from typing import Any

import pytest
from rich.console import Console
from tests.support.observed import PEER, FakeObserved

from tunnel_rs import reports
from tunnel_rs.cli.overview import Overview
from tunnel_rs.cli.plain import plain
from tunnel_rs.cli.top_view import MAX_SESSIONS, sparkline, view


def told(role: str = "server") -> Any:
    now = [0.0]
    overview = Overview("tunnel-rs", role, wall=lambda: 0.0, now=lambda: now[0])
    observed = FakeObserved()
    overview.observe(PEER, observed)
    overview.report(reports.ServerReady(PEER, (), ()))
    overview.report(reports.ClientRefused(None, "192.0.2.9:1", "no"))
    for second in range(3):
        now[0] = float(second)
        observed.moved = {3: (1000 * second, 0)}
        observed.sessions.totals = (1000 * second, 0)
        overview.sample()
    values = plain(overview.status())
    assert isinstance(values, dict)
    return {**values, "pid": 42}


def drawn(*programs: Any, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view(programs))
    return out.getvalue()


def test_without_a_program_that_is_said() -> None:
    assert drawn() == "no server or client of this user is running\n"


def test_a_program_is_drawn_with_all_there_is_to_know() -> None:
    text = drawn(told())
    for part in (
        "tunnel-rs server 42  ready",
        "sessions 2 of 7",
        "██ 8.0 kbit/s",
        "127.0.0.1:2222",
        "d75a980182 alice",
        "192.0.2.1:4433 direct",
        "12.5 ms",
        "tcp://127.0.0.1:22",
        "errors: 1 clients refused",
        "slowed down after wrong tokens: all who are new",
    ):
        assert part in text
    assert "relay.example" not in text, "a path that is not in use"


def test_several_programs_stand_one_below_the_other() -> None:
    text = drawn(told(), {**told("client"), "pid": 43, "reason": "no answer"})
    assert text.index("server 42") < text.index("client 43") < text.index("(no answer)")


def test_it_fits_a_narrow_terminal() -> None:
    lines = drawn(told(), width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert len([line for line in lines if "█" in line]) == 1, "a plot takes one line"
    assert any(line.startswith("client d75a980182 (alice), 1 min 5 s: ") for line in lines)
    assert any(line.startswith("  session 4: tcp://127.0.0.1:22") for line in lines)


def test_of_many_sessions_the_busiest_are_drawn() -> None:
    answer = told()
    (session,) = answer["peers"][0]["sessions"]
    answer["peers"][0]["sessions"] = [
        {**session, "session": 1000 + number, "sent": number} for number in range(50)
    ]
    for drawing in (drawn(answer), drawn(answer, width=60)):
        assert "1049" in drawing and "1000" not in drawing
        assert f"and {50 - MAX_SESSIONS} more" in drawing


def test_nothing_that_is_told_is_taken_for_markup_or_control() -> None:
    answer = told()
    answer["peers"][0]["name"] = "[red]a[/red]\x1b[2J"
    assert "[red]a[/red]\\x1b[2J" in drawn(answer)


def test_an_answer_that_tells_nothing_is_no_error() -> None:
    assert drawn({}) and drawn({"peers": [{}], "tunnels": [{}], "history": [[1]]})


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0, 0], "▁▁"), ([0, 1, 2], "▁▅█"), ([7], "█"), ([-5, 5], "▁█")],
)
def test_a_sparkline_is_as_high_as_its_values(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars
