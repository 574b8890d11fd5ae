"""The picture that `tunnel-rs top` draws, from what the programs tell of themselves.

Everything is put in as `Text`, which takes no markup: parts of it were chosen by peers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tunnel_rs.cli.status_lines import (
    errors_line,
    is_server,
    path_line,
    peer_line,
    penalties_line,
    rate,
    session_line,
    size,
    span,
    tunnel_line,
)
from tunnel_rs.cli.wording import printable

Answer = Mapping[str, Any]

MAX_SESSIONS = 30
"""Of each program; the busiest since they began."""

_BARS = " ▁▂▃▄▅▆▇█"
_PLOT = 60
"""Seconds that are drawn, where there is room."""
_BESIDE_PLOT = 22
"""Characters of the words beside a plot."""
_WIDE = 100
"""Columns that tables need; in fewer there are lines."""

_STATE_STYLES = {"ready": "green", "stopping": "red"}


def view(programs: Sequence[Answer]) -> RenderableType:
    """All programs, one below the other."""
    if not programs:
        return Text("no server or client of this user is running", style="yellow")
    return Group(*map(_Program, programs))


class _Program:
    """One program, drawn for the terminal as wide as it is now."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield from _program(self._answer, options.max_width)


def _program(answer: Answer, width: int) -> Iterator[RenderableType]:
    state = str(answer.get("state"))
    title = _text(f"{answer.get('program')} {answer.get('role')} {answer.get('pid')}", "bold")
    title.append_text(_text(f"  {state}", _STATE_STYLES.get(state, "yellow")))
    if answer.get("reason"):
        title.append_text(_text(f" ({answer['reason']})"))
    yield Rule(title, align="left", style="bright_black")
    yield _facts(answer)
    yield from _plots(answer, min(_PLOT, max(width - _BESIDE_PLOT, 1)))
    yield from _tables(answer) if width >= _WIDE else _lists(answer)
    for line in (errors_line(answer), penalties_line(answer)):
        if line:
            yield _text(line, "yellow")


def _tables(answer: Answer) -> Iterator[RenderableType]:
    if answer.get("tunnels"):
        yield _tunnels(answer)
    if answer.get("peers"):
        yield _peers(answer)
        if sessions := _sessions(answer):
            yield sessions


def _lists(answer: Answer) -> Iterator[RenderableType]:
    """The same where tables have no room."""
    for tunnel in answer.get("tunnels", ()):
        yield _text(tunnel_line(tunnel))
    for peer in answer.get("peers", ()):
        yield _text(peer_line(answer, peer), "bold")
        for path in peer.get("paths", ()):
            if path.get("active"):
                yield _text(f"  {path_line(path)}")
    busiest, more = _busiest(answer)
    for _, session in busiest:
        yield _text(f"  {session_line(session)}")
    if more:
        yield _text(f"  and {more} more")


def _facts(answer: Answer) -> Text:
    return _text(
        f"up {span(answer.get('seconds'))}   "
        f"sessions {answer.get('sessions_open')} of {answer.get('sessions_begun')}   "
        f"sent {size(answer.get('sent'))}   received {size(answer.get('received'))}"
    )


def _plots(answer: Answer, seconds: int) -> Iterator[Text]:
    history = [pair for pair in answer.get("history", ()) if len(pair) == 2][-seconds:]
    for index, name in enumerate(("sent", "received")):
        now = answer.get(("send_rate", "receive_rate")[index])
        bars = sparkline([pair[index] for pair in history])
        yield _text(f"{name:>8} {bars:>{seconds}} {rate(now)}", ("green", "blue")[index])


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, as high as it is beside the largest."""
    top = max(values, default=0)
    if top <= 0:
        return _BARS[1] * len(values)
    steps = len(_BARS) - 2
    return "".join(_BARS[1 + round(steps * max(value, 0) / top)] for value in values)


def _peers(answer: Answer) -> Table:
    server = is_server(answer)
    columns = ["client" if server else "server", "for", "path", "round trip"]
    table = _table(columns, ["sent", "now", "received", "now"])
    for peer in answer["peers"]:
        name = peer.get("name")
        short = str(peer.get("peer"))[:10]
        paths = [path for path in peer.get("paths", ()) if path.get("active")]
        table.add_row(
            _text("\n".join([f"{short} {name}" if name else short, *peer.get("addresses", ())])),
            _text(span(peer.get("seconds"))),
            _text("\n".join(f"{path.get('address')} {path.get('kind')}" for path in paths)),
            _text("\n".join(_trip(path.get("rtt")) for path in paths)),
            _text(size(peer.get("sent"))),
            _text(rate(peer.get("send_rate"))),
            _text(size(peer.get("received"))),
            _text(rate(peer.get("receive_rate"))),
        )
    return table


def _trip(rtt: object) -> str:
    return f"{1000 * rtt:.1f} ms" if isinstance(rtt, int | float) else "-"


def _busiest(answer: Answer) -> tuple[list[tuple[object, Answer]], int]:
    """The sessions that have moved most, each with whose it is, and how many there are beside."""
    found = [
        (peer.get("name") or str(peer.get("peer"))[:10], session)
        for peer in answer.get("peers", ())
        for session in peer.get("sessions", ())
    ]
    found.sort(key=lambda pair: -(pair[1].get("sent", 0) + pair[1].get("received", 0)))
    return found[:MAX_SESSIONS], max(0, len(found) - MAX_SESSIONS)


def _sessions(answer: Answer) -> Table | None:
    found, more = _busiest(answer)
    if not found:
        return None
    table = _table(["session", "of", "source", "target", "for"], ["sent", "received"])
    for who, session in found:
        table.add_row(
            _text(str(session.get("session"))),
            _text(str(who)),
            _text(str(session.get("source"))),
            _text(str(session.get("target") or "-")),
            _text(span(session.get("seconds"))),
            _text(size(session.get("sent"))),
            _text(size(session.get("received"))),
        )
    if more:
        table.caption = f"and {more} more"
    return table


def _tunnels(answer: Answer) -> Table:
    table = _table(["tunnel", "listens on", "leads to"], [])
    for tunnel in answer["tunnels"]:
        table.add_row(
            _text(str(tunnel.get("tunnel"))),
            _text(", ".join(tunnel.get("addresses", ()))),
            _text(str(tunnel.get("source") or "SOCKS5 proxy")),
        )
    return table


def _table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bright_black")
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _text(text: str, style: str = "") -> Text:
    lines = "\n".join(map(printable, text.split("\n")))
    return Text(lines, style=style)
