"""`tunnel-rs-ice server`."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.ice_options import ice_options, load, warn
from tunnel_rs.cli.options import output_options
from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.config.ice_build import IceServerConfig, build_server
from tunnel_rs.config.option import Role
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.reports import Notice, Reporter


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

    return event_loop.run(_serve(config, console, reread))


async def _serve(
    config: IceServerConfig, console: Console, reread: Callable[[], IceServerConfig]
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.cli.ice_exchange import TerminalExchange
    from tunnel_rs.forward.server import ForwardServer
    from tunnel_rs.ice.manual import serve_manual
    from tunnel_rs.ice.nostr_server import NostrServer
    from tunnel_rs.ice.settings import Service
    from tunnel_rs.net.resolver import SystemResolver

    report, session = console.report, config.session
    forwarding = ForwardServer(config.forward, report)
    service = Service(forwarding.check, partial(forwarding.serve, authenticated=True))
    nostr = None
    if config.nostr is not None:
        nostr = NostrServer(session, config.nostr, service, report, SystemResolver())

    def apply(changed: IceServerConfig) -> None:
        forwarding.apply(changed.forward)
        if nostr is not None and changed.nostr is not None:
            nostr.max_sessions = changed.nostr.max_sessions
        report(Notice("info", f"settings read again: {_allowed(changed)}"))

    report(Notice("info", _allowed(config)))
    with StopSignals(reload=partial(_reload, reread, apply, report)) as signals:
        if nostr is not None:
            running = nostr.run()
        else:
            exchange = TerminalExchange(config.exchange, console)
            running = serve_manual(session, service, exchange, report, SystemResolver())
        return await run_until_signal(running, forwarding.close, signals, report)


def _reload(
    reread: Callable[[], IceServerConfig],
    apply: Callable[[IceServerConfig], None],
    report: Reporter,
) -> None:
    try:
        changed = reread()
    except TunnelError as error:
        report(Notice("warning", f"{error}; the settings in use stay as they are"))
        return
    apply(changed)


def _allowed(config: IceServerConfig) -> str:
    tcp = ", ".join(map(str, config.forward.allowed_tcp)) or "nothing"
    udp = ", ".join(map(str, config.forward.allowed_udp)) or "nothing"
    return f"allowed TCP: {tcp}; allowed UDP: {udp}"
