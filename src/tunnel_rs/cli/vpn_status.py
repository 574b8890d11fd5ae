"""`tunnel-rs-vpn status`."""

import json as json_text
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.programs import silence
from tunnel_rs.cli.status_lines import errors_line, penalties_line
from tunnel_rs.cli.wording import printable
from tunnel_rs.errors import ExitStatus

PATTERN = "tunnel-rs-vpn-*"


@click.command()
@output_options(json=True)
def status(console: Console) -> ExitStatus:
    """Show what the VPN servers and clients of this user are doing.

    Fails when none runs.

    \b
    Example:
      tunnel-rs-vpn status --json
    """
    from tunnel_rs.net.control_socket import ask_all, runtime_directory

    answers = ask_all(runtime_directory(os.environ), PATTERN)
    for path in answers.silent:
        console.remark(silence(path))
    for answer in answers.given.values():
        if console.writes_data:
            console.data(json_text.dumps({"event": "status", **answer}, separators=(",", ":")))
        else:
            for line in lines(answer):
                console.data(printable(line))
    if not answers.given and not answers.silent and not console.writes_data:
        console.remark("no VPN server or client of this user is running")
    return ExitStatus.DONE if answers.given else ExitStatus.FAILURE


def lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """One program's answer, for people."""
    addresses = ", ".join(answer.get("addresses", ())) or "no address"
    if answer.get("role") == "vpnserver":
        clients = answer.get("clients", [])
        yield f"server on {answer.get('device')}: {addresses}; {len(clients)} client(s)"
        for client in clients:
            addresses = ", ".join(client.get("addresses", ()))
            name = f" ({client['name']})" if client.get("name") else ""
            yield f"  {addresses}{name}: {_way(client)}"
            yield f"    {_traffic(client)}"
        if answer.get("dropped"):
            yield f"  dropped: {_drops(answer['dropped'])}"
        yield from _wrong(answer)
        return
    way = _way(answer) if answer.get("connected") else "not connected"
    yield f"client on {answer.get('device')}: {addresses}; {way}"
    yield f"  {_traffic(answer)}"
    yield from _wrong(answer)


def _wrong(answer: Mapping[str, Any]) -> Iterator[str]:
    for line in (errors_line(answer), penalties_line(answer)):
        if line:
            yield f"  {line}"


def _way(values: Mapping[str, Any]) -> str:
    rtt = values.get("rtt_ms")
    trip = "" if rtt is None else f", round trip {rtt} ms"
    return f"peer {str(values.get('peer'))[:10]} at {values.get('path')}{trip}"


def _traffic(values: Mapping[str, Any]) -> str:
    text = (
        f"sent {values.get('sent_packets')} packets ({values.get('sent_bytes')} B), "
        f"received {values.get('received_packets')} ({values.get('received_bytes')} B)"
    )
    dropped = values.get("dropped")
    return f"{text}; dropped: {_drops(dropped)}" if dropped else text


def _drops(dropped: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
