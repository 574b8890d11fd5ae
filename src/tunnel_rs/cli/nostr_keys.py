"""`tunnel-rs-ice generate-nostr-key` and `show-npub`."""

import os
from pathlib import Path

import click

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.config.nostr_keyfile import read_nostr_key, write_nostr_key
from tunnel_rs.errors import UsageError
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.reports import Notice


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(),
    help="File to write, readable by its owner only; - prints the key on stdout.",
)
@click.option("--force", is_flag=True, help="Replace the file, and with it the identity.")
@output_options()
def generate_nostr_key(console: Console, output: str, force: bool) -> None:
    """Make a Nostr key.

    Prints the npub, which the other side needs.

    \b
    Example:
      tunnel-rs-ice generate-nostr-key -o server.nsec
    """
    key = NostrSecretKey.generate(os.urandom)
    if output == "-":
        console.data(key.nsec)
        console.remark(f"npub: {key.public_key.npub}")
        return
    write_nostr_key(Path(output).expanduser(), key, force)
    console.report(Notice("info", f"wrote {output}; give the other side this npub"))
    console.data(f"npub: {key.public_key.npub}")


@click.command()
@click.option("-n", "--nsec-file", metavar="FILE", type=click.Path(), help="File with the key.")
@click.option("--nsec", metavar="NSEC", help="The key itself; others can see it.")
@output_options()
def show_npub(console: Console, nsec_file: str | None, nsec: str | None) -> None:
    """Print the npub of a Nostr key.

    \b
    Example:
      tunnel-rs-ice show-npub -n server.nsec
    """
    if (nsec_file is None) == (nsec is None):
        raise UsageError("give one of --nsec-file and --nsec")
    if nsec_file is not None:
        key = read_nostr_key(Path(nsec_file).expanduser())
    else:
        try:
            key = NostrSecretKey.parse(nsec or "")
        except ValueError as error:
            raise UsageError(f"--nsec: {error}") from None
    console.data(key.public_key.npub)
