"""`tunnel-rs demo`."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus
from tunnel_rs.reports import Reporter

if TYPE_CHECKING:
    from tunnel_rs.cli.demo_scene import Scene


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running until Ctrl-C, to try it yourself.")
@output_options()
def demo(console: Console, keep: bool) -> ExitStatus:
    """Show a real tunnel at work, on this machine only.

    Starts a private relay and discovery server, a small web service, a server and two clients
    on loopback, forwards the service through them, and checks what comes out. Nothing leaves
    the machine.

    \b
    Example:
      tunnel-rs demo --keep
    """
    return event_loop.run(_demo(keep, console.report))


async def _demo(keep: bool, report: Reporter) -> ExitStatus:
    # Imported late: the other commands need none of it.
    from tunnel_rs.cli.demo_scene import Scene

    with StopSignals() as signals:
        async with Scene(_say) as scene:
            return await run_until_signal(_play(scene, keep), _nothing, signals, report)


async def _play(scene: "Scene", keep: bool) -> None:
    start = time.perf_counter()
    click.echo("tunnel-rs demo: a web page reached by relay and directly, on this machine only")
    await scene.play()
    click.echo(f"all as it should be, in {time.perf_counter() - start:.1f} s")
    if keep:
        with tempfile.TemporaryDirectory(prefix="tunnel-rs-demo-") as folder:
            _tell_commands(scene, Path(folder))
            await asyncio.Event().wait()


def _say(title: str, text: str) -> None:
    click.echo(f"  {title:<10}{text}")


def _tell_commands(scene: "Scene", folder: Path) -> None:
    """The commands a user would have typed; they work while the demo runs."""
    token = folder / "token.txt"
    token.touch(0o600)
    token.write_text(scene.token.reveal() + "\n")
    web = f"tcp://127.0.0.1:{scene.web_port}"
    click.echo(
        f"""
Look at it:   http://127.0.0.1:{scene.local["web"]}/
Another client, as you would type it on another machine:
  tunnel-rs client --server-node-id {scene.endpoint_id} \\
    --peer-addr {scene.server_address} --auth-token-file {token} \\
    --relay-url none --dns-server none \\
    --source {web} --target 127.0.0.1:0
A server of your own:
  tunnel-rs generate-server-key --output server.key
  tunnel-rs generate-token >token.txt
  tunnel-rs server --secret-file server.key --auth-tokens-file token.txt --allowed-tcp 127.0.0.0/8
Press Ctrl-C to end."""
    )


async def _nothing() -> None:
    """There is nothing to drain in a demonstration."""
