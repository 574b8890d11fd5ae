from pathlib import Path

import pytest

from tests.support.samples import BAD_TOKEN, OTHER_TOKEN, TOKEN, write
from tunnel_rs.config.token_source import TokenSource, read_tokens
from tunnel_rs.errors import ConfigError
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import Secret


def test_given_tokens_and_those_of_a_file_are_joined_without_repetition(tmp_path: Path) -> None:
    file = write(tmp_path / "t", f"# mine\n{TOKEN}\n{OTHER_TOKEN} # yours\n")
    assert TokenSource((Secret(TOKEN),), file)() == (Secret(TOKEN), Secret(OTHER_TOKEN))


def test_a_changed_file_counts_after_reload(tmp_path: Path) -> None:
    reports: list[Report] = []
    file = write(tmp_path / "t", f"{TOKEN}\n")
    tokens = TokenSource((), file)
    write(file, f"{OTHER_TOKEN}\n")
    assert tokens() == (Secret(TOKEN),)
    tokens.reload(reports.append)
    assert tokens() == (Secret(OTHER_TOKEN),)
    assert reports == [Notice("info", "auth tokens: 1 token(s) configured")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            f"{OTHER_TOKEN}\n{BAD_TOKEN}\n",
            ", line 2: the token's check character does not fit: a typing error; copy it again",
        ),
        ("# none\n", ": holds no token; make one with `tunnel-rs generate-token`"),
        (None, ": cannot be read: No such file or directory"),
    ],
)
def test_a_bad_file_keeps_the_old_tokens_and_is_reported(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    reports: list[Report] = []
    file = write(tmp_path / "t", f"{TOKEN}\n")
    tokens = TokenSource((), file)
    write(file, content) if content is not None else file.unlink()
    tokens.reload(reports.append)
    assert tokens() == (Secret(TOKEN),)
    text = f"{file}{problem}; the tokens in use stay as they are"
    assert reports == [Notice("warning", text)]


def test_a_file_without_a_token_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no token"):
        TokenSource((Secret(TOKEN),), write(tmp_path / "t", "\n"))


def test_given_tokens_need_no_file() -> None:
    tokens = TokenSource((Secret(TOKEN), Secret(TOKEN)))
    tokens.reload(lambda _: None)
    assert tokens() == (Secret(TOKEN),)


def test_reading_a_file_keeps_each_token_once(tmp_path: Path) -> None:
    assert read_tokens(write(tmp_path / "t", f"{TOKEN}\n{TOKEN}\n")) == (Secret(TOKEN),)
