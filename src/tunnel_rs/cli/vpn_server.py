"""`tunnel-rs-vpn server`."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets, warn_of_open_key_file
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.config.vpn_build import VpnServerConfig, build_vpn_server, vpn_server_settings
from tunnel_rs.errors import ExitStatus
from tunnel_rs.reports import Reporter
from tunnel_rs.vpn.settings import ServerSettings

if TYPE_CHECKING:
    from tunnel_rs.cli.operations import Operations

PROGRAM = "tunnel-rs-vpn"


@click.command()
@source_options(Role.VPN_SERVER)
@output_options(json=True)
def server(console: Console, **given: Any) -> ExitStatus:
    """Let clients into a private network.

    A client needs the EndpointId that is printed, and one of the tokens. Needs root or
    CAP_NET_ADMIN.

    \b
    Example:
      tunnel-rs-vpn generate-server-key -o vpn-server.key
      tunnel-rs-vpn generate-token >token.txt
      tunnel-rs-vpn server --secret-file vpn-server.key --auth-tokens-file token.txt \\
          --network 10.0.0.0/24 --masquerade
    """
    values = load(Role.VPN_SERVER, given, os.environ)
    config = build_vpn_server(values)
    warn_of_exposed_secrets(values, console.report)
    warn_of_open_key_file(values, console.report)

    def reread() -> ServerSettings:
        return vpn_server_settings(load(Role.VPN_SERVER, given, os.environ), running=True)

    operations = operation_settings(values)
    return event_loop.run(_serve(config, operations, console.report, reread))


async def _serve(
    config: VpnServerConfig,
    settings: OperationSettings,
    report: Reporter,
    reread: Callable[[], ServerSettings],
) -> ExitStatus:
    from tunnel_rs.cli.operations import Operations

    async with Operations(settings, "server", report, os.environ, program=PROGRAM) as operations:

        def read_again() -> ServerSettings:
            operations.reopen()
            return reread()

        return await _serve_device(config, operations, read_again)


async def _serve_device(
    config: VpnServerConfig, operations: "Operations", reread: Callable[[], ServerSettings]
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.cli.vpn_commands import vpn_server_commands
    from tunnel_rs.cli.vpn_running import reload_vpn_server, run_vpn_server
    from tunnel_rs.iroh.endpoint import Endpoint
    from tunnel_rs.net.host_network import host_network
    from tunnel_rs.net.tun import open_tun
    from tunnel_rs.proto.vpn_handshake import ALPN
    from tunnel_rs.vpn.observed import ObservedServer
    from tunnel_rs.vpn.server import VpnServer

    report = operations.report
    host, tun = host_network(), open_tun(config.vpn.device)
    try:
        server = VpnServer(config.vpn, tun, host, report)
        await server.start()
        settings = replace(config.endpoint, own_device=tun.name)
        endpoint = await Endpoint.bind(settings, accept=True, report=report, alpn=ALPN)
        reload = partial(reload_vpn_server, server, report, reread)
        commands = vpn_server_commands(server, operations.overview.status, reload)
        operations.observe(endpoint.endpoint_id, ObservedServer(server), commands)
        return await run_vpn_server(endpoint, server, settings, report, reread)
    finally:
        tun.close()
        await host.undo()
