"""`tunnel-rs-vpn exec`."""

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.cli.vpn_client import PROGRAM
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.config.vpn_build import VpnClientConfig, build_vpn_client
from tunnel_rs.errors import ExitStatus
from tunnel_rs.net.accepting import close_in_time
from tunnel_rs.net.link import Link
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Reporter

if TYPE_CHECKING:
    from tunnel_rs.cli.operations import Operations
    from tunnel_rs.net.namespace import Namespace
    from tunnel_rs.vpn.client import VpnClient


@click.command("exec", context_settings={"allow_interspersed_args": False})
@source_options(Role.VPN_CLIENT)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@output_options()
def execute(console: Console, command: tuple[str, ...], **given: Any) -> int:
    """Run one command inside the VPN, without privileges (Linux).

    The command sees the VPN and nothing else; the rest of this machine is not touched. All that
    it sends goes to the server. Ends with the command's exit status.

    \b
    Example:
      tunnel-rs-vpn exec -c vpn_client.toml -- curl http://10.0.0.1/
    """
    values = load(Role.VPN_CLIENT, given, os.environ)
    config = build_vpn_client(values)
    warn_of_exposed_secrets(values, console.report)
    settings = operation_settings(values)
    return event_loop.run(_execute(config, settings, command, console.report))


async def _execute(
    config: VpnClientConfig,
    settings: OperationSettings,
    command: tuple[str, ...],
    report: Reporter,
) -> int:
    from tunnel_rs.cli.operations import Operations

    async with Operations(settings, "client", report, os.environ, program=PROGRAM) as operations:
        return await _execute_inside(config, operations, command)


async def _execute_inside(
    config: VpnClientConfig, operations: "Operations", command: tuple[str, ...]
) -> int:
    from tunnel_rs.cli.vpn_commands import vpn_client_commands
    from tunnel_rs.iroh.endpoint import Endpoint
    from tunnel_rs.net.namespace import Namespace
    from tunnel_rs.proto.vpn_handshake import ALPN
    from tunnel_rs.vpn.client import VpnClient
    from tunnel_rs.vpn.observed import ObservedClient

    report = operations.report
    namespace, tun = await Namespace.open(command)
    try:
        endpoint = await Endpoint.bind(config.endpoint, accept=False, report=report, alpn=ALPN)

        async def connect() -> Link:
            return await endpoint.connect(config.server, timeout=config.vpn.connect_timeout)

        settings = replace(config.vpn, routes=(), kill_switch=False)
        client = VpnClient(settings, tun, namespace, connect, report)
        endpoint.on_change = client.retry_now
        commands = vpn_client_commands(client, operations.overview.status)
        operations.observe(endpoint.endpoint_id, ObservedClient(client), commands)
        try:
            return await _until_the_command_ends(client, namespace, report)
        finally:
            await close_in_time(endpoint)
    finally:
        tun.close()
        await namespace.undo()


class _CommandSignals(StopSignals):
    """While the command runs, Ctrl-C is for the command, which gets it by itself."""

    def __init__(self, namespace: "Namespace") -> None:
        super().__init__()
        self._namespace = namespace

    def received(self, number: signal.Signals) -> None:
        if number is not signal.SIGINT or not self._namespace.runs:
            super().received(number)


async def _until_the_command_ends(
    client: "VpnClient", namespace: "Namespace", report: Reporter
) -> int:
    """The command's exit status; raises what ends the tunnel before."""
    ended: list[int] = []

    async def wait() -> None:
        ended.append(await namespace.wait())
        await client.close()

    async with TaskScope("exec", on_failure=lambda *_: None) as scope:
        scope.spawn(wait(), "command")
        try:
            with _CommandSignals(namespace) as signals:
                status = await run_until_signal(client.run(), client.close, signals, report)
        finally:
            await namespace.undo()
    if status is ExitStatus.DONE and ended:
        return ended[0]
    return status
