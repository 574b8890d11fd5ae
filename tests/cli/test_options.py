import json
import logging
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner
from tests.support.samples import TOKEN

from tunnel_rs.cli.console import Console
from tunnel_rs.cli.options import load, output_options, source_options
from tunnel_rs.cli.wording import Level
from tunnel_rs.config import schema
from tunnel_rs.config.option import Role
from tunnel_rs.config.schema import options_for
from tunnel_rs.errors import AuthRefusedError, ExitStatus, UsageError
from tunnel_rs.reports import Notice

Body = Callable[[Console], Any]


def invoke(body: Body, *arguments: str) -> tuple[int, str, str]:
    @click.command()
    @output_options(json=True)
    def command(console: Console) -> Any:
        return body(console)

    result = CliRunner().invoke(command, arguments)
    return result.exit_code, result.stdout, result.stderr


def talk(console: Console) -> None:
    for level in ("warning", "info", "debug"):
        console.report(Notice(level, level))


def parsed(role: Role, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command()
    @source_options(role)
    def command(**given: Any) -> None:
        found.update(given)

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return found


@pytest.mark.parametrize("role", Role)
def test_every_option_with_a_flag_is_there_and_not_given_by_default(role: Role) -> None:
    given = parsed(role)
    expected = {option.name for option in options_for(role) if option.flags}
    assert set(given) == expected | {"config", "default_config"}
    assert load(role, given, {}).settings == {}


@pytest.mark.parametrize("role", Role)
def test_options_that_a_role_does_not_have_are_unknown(role: Role) -> None:
    others = [o for o in schema.OPTIONS if o.flags and role not in o.roles]
    command = click.Command("x", params=[])
    source_options(role)(lambda: None)
    for option in others:
        assert CliRunner().invoke(command, [option.flag, "x"]).exit_code == 2


def test_what_is_given_is_read_with_its_flag_as_origin() -> None:
    given = parsed(
        Role.CLIENT,
        *("-s", "tcp://a:1", "--source", "tcp://b:2", "--no-reconnect", "--stdio"),
        *("--dns-server", "none", "--auth-token", TOKEN),
    )
    values = load(Role.CLIENT, given, {})
    assert [str(source) for source in values.get(schema.SOURCE)] == ["tcp://a:1", "tcp://b:2"]
    assert values.get(schema.RECONNECT) is False
    assert values.get(schema.STDIO) is True
    assert values.origin(schema.AUTH_TOKEN).where == "--auth-token"


def test_the_last_of_a_single_option_counts() -> None:
    given = parsed(Role.SERVER, "--max-sessions", "1", "--max-sessions", "2")
    assert load(Role.SERVER, given, {}).get(schema.MAX_SESSIONS) == 2


def test_a_file_and_the_default_file_exclude_each_other() -> None:
    given = parsed(Role.SERVER, "-c", "x.toml", "--default-config")
    with pytest.raises(UsageError, match="--default-config cannot be given beside -c/--config"):
        load(Role.SERVER, given, {})


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-q"], ["warning: warning"]),
        ([], ["warning: warning", "info"]),
        (["-v"], ["warning: warning", "info"]),
        (["-vv"], ["warning: warning", "info", "debug"]),
        (["-vvv", "--color", "never"], ["warning: warning", "info", "debug"]),
        (["--color", "always", "-q"], ["\x1b[33mwarning: warning\x1b[0m"]),
    ],
)
def test_verbosity_and_colour_are_chosen(arguments: list[str], shown: list[str]) -> None:
    status, out, err = invoke(talk, *arguments)
    assert (status, out, err.splitlines()) == (0, "", shown)


def test_the_levels_are_those_of_the_console() -> None:
    levels: list[Level] = []
    for arguments in ([], ["-v"], ["-vv"]):
        invoke(lambda console: levels.append(console.level), *arguments)
    assert levels == [Level.INFO, Level.DETAIL, Level.DEBUG]


def test_json_goes_to_stdout_and_json_logs_to_stderr() -> None:
    _, out, err = invoke(talk, "--json")
    assert (len(out.splitlines()), err) == (2, "")
    _, out, err = invoke(talk, "--log-format", "json")
    assert (out, len(err.splitlines())) == ("", 2)
    assert json.loads(err.splitlines()[0])["text"] == "warning"


def test_a_command_ends_with_the_status_it_returns() -> None:
    assert invoke(lambda _: ExitStatus.TERMINATED) == (143, "", "")
    assert invoke(lambda _: None) == (0, "", "")


def test_an_error_of_a_command_is_one_line_and_its_status() -> None:
    def refuse(_: Console) -> None:
        raise AuthRefusedError("the server did not accept the token")

    line = "error: the server did not accept the token\n"
    assert invoke(refuse) == (3, "", line)
    assert invoke(refuse, "-q") == (3, "", line)


def test_a_mistake_of_ours_shows_its_traceback_with_all_details_only() -> None:
    def fail(_: Console) -> None:
        raise KeyError("x")

    status, _, err = invoke(fail)
    assert status == 1
    assert err.startswith("error: internal error: KeyError in test_options.py, line ")
    assert err.count("\n") == 1
    assert "Traceback" in invoke(fail, "-vv")[2]


def test_ctrl_c_is_no_error() -> None:
    def interrupt(_: Console) -> None:
        raise KeyboardInterrupt

    assert invoke(interrupt) == (130, "", "")


def test_what_libraries_log_is_shown_while_a_command_runs() -> None:
    before = logging.getLogger().handlers[:]
    _, _, err = invoke(lambda _: logging.getLogger("asyncio").warning("slow"))
    assert err == "warning: asyncio: slow\n"
    assert logging.getLogger().handlers == before


def test_what_aioquic_says_of_peers_is_shown_with_details_only() -> None:
    def warn(_: Console) -> None:
        logging.getLogger("quic").warning("bad frame")

    assert invoke(warn)[2] == ""
    assert "quic: bad frame" in invoke(warn, "-vv")[2]
