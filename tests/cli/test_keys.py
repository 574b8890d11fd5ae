import os
import stat
import sys
from pathlib import Path

import pytest
from tests.support.program import tunnel_rs
from tests.support.samples import ENDPOINT_ID, SECRET_KEY, write

from tunnel_rs.proto.identity import decode_secret_key, endpoint_id
from tunnel_rs.proto.tokens import check_token


def test_tokens_are_printed_one_a_line_and_all_differ() -> None:
    ended = tunnel_rs("generate-token", "-c", "20")
    tokens = ended.out.splitlines()
    assert (ended.status, ended.err) == (0, "")
    assert len(set(tokens)) == 20
    for token in tokens:
        check_token(token)
    assert len(tunnel_rs("generate-token").out.splitlines()) == 1


def test_a_key_file_is_written_for_its_owner_and_the_id_printed(tmp_path: Path) -> None:
    file = tmp_path / "server.key"
    ended = tunnel_rs("generate-server-key", "-o", str(file))
    assert ended.status == 0
    assert ended.err == f"wrote {file}; the EndpointId of this server is\n"
    assert ended.out == f"{endpoint_id(decode_secret_key(file.read_text()))}\n"
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    shown = tunnel_rs("show-server-id", "-s", str(file))
    assert (shown.status, shown.out, shown.err) == (0, ended.out, "")


def test_a_key_on_stdout_is_alone_there_and_the_id_on_stderr() -> None:
    ended = tunnel_rs("generate-server-key", "--output", "-", "-q")
    seed = decode_secret_key(ended.out)
    assert ended.out.count("\n") == 1
    assert ended.err == f"EndpointId: {endpoint_id(seed)}\n"


def test_a_key_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    file = write(tmp_path / "server.key", "precious")
    ended = tunnel_rs("generate-server-key", "-o", str(file))
    assert (ended.status, ended.out) == (1, "")
    text = f"{file} exists and is not replaced; --force replaces it, and its identity"
    assert ended.err == f"error: {text}\n"
    assert file.read_text() == "precious"
    assert tunnel_rs("generate-server-key", "--force", "-o", str(file)).status == 0
    assert file.read_text() != "precious"


def test_the_id_of_a_known_key_is_its_public_key(tmp_path: Path) -> None:
    file = write(tmp_path / "key", SECRET_KEY + "\n")
    assert tunnel_rs("show-server-id", "--secret-file", str(file)).out == f"{ENDPOINT_ID}\n"


def test_the_home_directory_is_expanded(tmp_path: Path) -> None:
    write(tmp_path / "key", SECRET_KEY)
    ended = tunnel_rs("show-server-id", "-s", "~/key", environ={"HOME": str(tmp_path)})
    assert ended.out == f"{ENDPOINT_ID}\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            None,
            "the key file {} does not exist; make one with: tunnel-rs generate-server-key -o {}",
        ),
        ("AAAA", "{} is no key file: a secret key has 32 bytes, this has 3"),
        ("not base64", "{} is no key file: the secret key is not base64"),
        ("A" * 2000, "{} is no key file: it has more than 1024 bytes"),
    ],
)
def test_a_bad_key_file_is_told_on_one_line(tmp_path: Path, content: str | None, text: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        write(file, content)
    ended = tunnel_rs("show-server-id", "-s", str(file))
    assert (ended.status, ended.out) == (6, "")
    assert ended.err == f"error: {text.format(file, file)}\n"


@pytest.mark.parametrize("count", ["0", "10001"])
def test_the_number_of_tokens_has_a_range(count: str) -> None:
    ended = tunnel_rs("generate-token", "-c", count)
    assert ended.status == 2
    assert ended.err.startswith(f"error: invalid value for '-c' / '--count': {count} is not in the")
