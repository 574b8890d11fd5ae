"""`tunnel-rs-vpn client` and `cleanup`."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tunnel_rs.cli import event_loop
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.hints import warn_of_exposed_secrets
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.cli.running import run_client
from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.config.vpn_build import VpnClientConfig, build_vpn_client
from tunnel_rs.errors import ExitStatus
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.link import Link
from tunnel_rs.reports import Notice, Reporter

if TYPE_CHECKING:
    from tunnel_rs.cli.operations import Operations

PROGRAM = "tunnel-rs-vpn"


@click.command()
@source_options(Role.VPN_CLIENT)
@output_options(json=True)
def client(console: Console, **given: Any) -> ExitStatus:
    """Join a private network.

    Needs root or CAP_NET_ADMIN; `tunnel-rs-vpn exec` needs neither.

    \b
    Examples:
      tunnel-rs-vpn client -n ENDPOINT_ID --auth-token-file token.txt --route 192.168.7.0/24
      tunnel-rs-vpn client -c vpn_client.toml --route 0.0.0.0/0 --route6 ::/0
    """
    values = load(Role.VPN_CLIENT, given, os.environ)
    config = build_vpn_client(values)
    warn_of_exposed_secrets(values, console.report)
    return event_loop.run(_join(config, operation_settings(values), console.report))


async def _join(
    config: VpnClientConfig, settings: OperationSettings, report: Reporter
) -> ExitStatus:
    # Imported late: mistakes in options are told before the QUIC stack has been loaded.
    from tunnel_rs.cli.operations import Operations
    from tunnel_rs.net.lock import InstanceLock, vpn_client_lock

    with InstanceLock(vpn_client_lock(os.environ)):
        async with Operations(
            settings, "client", report, os.environ, program=PROGRAM
        ) as operations:
            return await _join_by_device(config, operations)


async def _join_by_device(config: VpnClientConfig, operations: "Operations") -> ExitStatus:
    from tunnel_rs.cli.vpn_commands import vpn_client_commands
    from tunnel_rs.iroh.endpoint import Endpoint
    from tunnel_rs.net.host_network import host_network
    from tunnel_rs.net.tun import open_tun
    from tunnel_rs.proto.vpn_handshake import ALPN
    from tunnel_rs.vpn.client import VpnClient
    from tunnel_rs.vpn.observed import ObservedClient

    report, host = operations.report, host_network()
    tun = open_tun(config.vpn.device)
    try:
        settings = _outside(config, host.mark, tun.name, report)
        endpoint = await Endpoint.bind(settings, accept=False, report=report, alpn=ALPN)

        async def connect() -> Link:
            return await endpoint.connect(config.server, timeout=config.vpn.connect_timeout)

        client = VpnClient(config.vpn, tun, host, connect, report)
        endpoint.on_change = client.retry_now
        commands = vpn_client_commands(client, operations.overview.status)
        operations.observe(endpoint.endpoint_id, ObservedClient(client), commands)
        return await run_client(endpoint, client, report)
    finally:
        tun.close()


def _outside(
    config: VpnClientConfig, mark: int | None, device: str, report: Reporter
) -> EndpointSettings:
    """An endpoint whose own packets stay out of the VPN."""
    settings = replace(config.endpoint, mark=mark, own_device=device)
    if mark is not None:
        return settings
    # Without marks only the way to the server's address is kept out. Every other one, to a relay
    # or a better path, could lead into the VPN itself.
    if settings.relays and not settings.public_relays:
        text = "relays and discovery are not used by a VPN client on this system; give --peer-addr"
        report(Notice("warning", text))
    return replace(settings, relays=(), discovery=DiscoverySettings())


@click.command()
@output_options()
def cleanup(console: Console) -> None:
    """Remove what a client that was killed left behind: rules, a kill switch, resolvers.

    The next client does it, too.

    \b
    Example:
      tunnel-rs-vpn cleanup
    """
    event_loop.run(_clean())


async def _clean() -> None:
    from tunnel_rs.net.host_network import host_network
    from tunnel_rs.net.lock import InstanceLock, vpn_client_lock

    with InstanceLock(vpn_client_lock(os.environ)):
        await host_network().clean(None, client=True)
