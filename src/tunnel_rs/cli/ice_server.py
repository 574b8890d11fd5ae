"""`tunnel-rs-ice server`."""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.ice_options import ice_options, load, warn
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.running import sample_tunnel
from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.config.ice_build import IceServerConfig, build_server
from tunnel_rs.config.ice_schema import DEFAULT_RELAYS
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.ice.settings import NostrSettings
from tunnel_rs.reports import Notice, Reporter

PROGRAM = "tunnel-rs-ice"


@click.command()
@ice_options(Role.SERVER)
@output_options(json=True)
def server(console: Console, **given: Any) -> ExitStatus:
    """Let a client reach ports from here; MODE is manual or nostr.

    manual: paste the client's offer, carry the answer back; one session. nostr: the client whose
    npub is given may come and go.

    \b
    Examples:
      tunnel-rs-ice server manual --allowed-tcp 127.0.0.0/8
      tunnel-rs-ice server nostr --nsec-file server.nsec --peer-npub NPUB \\
          --allowed-tcp 127.0.0.0/8
    """
    values = load(Role.SERVER, given, os.environ)
    config = build_server(values)
    warn(values, console.report)

    def reread() -> IceServerConfig:
        return build_server(load(Role.SERVER, given, os.environ))

    return event_loop.run(_serve(config, operation_settings(values), console, reread))


async def _serve(
    config: IceServerConfig,
    settings: OperationSettings,
    console: Console,
    reread: Callable[[], IceServerConfig],
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.cli.control_commands import server_commands
    from tunnel_rs.cli.ice_exchange import TerminalExchange
    from tunnel_rs.cli.operations import Operations
    from tunnel_rs.forward.server import ForwardServer
    from tunnel_rs.ice.manual import serve_manual
    from tunnel_rs.ice.nostr_server import NostrServer
    from tunnel_rs.ice.settings import Service
    from tunnel_rs.net.resolver import SystemResolver

    session = config.session
    operations = Operations(settings, Role.SERVER, console.report, os.environ, program=PROGRAM)
    async with operations:
        report = operations.report
        forwarding = ForwardServer(config.forward, report)
        service = Service(forwarding.check, partial(forwarding.serve, authenticated=True))
        nostr = None
        if config.nostr is not None:
            nostr = NostrServer(session, config.nostr, service, report, SystemResolver())

        def reload() -> str:
            operations.reopen()
            changed = _read_again(reread, report)
            forwarding.apply(changed.forward)
            if nostr is not None and changed.nostr is not None:
                nostr.max_sessions = changed.nostr.max_sessions
            report(Notice("info", f"settings read again: {_allowed(changed)}"))
            return _allowed(changed)

        operations.observe(None, forwarding, server_commands(forwarding, reload))
        _announce(config, report)
        with StopSignals(reload=partial(_quietly, reload)) as signals:
            if nostr is not None:
                running = nostr.run()
            else:
                exchange = TerminalExchange(config.exchange, console)
                running = serve_manual(session, service, exchange, report, SystemResolver())
            return await run_until_signal(running, forwarding.close, signals, report)


def _read_again(reread: Callable[[], IceServerConfig], report: Reporter) -> IceServerConfig:
    try:
        return reread()
    except TunnelError as error:
        report(Notice("warning", f"{error}; the settings in use stay as they are"))
        raise


def _quietly(reload: Callable[[], str]) -> None:
    with contextlib.suppress(TunnelError):  # it is told
        reload()


def _announce(config: IceServerConfig, report: Reporter) -> None:
    report(Notice("info", _allowed(config)))
    if config.nostr is not None:
        report(Notice("info", f"our npub: {config.nostr.key.public_key.npub}"))
        report(Notice("info", f"on the client: {_client_command(config.forward, config.nostr)}"))


def _client_command(forward: ServerSettings, nostr: NostrSettings) -> str:
    """What the client's side may type."""
    relays = () if nostr.relays == DEFAULT_RELAYS else nostr.relays
    words = (
        "tunnel-rs-ice client nostr --nsec-file CLIENT.nsec",
        f"--peer-npub {nostr.key.public_key.npub}",
        *(f"--relay {relay}" for relay in relays),
        sample_tunnel(forward),
    )
    return " ".join(words)


def _allowed(config: IceServerConfig) -> str:
    tcp = ", ".join(map(str, config.forward.allowed_tcp)) or "nothing"
    udp = ", ".join(map(str, config.forward.allowed_udp)) or "nothing"
    return f"allowed TCP: {tcp}; allowed UDP: {udp}"
