"""`tunnel-rs service`."""

import getpass
import json as json_text
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from secrets import token_hex

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import config_path, output_options
from tunnel_rs.cli.service_access import find_account, steps_to_read
from tunnel_rs.cli.service_host import Host, Launchd, State, host_for
from tunnel_rs.cli.service_plan import KINDS, Plan, Scope, make_plan, service_name
from tunnel_rs.cli.systemd_unit import USER
from tunnel_rs.cli.wording import printable
from tunnel_rs.errors import ExitStatus, LocalError
from tunnel_rs.reports import Notice

_WRITTEN_BY_US = ("tunnel-rs service install", "<string>rs.tunnel.")
"""What our files hold, so that no other is removed."""

_kind = click.argument("kind", type=click.Choice(list(KINDS)))
_scope = click.option(
    "--system/--user",
    "system",
    default=False,
    help="For the machine, or (default) for this user, while logged in.",
)
_name = click.option(
    "--name", "instance", metavar="NAME", help="Tells a second service of the same kind apart."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def service() -> None:
    """Have systemd or launchd run a program.

    \b
    Examples:
      tunnel-rs service install server -c ~/.config/tunnel-rs/server.toml
      sudo tunnel-rs service install relay -c /etc/tunnel-rs/relay.toml --system
      tunnel-rs service status
    """


@service.command()
@_kind
@click.option(
    "-c",
    "--config",
    required=True,
    metavar="FILE",
    type=click.Path(),
    help="The configuration; it is checked first.",
)
@_scope
@_name
@click.option(
    "--run-as",
    metavar="USER",
    help=f"With --system: whose rights it has. Linux: {USER}; the VPN is always root's.",
)
@click.option("--print", "only_print", is_flag=True, help="Print the file, and change nothing.")
@click.option("--force", is_flag=True, help="Replace a file that is there and differs.")
@output_options()
def install(
    console: Console,
    kind: str,
    config: str,
    system: bool,
    instance: str | None,
    run_as: str | None,
    only_print: bool,
    force: bool,
) -> None:
    """Write the service file of KIND; nothing is started.

    \b
    Examples:
      tunnel-rs service install client -c client.toml --name office
      tunnel-rs service install server -c /etc/tunnel-rs/server.toml --system --print
    """
    scope = Scope.SYSTEM if system else Scope.USER
    plan = make_plan(KINDS[kind], scope, config_path(config), run_as=run_as, instance=instance)
    host = host_for(sys.platform, scope, os.environ)
    text = host.text(plan)
    if only_print:
        console.data(text.rstrip())
        return
    path = host.path(plan.name)
    done = "wrote" if _write(path, text, force) else "unchanged:"
    console.report(Notice("info", f"{done} {path}"))
    _tell_of_change(console, host)
    for step in next_steps(plan, host, sys.platform, getpass.getuser()):
        console.report(Notice("info", step))


def _write(path: Path, text: str, force: bool) -> bool:
    """Write a service file at once and whole. False: it was there already. Raises LocalError."""
    temporary = path.with_name(f".tunnel-rs-{token_hex(8)}.tmp")
    try:
        if path.exists() and path.read_text() == text:
            return False
        if path.exists() and not force:
            raise LocalError(f"{path} is there and differs; --force replaces it")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        raise _cannot("write", path, error) from None
    return True


def _tell_of_change(console: Console, host: Host) -> None:
    try:
        event_loop.run(host.files_changed())
    except LocalError as error:
        console.report(Notice("warning", f"the service manager was not told of it: {error}"))


def _cannot(do: str, path: Path, error: Exception) -> LocalError:
    if isinstance(error, PermissionError):
        return LocalError(f"cannot {do} {path}: permission denied; run it as root (sudo)")
    cause = error.strerror if isinstance(error, OSError) else type(error).__name__
    return LocalError(f"cannot {do} {path}: {cause}")


def next_steps(plan: Plan, host: Host, platform: str, user: str) -> Iterator[str]:
    """What is left to do, one command a line."""
    steps: list[str] = []
    if platform == "linux" and plan.scope is Scope.SYSTEM and not plan.kind.is_vpn:
        runner = plan.run_as or USER
        steps += steps_to_read(plan.readable, runner, find_account(runner))
    if platform == "linux" and plan.scope is Scope.USER:
        steps.append(f"loginctl enable-linger {user}    (to run while you are logged out)")
    if isinstance(host, Launchd) and plan.scope is Scope.SYSTEM and plan.run_as is not None:
        log = host.log(plan.name)
        steps.append(f"touch {log} && chown {plan.run_as} {log} && chmod 600 {log}")
    steps.append(host.start_command(plan.name))
    for step in steps:
        yield f"next: {step}"


@service.command()
@_kind
@_scope
@_name
@output_options()
def uninstall(console: Console, kind: str, system: bool, instance: str | None) -> None:
    """Stop the service of KIND and remove its file; configuration and keys stay.

    \b
    Example:
      tunnel-rs service uninstall server
    """
    name = service_name(KINDS[kind], instance)
    host = host_for(sys.platform, Scope.SYSTEM if system else Scope.USER, os.environ)
    path = host.path(name)
    try:
        text = path.read_text()
    except OSError as error:
        raise LocalError(f"{name} is not installed: {path}: {error.strerror}") from None
    if not any(mark in text for mark in _WRITTEN_BY_US):
        raise LocalError(f"{path} was not written by tunnel-rs; remove it by hand")
    try:
        event_loop.run(host.stop(name))
    except LocalError as error:
        console.report(Notice("warning", f"could not be stopped: {error}"))
    try:
        path.unlink()
    except OSError as error:
        raise _cannot("remove", path, error) from None
    console.report(Notice("info", f"removed {path}"))
    _tell_of_change(console, host)


@service.command()
@_scope
@output_options(json=True)
def status(console: Console, system: bool) -> ExitStatus:
    """Show how the installed services stand.

    Fails when one of them does not run, or none is installed.

    \b
    Examples:
      tunnel-rs service status
      tunnel-rs service status --system --json
    """
    scope = Scope.SYSTEM if system else Scope.USER
    host = host_for(sys.platform, scope, os.environ)
    names = host.installed()
    states = event_loop.run(_states(host, names))
    for state in states:
        if console.writes_data:
            event = {"event": "service", "scope": scope, **asdict(state)}
            console.data(json_text.dumps(event, separators=(",", ":")))
        else:
            console.data(printable(state_line(state)))
    if not names and not console.writes_data:
        console.remark(f"no {scope} service of tunnel-rs is installed")
    return ExitStatus.DONE if names and all(s.active for s in states) else ExitStatus.FAILURE


async def _states(host: Host, names: tuple[str, ...]) -> list[State]:
    return [await host.state(name) for name in names]


def state_line(state: State) -> str:
    """A service's state for people."""
    when = "starts by itself" if state.enabled else "does not start by itself"
    pid = f", pid {state.pid}" if state.pid else ""
    return f"{state.name}: {state.text}{pid}; {when}"
