from click.testing import CliRunner

from tunnel_rs.cli.ice_client import client
from tunnel_rs.errors import ExitStatus


def test_json_and_stdio_do_not_go_together() -> None:
    arguments = ["manual", "--stdio", "--json", "-s", "tcp://a:1", "--offer-file", "x"]
    result = CliRunner().invoke(client, [*arguments, "--answer-file", "y"])
    assert result.exit_code == ExitStatus.USAGE
    assert "--json cannot be given beside --stdio" in result.output


def test_a_port_that_is_taken_is_told_before_anything_is_signalled() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(
            client, ["manual", "--no-stun", "-s", "tcp://127.0.0.1:1", "-t", f"127.0.0.1:{port}"]
        )
    assert result.exit_code == ExitStatus.FAILURE
    assert "another program uses the port" in result.output and "BEGIN" not in result.output
