"""`tunnel-rs-ice client`."""

import os
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.ice_options import ice_options, load, warn
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.running import Runnable, run_client
from tunnel_rs.config.ice_build import IceClientConfig, build_client
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.errors import ExitStatus, LinkClosedError, UsageError

PROGRAM = "tunnel-rs-ice"


@click.command()
@ice_options(Role.CLIENT)
@output_options(json=True)
def client(console: Console, **given: Any) -> ExitStatus:
    """Reach ports through a server; MODE is manual or nostr.

    manual: carry the offer to the server, paste its answer; one session. nostr: the server whose
    npub is given is asked over relays, and asked again when the connection is lost.

    \b
    Examples:
      tunnel-rs-ice client manual -s tcp://127.0.0.1:22 -t 127.0.0.1:2222
      tunnel-rs-ice client nostr --nsec-file client.nsec --peer-npub NPUB \\
          -s udp://127.0.0.1:53 -t 127.0.0.1:5353
    """
    values = load(Role.CLIENT, given, os.environ)
    config = build_client(values)
    if config.forward.stdio and console.writes_data:
        raise UsageError("--json cannot be given beside --stdio: stdout carries the stream")
    warn(values, console.report)
    return event_loop.run(_forward(config, operation_settings(values), console))


async def _forward(
    config: IceClientConfig, settings: OperationSettings, console: Console
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.cli.control_commands import client_commands
    from tunnel_rs.cli.ice_exchange import TerminalExchange
    from tunnel_rs.cli.operations import Operations
    from tunnel_rs.forward.client import ForwardClient
    from tunnel_rs.ice.manual import ManualClient
    from tunnel_rs.ice.nostr_client import NostrClient
    from tunnel_rs.net.resolver import SystemResolver

    resolve = SystemResolver()
    operations = Operations(settings, Role.CLIENT, console.report, os.environ, program=PROGRAM)
    async with operations:
        report = operations.report
        introducer: ManualClient | NostrClient
        if config.nostr is not None:
            introducer = NostrClient(config.session, config.nostr, config.request, report, resolve)
        else:
            exchange = TerminalExchange(config.exchange, console)
            introducer = ManualClient(config.session, config.request, exchange, report, resolve)
        client = ForwardClient(config.forward, introducer.connect, report)
        operations.observe(None, client, client_commands(client))
        forwarding: Runnable = client
        if config.nostr is None:
            forwarding = OneSession(client, may_end=config.forward.stdio is None)
        return await run_client(introducer, forwarding, report)


class OneSession:
    """A client in manual mode: its session is not replaced. With `may_end` its end by the server is
    an end like any other; a stream on stdin and stdout would be cut off."""

    def __init__(self, client: Runnable, *, may_end: bool) -> None:
        self._client = client
        self._may_end = may_end

    async def run(self) -> None:
        try:
            await self._client.run()
        except LinkClosedError as error:
            from tunnel_rs.ice.manual import ended_in_order, lost

            if not (self._may_end and ended_in_order(error)):
                raise lost(error) from None

    async def close(self) -> None:
        await self._client.close()
