import os
import stat
from pathlib import Path

import pytest

from tunnel_rs.config.nostr_keyfile import read_nostr_key, write_nostr_key
from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.proto.nostr_keys import NostrSecretKey

KEY = NostrSecretKey.generate(os.urandom)


def test_a_written_key_is_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_nostr_key(path, KEY, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_nostr_key(path).public_key == KEY.public_key


def test_a_key_is_not_replaced_without_force(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("mine")
    with pytest.raises(LocalError, match="--force"):
        write_nostr_key(path, KEY, False)
    assert path.read_text() == "mine"
    write_nostr_key(path, KEY, True)
    assert read_nostr_key(path).public_key == KEY.public_key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("# only this\n", "is empty"),
        (f"{KEY.nsec}\n" * 2, "2 lines"),
        (KEY.nsec[:-1], "neither nsec1"),
    ],
    ids=["empty", "comment", "two", "cut"],
)
def test_a_wrong_file_is_explained_without_its_content(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_nostr_key(path)
    assert KEY.nsec[5:30] not in str(caught.value)


def test_hex_and_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("# a key\n\n" + "01" * 32 + "\n")
    assert read_nostr_key(path).public_key == NostrSecretKey.parse("01" * 32).public_key
