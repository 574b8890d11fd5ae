from pathlib import Path

import pytest
from tests.support.samples import BAD_TOKEN, OTHER_TOKEN, TOKEN, write

from tunnel_rs.config.token_files import read_tokens
from tunnel_rs.errors import ConfigError
from tunnel_rs.values import Secret


def test_the_tokens_of_a_file_are_read_in_order_and_once(tmp_path: Path) -> None:
    file = write(tmp_path / "t", f"# mine\n{TOKEN}\n\n{OTHER_TOKEN} # yours\n{TOKEN}\n")
    assert read_tokens(file) == (Secret(TOKEN), Secret(OTHER_TOKEN))


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
def test_a_bad_file_is_refused(tmp_path: Path, content: str | None, problem: str) -> None:
    file = tmp_path / "t"
    if content is not None:
        write(file, content)
    with pytest.raises(ConfigError) as refused:
        read_tokens(file)
    assert str(refused.value) == f"{file}{problem}"
