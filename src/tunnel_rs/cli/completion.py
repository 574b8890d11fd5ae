"""`tunnel-rs completion`."""

import click
from click.shell_completion import get_completion_class

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import output_options


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_options()
def completion(console: Console, shell: str) -> None:
    """Print a shell's completion script.

    \b
    Examples:
      eval "$(tunnel-rs completion bash)"
      tunnel-rs completion fish >~/.config/fish/completions/tunnel-rs.fish
    """
    program = click.get_current_context().find_root()
    name = program.command.name or ""
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    script = get_completion_class(shell)
    assert script is not None
    console.data(script(program.command, {}, name, variable).source().rstrip())
