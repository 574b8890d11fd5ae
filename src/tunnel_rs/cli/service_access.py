"""Whether the user that a service runs as can read the files it needs, and what helps if not."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Account(Protocol):
    """As much of an entry of the user database as is needed."""

    @property
    def pw_uid(self) -> int: ...

    @property
    def pw_gid(self) -> int: ...


def find_account(name: str) -> Account | None:
    """None when there is no such user."""
    import pwd

    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def steps_to_read(paths: Iterator[Path], name: str, account: Account | None) -> Iterator[str]:
    """Commands, one a line, without which a service cannot run as the user `name`."""
    if account is None:
        yield f"useradd --system --user-group --home-dir / --shell /usr/sbin/nologin {name}"
    for path in paths:
        if account is None or not _readable(path, account, name):
            yield f"chgrp {name} {path} && chmod 640 {path}"
        for parent in path.parents:
            if account is not None and not _allows(parent, account, name, stat.S_IXOTH):
                yield f"chgrp {name} {parent} && chmod g+x {parent}"


def _readable(path: Path, account: Account, name: str) -> bool:
    return _allows(path, account, name, stat.S_IROTH)


def _allows(path: Path, account: Account, name: str, bit: int) -> bool:
    """Whether the mode of a file gives an account the right that `bit` is for all others."""
    found = path.stat()
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & (bit << 6))
    if found.st_gid in os.getgrouplist(name, account.pw_gid):
        return bool(found.st_mode & (bit << 3))
    return bool(found.st_mode & bit)
