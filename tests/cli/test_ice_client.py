import pytest
from click.testing import CliRunner

from tunnel_rs.cli.ice_client import OneSession, client
from tunnel_rs.errors import ExitStatus, LinkClosedError, UnreachableError


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


class Ending:
    """A client whose run ends with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def run(self) -> None:
        raise self.error

    async def close(self) -> None: ...


DONE = LinkClosedError(0, "done", by_peer=True, by_application=True)


async def test_the_end_of_a_manual_session_by_the_server_is_no_failure() -> None:
    await OneSession(Ending(DONE), may_end=True).run()


async def test_a_stream_on_stdin_and_stdout_that_is_cut_off_is_one() -> None:
    with pytest.raises(
        UnreachableError, match="the connection is lost: the other side has ended it; start both"
    ):
        await OneSession(Ending(DONE), may_end=False).run()


async def test_a_manual_session_whose_path_died_says_what_to_do() -> None:
    with pytest.raises(UnreachableError, match="no answer for 6 s; start both sides again"):
        await OneSession(Ending(LinkClosedError(0, "no answer for 6 s")), may_end=True).run()
