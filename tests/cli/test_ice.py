import pytest
from click.testing import CliRunner

from tunnel_rs import __version__
from tunnel_rs.cli.exits import run
from tunnel_rs.cli.ice import COMMANDS, PROGRAM, cli
from tunnel_rs.errors import ExitStatus


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0 and "Example" in shown.output


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"{PROGRAM} {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["sever"], ExitStatus.USAGE, "did you mean 'server'"),
        (["server"], ExitStatus.USAGE, "no mode"),
        (["server", "manual"], ExitStatus.USAGE, "no allowed network"),
        (["server", "--allowed-tcp", "10.0.0.1/8", "manual"], ExitStatus.USAGE, "host bits"),
        (["server", "nostr", "--qr", "--allowed-tcp", "::/0"], ExitStatus.USAGE, "only in manual"),
        (["client", "nostr", "-s", "tcp://a:1", "-t", "b:2"], ExitStatus.USAGE, "no Nostr key"),
        (["client", "manual", "-c", "/none"], ExitStatus.INVALID_CONFIG, "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(
    arguments: list[str], status: ExitStatus, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, arguments, PROGRAM) == status
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1
