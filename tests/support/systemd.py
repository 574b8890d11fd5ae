"""A systemd of a test's own: process 1 in name spaces that end with it (needs root, Linux).

It sees this machine's files but cannot write to them (see `FENCE`); its network is loopback alone.
Our program is in /mnt/bin, whatever user's directory it is in outside: services run as nobody.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from time import monotonic, sleep

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
PROGRAM = "/mnt/bin/tunnel-rs"
READY_WITHIN = 30.0

FENCE = """\
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -o remount,ro,bind /
mount -o remount,ro,bind /sys
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
for place in /tmp /var/tmp /var/lib /var/log /run /mnt /dev/shm /etc/systemd/system; do
  mount -t tmpfs -o mode=755 tmpfs $place
done
"""
"""What is done there must not reach this machine: all its files are read-only, and so are the
kernel's settings; what has to be written to is memory that ends with the name space."""

_SET_UP = (
    """\
# Held open, as the fence may hide where they are.
exec 3<"$1" 4<"$2" 5<"$3"
"""
    + FENCE
    + """\
mount -t tmpfs -o mode=755 tmpfs /sys/fs
mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lock /mnt/bin /mnt/etc /mnt/python /mnt/packages /mnt/src
mount --no-canonicalize --bind /proc/self/fd/3 /mnt/python
mount --no-canonicalize --bind /proc/self/fd/4 /mnt/packages
mount --no-canonicalize --bind /proc/self/fd/5 /mnt/src
exec 3<&- 4<&- 5<&-
for place in python packages src; do mount -o remount,ro,bind /mnt/$place; done
cat >/mnt/bin/tunnel-rs <<'END'
#!/bin/sh
export PYTHONPATH=/mnt/src:/mnt/packages PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH=/mnt/python/lib
exec /mnt/python/bin/python3 -m tunnel_rs "$@"
END
chmod 755 /mnt/bin/tunnel-rs
# Nothing of what a machine does when it starts, other than what a test asks for.
for unit in test sysinit basic network-online nss-lookup local-fs swap; do
  printf '[Unit]\\nDefaultDependencies=no\\n' >/etc/systemd/system/$unit.target
done
for unit in systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-sysctl; do
  ln -s /dev/null /etc/systemd/system/$unit.service
done
# As process 1 of a machine does: credentials are mounted elsewhere and have to show up here.
mount --make-rshared /
ip link set lo up
export container=test
exec setpriv --bounding-set=-sys_boot,-sys_module,-sys_time,-syslog,-mknod \
  /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no
"""
)


@dataclass(frozen=True)
class Systemd:
    """A running one; `pid` is its process as seen from here."""

    pid: int

    def run(self, *command: str, stdin: str = "", check: bool = True) -> str:
        """Run a command inside; what it printed."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--wd=/", *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=45,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        self.run("sh", "-ec", 'cat >"$1" && chmod "$2" "$1"', "sh", path, mode, stdin=text)

    def show(self, unit: str) -> dict[str, str]:
        """All properties of a unit."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def until(self, unit: str, **wanted: str) -> dict[str, str]:
        """The properties of a unit once some of them are as wanted."""
        deadline = monotonic() + READY_WITHIN
        while True:
            found = self.show(unit)
            if all(found[name] == value for name, value in wanted.items()):
                return found
            assert monotonic() < deadline, {name: found[name] for name in wanted}
            sleep(0.1)


@contextmanager
def own_systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Start one; on leaving all its processes are killed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux and root")
    for program in (str(SYSTEMD), "unshare", "nsenter", "setpriv", "systemctl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, which is not installed here")
    group = _new_cgroup()
    log = tmp_path / "systemd.log"
    python, packages = sys.base_prefix, sysconfig.get_path("platlib")
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts"]
    command = [*unshare, "--ipc", "--net", "--cgroup", "sh", "-ec", _SET_UP, "sh"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL"]  # should this process be killed
            + ["sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(group), *command]
            + [python, packages, str(ROOT / "src")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Systemd(_wait_until_up(process, log))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _remove(group)


def _new_cgroup() -> Path:
    for place in CGROUPS:
        if (place / "cgroup.procs").exists():
            group = place / f"tunnel-rs-test-{token_hex(4)}"
            group.mkdir()
            return group
    pytest.skip("needs control groups of version 2")


def _wait_until_up(process: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = monotonic() + READY_WITHIN
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while monotonic() < deadline and process.poll() is None:
        if (pids := children.read_text().split()) and _answers(int(pids[0])):
            return int(pids[0])
        sleep(0.1)
    pytest.fail(f"systemd did not start:\n{log.read_text(errors='replace')}")


def _answers(pid: int) -> bool:
    command = ["nsenter", "--target", str(pid), "--all", "systemctl", "is-system-running"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() in ("running", "degraded")


def _remove(group: Path) -> None:
    """Control groups go from the innermost; the kernel may still hold them for a moment."""
    deadline = monotonic() + 5
    while group.exists() and monotonic() < deadline:
        for folder, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                sleep(0.05)
