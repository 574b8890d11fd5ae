"""`tunnel-rs-vpn server`."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets, warn_of_open_key_file
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.config.option import Role
from tunnel_rs.config.vpn_build import VpnServerConfig, build_vpn_server, vpn_server_settings
from tunnel_rs.errors import ExitStatus
from tunnel_rs.reports import Reporter
from tunnel_rs.vpn.settings import ServerSettings


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

    return event_loop.run(_serve(config, console.report, reread))


async def _serve(
    config: VpnServerConfig, report: Reporter, reread: Callable[[], ServerSettings]
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.cli.vpn_running import run_vpn_server
    from tunnel_rs.iroh.endpoint import Endpoint
    from tunnel_rs.net.host_network import host_network
    from tunnel_rs.net.tun import open_tun
    from tunnel_rs.proto.vpn_handshake import ALPN
    from tunnel_rs.vpn.server import VpnServer

    host, tun = host_network(), open_tun(config.vpn.device)
    try:
        server = VpnServer(config.vpn, tun, host, report)
        await server.start()
        settings = replace(config.endpoint, own_device=tun.name)
        endpoint = await Endpoint.bind(settings, accept=True, report=report, alpn=ALPN)
        return await run_vpn_server(endpoint, server, settings, report, reread)
    finally:
        tun.close()
        await host.undo()
