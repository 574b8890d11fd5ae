"""`tunnel-rs netcheck`."""

import os
from pathlib import Path

import click

from tunnel_rs.cli import event_loop, netcheck_report
from tunnel_rs.cli.bundle import contents, write
from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.config.netcheck import build_netcheck
from tunnel_rs.iroh.netcheck import netcheck as check
from tunnel_rs.proto.qad import DEFAULT_PORT


@click.command()
@click.option(
    "--relay-url",
    "relay_urls",
    metavar="URL",
    multiple=True,
    help="Relay to look at; none: no relay.",
)
@click.option("--dns-server", metavar="URL", help="pkarr base URL to look at, or none.")
@click.option(
    "--stun-server",
    "stun_servers",
    metavar="HOST[:PORT]",
    multiple=True,
    help="STUN server to ask, also for the type of NAT.",
)
@click.option(
    "--relay-ca-file",
    "ca_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="PEM file of authorities trusted besides the system's.",
)
@click.option(
    "--qad-port",
    metavar="PORT",
    type=click.IntRange(1, 65_535),
    default=DEFAULT_PORT,
    show_default=True,
    help="UDP port of the relays' address discovery.",
)
@click.option("--offline", is_flag=True, help="Contact nobody but those named here.")
@click.option(
    "--bundle",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write an archive (ZIP) to send to others, without secrets.",
)
@output_options(json=True)
def netcheck(console: Console, bundle: Path | None, **given: object) -> None:
    """Find out what this network allows.

    Looks at UDP, NAT, relays, discovery, the clock and socket buffers, within 10 seconds. What is
    not named is what a server or client would use: the public relays and discovery of iroh.

    The archive holds what was found, versions, settings, and what running programs are doing.
    Tokens, keys, EndpointIds and public addresses are left out; look through it all the same.

    \b
    Examples:
      tunnel-rs netcheck
      tunnel-rs netcheck --offline --relay-url https://relay.example.org
      tunnel-rs netcheck --bundle report.zip
    """
    settings = build_netcheck(environ=os.environ, **given)  # type: ignore[arg-type]
    findings = event_loop.run(check(settings))
    event, lines = netcheck_report.event(findings), list(netcheck_report.lines(findings))
    if console.writes_data:
        console.data(event)
    else:
        for line in lines:
            console.data(line)
    if bundle is not None:
        write(bundle, contents(lines, event, os.environ))
        console.remark(f"written to {bundle}; look through it before you send it to anybody")
