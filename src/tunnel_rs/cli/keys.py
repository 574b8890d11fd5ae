"""`tunnel-rs generate-token`, `generate-server-key` and `show-server-id`."""

import os
from pathlib import Path

import click

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options
from tunnel_rs.config.keyfile import read_secret_key, write_secret_key
from tunnel_rs.proto import tokens
from tunnel_rs.proto.identity import encode_secret_key, endpoint_id, generate_secret_key
from tunnel_rs.reports import Notice


@click.command()
@click.option("-c", "--count", type=click.IntRange(1, 10_000), default=1, help="How many.")
@output_options()
def generate_token(console: Console, count: int) -> None:
    """Print new auth tokens.

    \b
    Example:
      tunnel-rs generate-token >token.txt
    """
    for _ in range(count):
        console.data(tokens.generate_token(os.urandom).reveal())


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(),
    help=("File to write, readable by its owner only; - prints the key on stdout."),
)
@click.option("--force", is_flag=True, help="Replace the file, and with it the identity.")
@output_options()
def generate_server_key(console: Console, output: str, force: bool) -> None:
    """Make a server's secret key.

    Prints the EndpointId, which clients need to reach the server.

    \b
    Example:
      tunnel-rs generate-server-key -o server.key
    """
    seed = generate_secret_key(os.urandom)
    if output == "-":
        console.data(encode_secret_key(seed))
        console.remark(f"EndpointId: {endpoint_id(seed)}")
        return
    write_secret_key(Path(output).expanduser(), seed, force)
    console.report(Notice("info", f"wrote {output}; the EndpointId of this server is"))
    console.data(str(endpoint_id(seed)))


@click.command()
@click.option(
    "-s",
    "--secret-file",
    required=True,
    metavar="FILE",
    type=click.Path(),
    help=("File with a server's secret key."),
)
@output_options()
def show_server_id(console: Console, secret_file: str) -> None:
    """Print the EndpointId of a server's key.

    \b
    Example:
      tunnel-rs show-server-id -s server.key
    """
    console.data(str(endpoint_id(read_secret_key(Path(secret_file).expanduser()))))
