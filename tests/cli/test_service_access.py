import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunnel_rs.cli.service_access import find_account, steps_to_read

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="about users of POSIX systems")


@dataclass
class Someone:
    pw_uid: int = 54321
    pw_gid: int = 54321


def steps(path: Path, account: Someone | None) -> list[str]:
    return [step for step in steps_to_read(iter([path]), "someone", account) if str(path) in step]


@pytest.mark.parametrize(
    ("mode", "readable"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)]
)
def test_a_file_of_another_user_has_to_be_open_to_all(
    tmp_path: Path, mode: int, readable: bool
) -> None:
    file = tmp_path / "f"
    file.write_text("")
    file.chmod(mode)
    wanted = [] if readable else [f"chgrp someone {file} && chmod 640 {file}"]
    assert steps(file, Someone()) == wanted


def test_the_owner_and_the_group_have_rights_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("")
    found = file.stat()
    file.chmod(0o400)
    assert steps(file, Someone(pw_uid=found.st_uid)) == []
    file.chmod(0o040)
    assert steps(file, Someone(pw_gid=found.st_gid)) == []
    assert len(steps(file, Someone(pw_uid=found.st_uid))) == 1


def test_a_directory_on_the_way_has_to_let_it_through(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    (folder / "f").write_text("")
    (folder / "f").chmod(0o644)
    found = list(steps_to_read(iter([folder / "f"]), "someone", Someone()))
    assert f"chgrp someone {folder} && chmod g+x {folder}" in found
    folder.chmod(0o711)
    assert f"chgrp someone {folder} && chmod g+x {folder}" not in list(
        steps_to_read(iter([folder / "f"]), "someone", Someone())
    )


def test_a_user_that_is_not_there_is_made_first(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("")
    first, second = steps_to_read(iter([file]), "someone", None)
    assert first.startswith("useradd --system") and first.endswith(" someone")
    assert second == f"chgrp someone {file} && chmod 640 {file}"


def test_accounts_are_the_systems() -> None:
    account = find_account("root")
    assert account is not None and account.pw_uid == 0 and os.sep
    assert find_account("tunnel-rs-nobody-is-called-so") is None
