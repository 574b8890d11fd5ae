from pathlib import Path

import pytest
from tests.support.samples import BAD_TOKEN, ENDPOINT_ID, OTHER_TOKEN, TOKEN, write

from tunnel_rs.config.token_files import joined, read_clients, read_tokens
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.access import Entry
from tunnel_rs.proto.grants import Grant
from tunnel_rs.values import EndpointId, Secret


def test_the_tokens_of_a_file_are_read_in_order_and_once(tmp_path: Path) -> None:
    file = write(tmp_path / "t", f"# mine\n{TOKEN}\n\n{OTHER_TOKEN} # yours\n{TOKEN}\n")
    assert [entry.credential for entry in read_tokens(file)] == [Secret(TOKEN), Secret(OTHER_TOKEN)]


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


def test_an_empty_file_is_good_where_it_may_be(tmp_path: Path) -> None:
    file = write(tmp_path / "t", "# nobody any more\n")
    assert read_tokens(file, may_be_empty=True) == ()
    assert read_clients(file) == ()


def test_client_keys_are_read_with_their_options(tmp_path: Path) -> None:
    file = write(tmp_path / "c", f"{ENDPOINT_ID} name=build\n")
    assert read_clients(file) == (Entry(EndpointId.parse(ENDPOINT_ID), Grant(name="build")),)


def test_of_what_is_given_twice_the_line_in_the_file_counts() -> None:
    limited = Entry(Secret(TOKEN), Grant(name="alice"))
    given = (Entry(Secret(TOKEN)), Entry(Secret(OTHER_TOKEN)))
    assert joined(given, (limited,)) == (limited, given[1])
