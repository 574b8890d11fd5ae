"""`tunnel-rs status`, `ls`, `kill`, `reload`, `ping`, `add` and `rm`: see and steer what runs."""

import functools
import json as json_text
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tunnel_rs.cli import event_loop, status_lines
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.programs import Choice, Program, kind
from tunnel_rs.cli.wording import printable
from tunnel_rs.errors import ExitStatus, UsageError
from tunnel_rs.values import SocketAddr

F = TypeVar("F", bound=Callable[..., Any])

SERVER, CLIENT = "server", "client"
ANY = (SERVER, CLIENT)


def chosen(function: F) -> Callable[..., Any]:
    """Options that choose a program; the function gets a `Choice` as `choice`."""

    @functools.wraps(function)
    def command(*args: Any, socket: Path | None, pid: int | None, **given: Any) -> Any:
        return function(*args, choice=Choice(socket, pid), **given)

    command = click.option(
        "--pid", metavar="PID", type=click.IntRange(1), help="The program with this process id."
    )(command)
    return click.option(
        "--socket",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The program with this control socket.",
    )(command)


@click.command()
@click.option("--web", is_flag=True, help="Serve a page that shows it, until Ctrl-C.")
@click.option(
    "--web-port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port of the page on 127.0.0.1; default: any free one.",
)
@chosen
@output_options(json=True)
def status(console: Console, web: bool, web_port: int, choice: Choice) -> ExitStatus:
    """Show what the servers and clients of this user are doing.

    Fails when none runs. With --web it prints a URL for a browser on this machine; keep it to
    yourself, as whoever has it can look.

    \b
    Examples:
      tunnel-rs status
      tunnel-rs status --json
      tunnel-rs status --web
    """
    if web:
        return _serve_page(console, choice, SocketAddr("127.0.0.1", web_port))
    return show(console, choice, status_lines.lines)


@click.command()
@chosen
@output_options(json=True)
def ls(console: Console, choice: Choice) -> ExitStatus:
    """List tunnels and open sessions.

    Each with the number to remove or kill it by.

    \b
    Example:
      tunnel-rs ls
    """
    return show(console, choice, _listed)


@click.command()
@click.argument("what", metavar="SESSION|CLIENT")
@chosen
@output_options(json=True)
def kill(console: Console, what: str, choice: Choice) -> None:
    """End a session or a client's connection.

    A session is named by its number, a client by its id, of which ten characters are enough. A
    client may come again: to keep it out take its token away, and `tunnel-rs reload`.

    \b
    Examples:
      tunnel-rs kill 12
      tunnel-rs kill d75a980182
    """
    if what.isdecimal() and len(what) < 10:
        program = choice.find_one(os.environ, ANY)
        answer = program.put({"command": "kill", "session": int(what)})
        done(console, answer, f"session {what} was ended")
        return
    program = choice.find_one(os.environ, [SERVER])
    answer = program.put({"command": "kill", "peer": what})
    done(console, answer, f"{answer.get('clients')} connection(s) of {what} were ended")


@click.command()
@chosen
@output_options(json=True)
def reload(console: Console, choice: Choice) -> None:
    """Make a server read its settings again.

    Tokens, client keys and allow-lists, as SIGHUP does. When anything is wrong with them it is
    told, and nothing changes.

    \b
    Example:
      tunnel-rs reload
    """
    answer = choice.find_one(os.environ, [SERVER]).put({"command": "reload"})
    done(console, answer, f"settings read again: {answer.get('settings')}")


@click.command()
@chosen
@output_options(json=True)
def ping(console: Console, choice: Choice) -> None:
    """Measure the round trip to the peers.

    To its server from a client, to all its clients from a server.

    \b
    Example:
      tunnel-rs ping
    """
    show_round_trips(console, choice.find_one(os.environ, ANY))


def show_round_trips(console: Console, program: Program) -> None:
    """Raises LocalError when it has nobody to ask."""
    answer = program.put({"command": "ping"})
    times = answer.get("seconds", {})
    text = "\n".join(f"{peer}: {1000 * seconds:.2f} ms" for peer, seconds in times.items())
    done(console, answer, text)


@click.command()
@click.option("-s", "--source", metavar="URL", required=True, help="What to reach.")
@click.option("-t", "--target", metavar="ADDR", required=True, help="Where to listen for it.")
@chosen
@output_options(json=True)
def add(console: Console, source: str, target: str, choice: Choice) -> None:
    """Add a tunnel to a running client, until it ends.

    \b
    Example:
      tunnel-rs add -s tcp://127.0.0.1:5432 -t 127.0.0.1:15432
    """
    request = {"command": "add", "source": source, "target": target}
    answer = choice.find_one(os.environ, [CLIENT]).put(request)
    tunnel = answer.get("tunnel", {})
    addresses = ", ".join(tunnel.get("addresses", ()))
    done(console, answer, f"tunnel {tunnel.get('tunnel')}: {addresses} -> {source}")


@click.command()
@click.argument("tunnel", metavar="NUMBER|ADDR")
@chosen
@output_options(json=True)
def rm(console: Console, tunnel: str, choice: Choice) -> None:
    """Take a tunnel away from a running client. TCP connections it has taken go on.

    \b
    Examples:
      tunnel-rs rm 2
      tunnel-rs rm 127.0.0.1:15432
    """
    wanted: object = int(tunnel) if tunnel.isdecimal() and len(tunnel) < 10 else tunnel
    answer = choice.find_one(os.environ, [CLIENT]).put({"command": "rm", "tunnel": wanted})
    removed = answer.get("tunnel", {})
    addresses = ", ".join(removed.get("addresses", ()))
    done(console, answer, f"tunnel {removed.get('tunnel')} on {addresses} was removed")


def _serve_page(console: Console, choice: Choice, address: SocketAddr) -> ExitStatus:
    # Imported here: it brings an HTTP server along.
    from tunnel_rs.cli.status_page import serve_page

    def ask() -> list[Mapping[str, Any]]:
        return [program.status for program in choice.find_all(os.environ)]

    ask()  # a socket that was named and is wrong is told at once
    if console.writes_data:
        raise UsageError("--web cannot be given beside --json")
    return event_loop.run(serve_page(address, ask, console.data, console.report))


def show(
    console: Console,
    choice: Choice,
    lines: Callable[[Mapping[str, Any]], Iterator[str]],
    roles: Sequence[str] = (),
) -> ExitStatus:
    """What each of the chosen programs, of those of `roles` alone if there are some, is doing, in
    its `lines`; also which do not answer, and that there is none."""
    silent: list[str] = []
    programs = choice.find_all(os.environ, roles, silent.append)
    for program in programs:
        if console.writes_data:
            _event(console, "status", program.status)
        else:
            for line in lines(program.status):
                console.data(printable(line))
    for text in silent:
        console.remark(text)
    if not programs and not silent and not console.writes_data:
        kinds = " or ".join(map(kind, roles or ANY))
        console.remark(f"no {kinds} of this user is running")
    return ExitStatus.DONE if programs else ExitStatus.FAILURE


def _listed(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"{kind(answer.get('role'))} {answer.get('pid')}"
    for tunnel in answer.get("tunnels", ()):
        yield f"  {status_lines.tunnel_line(tunnel)}"
    for peer in answer.get("peers", ()):
        who = peer.get("name") or str(peer.get("peer"))[:10]
        for session in peer.get("sessions", ()):
            yield f"  {status_lines.session_line(session)}, by {who}"


def done(console: Console, answer: Mapping[str, Any], text: str) -> None:
    """Show what a program has answered: itself with --json, else `text`."""
    if console.writes_data:
        _event(console, "done", answer)
    else:
        for line in text.split("\n"):
            console.data(printable(line))


def _event(console: Console, name: str, values: Mapping[str, Any]) -> None:
    console.data(json_text.dumps({"event": name, **values}, separators=(",", ":")))
