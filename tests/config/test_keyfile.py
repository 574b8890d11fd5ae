"""The key file: private, whole, never overwritten by accident, and read with clear errors."""

import base64
import errno
import os
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tunnel_rs.config import keyfile
from tunnel_rs.config.keyfile import exposure_warning, read_secret_key, write_secret_key
from tunnel_rs.errors import ConfigError, LocalError
from tunnel_rs.values import Secret

SEED = Secret(bytes([0x2A] * 32))
OTHER = Secret(bytes(32))
TEXT = base64.b64encode(SEED.reveal()).decode()

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.key"


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def refusing(number: int) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_written_key_is_read_again(path: Path) -> None:
    write_secret_key(path, SEED, force=False)
    assert read_secret_key(path) == SEED


def test_the_file_is_base64_and_a_line_end(path: Path) -> None:
    write_secret_key(path, SEED, force=False)
    assert path.read_text() == TEXT + "\n"


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_can_read_it_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_secret_key(path, SEED, force=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix_only
def test_the_file_is_private_before_the_first_byte_is_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    created: list[tuple[object, ...]] = []
    open_file = os.open

    def watch(*args: object) -> int:
        created.append(args)
        return open_file(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "open", watch)
    write_secret_key(path, SEED, force=False)
    assert created[0][2] == 0o600
    assert modes[0] == 0o600


def test_an_existing_file_is_kept_and_the_way_out_is_named(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(LocalError, match="server.key exists and is not replaced; --force"):
        write_secret_key(path, SEED, force=False)
    assert path.read_text() == "precious"
    assert names_in(path.parent) == ["server.key"]


def test_force_replaces_a_file_and_makes_it_private(path: Path) -> None:
    path.write_text("old")
    path.chmod(0o644)
    write_secret_key(path, SEED, force=True)
    assert read_secret_key(path) == SEED
    assert exposure_warning(path) is None
    assert names_in(path.parent) == ["server.key"]


def test_force_needs_no_file_to_replace(path: Path) -> None:
    write_secret_key(path, SEED, force=True)
    assert read_secret_key(path) == SEED


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_durably = keyfile._write_durably

    def be_overtaken(temporary: Path, content: bytes) -> None:
        write_durably(temporary, content)
        path.write_text("somebody was faster")

    monkeypatch.setattr(keyfile, "_write_durably", be_overtaken)
    with pytest.raises(LocalError, match="exists and is not replaced"):
        write_secret_key(path, SEED, force=False)
    assert path.read_text() == "somebody was faster"
    assert names_in(path.parent) == ["server.key"]


@posix_only
class TestWithoutHardLinks:
    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    def test_a_key_is_written(self, path: Path) -> None:
        write_secret_key(path, SEED, force=False)
        assert read_secret_key(path) == SEED
        assert exposure_warning(path) is None
        assert names_in(path.parent) == ["server.key"]

    def test_an_existing_file_is_kept(self, path: Path) -> None:
        path.write_text("precious")
        with pytest.raises(LocalError, match="exists and is not replaced"):
            write_secret_key(path, SEED, force=False)
        assert path.read_text() == "precious"
        assert names_in(path.parent) == ["server.key"]

    def test_nothing_is_left_when_the_claimed_name_cannot_be_filled(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "replace", refusing(errno.EIO))
        with pytest.raises(LocalError, match="input/output error"):
            write_secret_key(path, SEED, force=False)
        assert names_in(path.parent) == []


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_left_when_the_disk_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    with pytest.raises(LocalError, match="server.key: no space left on device$"):
        write_secret_key(path, SEED, force=force)
    assert names_in(path.parent) == []


def test_the_old_key_survives_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_secret_key(path, OTHER, force=False)
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    with pytest.raises(LocalError):
        write_secret_key(path, SEED, force=True)
    assert read_secret_key(path) == OTHER


@pytest.mark.parametrize("force", [False, True])
def test_a_missing_directory_is_named(tmp_path: Path, force: bool) -> None:
    with pytest.raises(LocalError, match=r"the directory .*nowhere does not exist; create it"):
        write_secret_key(tmp_path / "nowhere" / "server.key", SEED, force=force)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_directory_is_no_place_for_a_key(name: str, force: bool) -> None:
    with pytest.raises(LocalError, match="is a directory; name a file in it"):
        write_secret_key(Path(name), SEED, force=force)


@posix_only
def test_force_does_not_replace_a_device() -> None:
    with pytest.raises(LocalError, match="/dev/null is not a regular file"):
        write_secret_key(Path("/dev/null"), SEED, force=True)


@posix_only
def test_force_writes_behind_a_symbolic_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.key", tmp_path / "link.key"
    real.write_text("old")
    link.symlink_to(real)
    write_secret_key(link, SEED, force=True)
    assert link.is_symlink()
    assert read_secret_key(real) == SEED


@posix_only
@pytest.mark.parametrize("force", [False, True])
def test_a_link_that_leads_nowhere_is_kept(tmp_path: Path, force: bool) -> None:
    link = tmp_path / "link.key"
    link.symlink_to(tmp_path / "absent")
    with pytest.raises(LocalError):
        write_secret_key(link, SEED, force=force)
    assert names_in(tmp_path) == ["link.key"]


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="embedded null"):
        write_secret_key(tmp_path / "a\0b", SEED, force=False)


def test_no_error_about_writing_holds_the_key(path: Path) -> None:
    path.write_text("old")
    with pytest.raises(LocalError) as caught:
        write_secret_key(path, SEED, force=False)
    assert TEXT not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("content", [TEXT, f"{TEXT}\n", f"{TEXT}\r\n", f"  {TEXT} \n\n"])
def test_blanks_around_the_key_do_not_matter(path: Path, content: str) -> None:
    path.write_bytes(content.encode())
    assert read_secret_key(path) == SEED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "a secret key has 32 bytes, this has 0"),
        (base64.b64encode(bytes(31)), "a secret key has 32 bytes, this has 31"),
        (base64.b64encode(bytes(33)), "a secret key has 32 bytes, this has 33"),
        (TEXT.encode()[:-1], "not base64"),
        (TEXT.encode() + b"!", "not base64"),
        (SEED.reveal().hex().encode(), "a secret key has 32 bytes, this has 48"),
        (bytes(range(128, 160)), "not base64"),
        (TEXT.encode() + b"\n" + TEXT.encode(), "not base64"),
        (b"A" * 1025, "more than 1024 bytes"),
    ],
)
def test_what_is_no_key_is_refused_naming_the_file(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_secret_key(path)
    text = str(caught.value)
    assert text.startswith(f"{path} is no key file: ")
    assert "\n" not in text
    if content:
        shown = "".join(traceback.format_exception(caught.value))
        assert content[:20].decode("latin-1") not in shown


def test_an_absent_file_is_named_with_the_command_that_makes_one(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; make one with: tunnel-rs generate-"):
        read_secret_key(path)


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the key file .*: is a directory"):
        read_secret_key(tmp_path)


def test_an_unreadable_file_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", refusing(errno.EACCES))
    with pytest.raises(ConfigError, match="cannot read the key file .*key: permission denied$"):
        read_secret_key(path)


@posix_only
def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="more than 1024 bytes"):
        read_secret_key(Path("/dev/zero"))


@posix_only
@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)]
)
def test_a_warning_when_others_may_read_the_key(path: Path, mode: int, warned: bool) -> None:
    write_secret_key(path, SEED, force=False)
    path.chmod(mode)
    warning = exposure_warning(path)
    assert (warning is not None) == warned
    if warning is not None:
        assert f"mode {mode:04o}); run: chmod 600 {path}" in warning


def test_no_warning_about_what_is_no_file(tmp_path: Path) -> None:
    assert exposure_warning(tmp_path) is None
    assert exposure_warning(tmp_path / "absent") is None
    assert exposure_warning(tmp_path / "a\0b") is None
