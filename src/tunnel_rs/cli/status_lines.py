"""What a running program told of itself, in lines for people.

The answer may come from another version of this program: what it does not tell is left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tunnel_rs.cli.programs import kind

Answer = Mapping[str, Any]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_PENALTIES = 5
"""Sources that are named."""
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def lines(answer: Answer) -> Iterator[str]:
    """A program, its peers with their sessions, its tunnels, and what went wrong."""
    yield headline(answer)
    for tunnel in answer.get("tunnels", ()):
        yield f"  {tunnel_line(tunnel)}"
    for peer in answer.get("peers", ()):
        yield f"  {peer_line(answer, peer)}"
        for path in peer.get("paths", ()):
            yield f"    {path_line(path)}"
        for session in peer.get("sessions", ()):
            yield f"    {session_line(session)}"
    for line in (errors_line(answer), penalties_line(answer)):
        if line:
            yield f"  {line}"


def headline(answer: Answer) -> str:
    state = str(answer.get("state"))
    if answer.get("reason"):
        state = f"{state} ({answer['reason']})"
    who = f"{kind(answer.get('role'))} {answer.get('pid')}"
    return (
        f"{who}: {state}, up {span(answer.get('seconds'))}; "
        f"{answer.get('sessions_open')} of {answer.get('sessions_begun')} session(s) open; "
        f"{moved(answer)}"
    )


def is_server(answer: Answer) -> bool:
    """Whether the peers are clients; of a VPN, too."""
    return str(answer.get("role")).endswith("server")


def peer_line(answer: Answer, peer: Answer) -> str:
    theirs = "client" if is_server(answer) else "server"
    name = f" ({peer['name']})" if peer.get("name") else ""
    has = "".join(f", {address}" for address in peer.get("addresses", ()))
    who = f"{theirs} {str(peer.get('peer'))[:10]}{name}{has}"
    return f"{who}, {span(peer.get('seconds'))}: {moved(peer)}"


def path_line(path: Answer) -> str:
    rtt = path.get("rtt")
    trip = f", {1000 * rtt:.1f} ms" if isinstance(rtt, int | float) else ""
    use = "" if path.get("active") else ", not in use"
    return f"path {path.get('address')}: {path.get('kind')}{trip}{use}"


def session_line(session: Answer) -> str:
    target = str(session.get("target") or "")
    leads = f" -> {target}" if target and target not in str(session.get("source")) else ""
    return (
        f"session {session.get('session')}: {session.get('source')}{leads}, "
        f"{span(session.get('seconds'))}, {moved(session)}"
    )


def errors_line(answer: Answer) -> str:
    """What went wrong how often, and last; empty when nothing did."""
    counts = answer.get("counts", {})
    wrong = ("refused", "failed", "lost", "warnings")
    told = [
        f"{count} {kind.replace('_', ' ')}"
        for kind, count in counts.items()
        if count and kind.endswith(wrong)
    ]
    if not told:
        return ""
    problems = answer.get("problems", ())
    last = f"; last: {problems[-1].get('text')}" if problems else ""
    return f"errors: {', '.join(told)}{last}"


def penalties_line(answer: Answer) -> str:
    """Who waits for answers after wrong tokens; empty when nobody does."""
    penalties = answer.get("penalties") or {}
    longest = list(penalties.get("longest", ()))[:_PENALTIES]
    if not longest:
        return ""
    more = penalties.get("sources", 0) - len(longest)
    told = ", ".join(map(penalty_text, longest)) + (f" and {more} more" if more > 0 else "")
    return f"slowed down after wrong tokens: {told}"


def penalty_text(penalty: Answer) -> str:
    """`192.0.2.7 (4 failures, 15 s left)`."""
    source = penalty.get("source")
    who = "all who are new" if source == "*" else source
    return f"{who} ({penalty.get('failures')} failures, {span(penalty.get('seconds'))} left)"


def tunnel_line(tunnel: Answer) -> str:
    addresses = ", ".join(tunnel.get("addresses", ()))
    return f"tunnel {tunnel.get('tunnel')}: {addresses} -> {tunnel.get('source') or 'SOCKS5 proxy'}"


def moved(values: Answer) -> str:
    """Bytes in both directions, and how fast they go."""
    text = f"{size(values.get('sent'))} out, {size(values.get('received'))} in"
    rates = values.get("send_rate"), values.get("receive_rate")
    if None in rates or not any(rates):
        return text
    return f"{text} (now {rate(rates[0])} out, {rate(rates[1])} in)"


def size(count: object) -> str:
    """`12.3 MB`."""
    if not isinstance(count, int | float):
        return "?"
    value = float(count)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def rate(per_second: object) -> str:
    """Bytes a second as bits, which is what links are sold in: `12.3 Mbit/s`."""
    if not isinstance(per_second, int | float):
        return "?"
    return size(8 * per_second).replace("B", "bit") + "/s"


def span(seconds: object) -> str:
    """`5 s`, `3 min`, `2 h 5 min`, `3 d 4 h`."""
    if not isinstance(seconds, int | float):
        return "?"
    left, words = int(seconds), list[str]()
    for length, unit in _SPANS:
        if left >= length:
            words.append(f"{left // length} {unit}")
            left %= length
    return " ".join(words[:2]) or "0 s"
