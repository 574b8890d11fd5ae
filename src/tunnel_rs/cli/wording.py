"""Reports in words: as a line for people, and as a JSON object for programs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum

from tunnel_rs import reports
from tunnel_rs.cli.plain import plain
from tunnel_rs.reports import Report


class Level(IntEnum):
    """How much a line matters; a console shows those from a level on."""

    DEBUG = 0
    DETAIL = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class Line:
    """Text for people; `color` is a click colour name or None."""

    level: Level
    text: str
    color: str | None = None


_NOTICE_LEVELS: Mapping[str, Level] = {
    "debug": Level.DEBUG,
    "info": Level.INFO,
    "warning": Level.WARNING,
}
_EVENT_NAMES: Mapping[type[Report], str] = {
    reports.ServerReady: "ready",
    reports.ServerStarting: "starting",
    reports.RelayReady: "ready",
    reports.DiscoveryReady: "ready",
    reports.VpnServerStarting: "starting",
}


def printable(text: str) -> str:
    """`text` on one line without control characters: a peer may have chosen parts of it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def line(report: Report) -> Line:
    """What people read about a report. Only those of a start have more than one line."""
    if isinstance(report, reports.ServerStarting):
        return Line(Level.INFO, _starting(report))
    if isinstance(report, reports.RelayReady):
        return Line(Level.INFO, _relay_ready(report), "green")
    if isinstance(report, reports.DiscoveryReady):
        return Line(Level.INFO, _discovery_ready(report), "green")
    if isinstance(report, reports.Notice):
        return _notice(report)
    if isinstance(report, reports.Stopping):
        return Line(Level.INFO, "stopping; press Ctrl-C again to end at once")
    if isinstance(report, reports.VpnServerStarting):
        return Line(Level.INFO, _vpn_starting(report))
    found = (
        _of_paths(report)
        or _of_server(report)
        or _of_client(report)
        or _of_session(report)
        or _of_vpn(report)
    )
    found = found or Line(Level.DEBUG, repr(report))
    return Line(found.level, printable(found.text), found.color)


def _starting(report: reports.ServerStarting) -> str:
    lines = [
        f"EndpointId: {report.endpoint_id}",
        f"Auth tokens: {report.auth_tokens} token(s) configured",
        f"Allowed TCP: {', '.join(report.allowed_tcp) or 'nothing'}",
        f"Allowed UDP: {', '.join(report.allowed_udp) or 'nothing'}",
        "On the client, with an auth token in place of TOKEN:",
        f"  {report.client_command}",
    ]
    return "\n".join(map(printable, lines))


def _relay_ready(report: reports.RelayReady) -> str:
    what = "HTTP (captive portal check only)" if report.https else "HTTP, without TLS"
    lines = [
        f"Relay is ready; {what}: {report.http}",
        *([f"HTTPS: {report.https}"] if report.https else []),
        *([f"QUIC address discovery: {report.quic} (UDP)"] if report.quic else []),
        *([f"Metrics: http://{report.metrics}/metrics"] if report.metrics else []),
        f"Access: {report.access}",
        *(f"Use it with: --relay-url {url}" for url in report.urls),
    ]
    return "\n".join(map(printable, lines))


def _discovery_ready(report: reports.DiscoveryReady) -> str:
    lines = [
        "Discovery server is ready",
        *([f"HTTP: {report.http}"] if report.http else []),
        *([f"HTTPS: {report.https}"] if report.https else []),
        *([f"DNS: {report.dns} (UDP and TCP), {', '.join(report.origins)}"] if report.dns else []),
        *([f"Metrics: http://{report.metrics}/metrics"] if report.metrics else []),
        f"Records: {report.data or 'in memory, gone when this ends'}",
        *(f"Use it with: --dns-server {url}" for url in report.urls),
    ]
    return "\n".join(map(printable, lines))


def _vpn_starting(report: reports.VpnServerStarting) -> str:
    lines = [
        f"EndpointId: {report.endpoint_id}",
        f"Auth tokens: {report.auth_tokens} token(s) configured",
        f"Device: {report.device} with {', '.join(report.addresses)}",
        "On the client, with an auth token in place of TOKEN:",
        f"  {report.client_command}",
    ]
    return "\n".join(map(printable, lines))


def _notice(report: reports.Notice) -> Line:
    level = _NOTICE_LEVELS.get(report.level, Level.INFO)
    prefix = "warning: " if level is Level.WARNING else ""
    color = {Level.WARNING: "yellow", Level.DEBUG: "bright_black"}.get(level)
    return Line(level, prefix + printable(report.text), color)


def _of_server(report: Report) -> Line | None:
    match report:
        case reports.ServerReady(ways=ways):
            reach = f" (reachable by {', '.join(ways)})" if ways else ""
            return Line(Level.INFO, f"Waiting for clients to connect...{reach}", "green")
        case reports.RelayOnline(relay):
            return Line(Level.INFO, f"online at relay {relay}", "green")
        case reports.ClientAuthenticated(peer, address, name):
            who = _named(peer.short, name)
            return Line(Level.INFO, f"client {who} at {address}: connected", "green")
        case reports.ClientRefused(peer, address, reason):
            who = f"client {peer.short} at {address}" if peer else f"connection from {address}"
            return Line(Level.WARNING, f"{who}: refused: {reason}", "yellow")
        case reports.ClientGone(peer, reason, name):
            return Line(Level.INFO, f"client {_named(peer.short, name)}: gone: {reason}")
    return None


def _named(peer: str, name: str) -> str:
    return f"{peer} ({name})" if name else peer


def _of_client(report: Report) -> Line | None:
    match report:
        case reports.Trying(way):
            return Line(Level.INFO, f"trying {way}")
        case reports.TunnelUp(peer, way, elapsed):
            text = f"tunnel to {peer.short} is up by {way} after {elapsed:.2f} s"
            return Line(Level.INFO, text, "green")
        case reports.TunnelLost(reason, retry_in):
            then = "giving up" if retry_in is None else f"trying again in {retry_in:.1f} s"
            return Line(Level.WARNING, f"tunnel is down: {reason}; {then}", "yellow")
        case reports.RelayLost(relay, reason):
            return Line(Level.WARNING, f"relay {relay} is lost: {reason}; trying again", "yellow")
        case reports.Listening(address, source):
            leads_to = f"{address} -> {source}" if source else f"{address} (SOCKS5 proxy)"
            return Line(Level.INFO, f"listening on {leads_to}")
    return None


def _of_paths(report: Report) -> Line | None:
    match report:
        case reports.PathChanged(way, rtt, before, peer):
            who = f"client {peer.short}: " if peer else ""
            time = "" if rtt is None else f", {_milliseconds(rtt)}"
            return Line(Level.INFO, f"{who}{way}{time} (was {before})", "green")
        case reports.PathsSeen(paths, peer):
            who = f"client {peer.short}: " if peer else ""
            return Line(Level.DETAIL, f"{who}paths: {', '.join(map(str, paths))}")
    return None


def _milliseconds(seconds: float) -> str:
    """With one digit behind the point where it matters."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _of_session(report: Report) -> Line | None:
    match report:
        case reports.SessionOpened(session, source):
            return Line(Level.DETAIL, f"session {session}: opened to {source}")
        case reports.SessionClosed(session, source, sent, received, reason):
            end = f": {reason}" if reason else ""
            text = f"session {session}: closed to {source}, {sent} B out, {received} B in{end}"
            return Line(Level.DETAIL, text)
        case reports.SessionRefused(source, reason):
            return Line(Level.WARNING, f"request for {source} refused: {reason}", "yellow")
    return None


def _of_vpn(report: Report) -> Line | None:
    match report:
        case reports.VpnClientJoined(peer, address, addresses, name):
            text = f"client {_named(peer.short, name)} at {address}: has {', '.join(addresses)}"
            return Line(Level.INFO, text, "green")
        case reports.VpnUp(device, addresses, routes):
            leads = f"; into it go {', '.join(routes)}" if routes else ""
            return Line(Level.INFO, f"{device} has {', '.join(addresses)}{leads}", "green")
    return None


def event(report: Report) -> str:
    """A report as one line of JSON: `{"event": name, ...fields}`; names are snake_case."""
    return _json(_fields(report))


def log_event(report: Report, time: str) -> str:
    """The same for a log: with `time` and how much it matters before it."""
    level = line(report).level.name.lower()
    return _json({"time": time, "level": level, **_fields(report)})


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _fields(report: Report) -> Mapping[str, object]:
    name = _EVENT_NAMES.get(type(report)) or _snake_case(type(report).__name__)
    values = {field.name: plain(getattr(report, field.name)) for field in fields(report)}
    return {"event": name, **values}


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
