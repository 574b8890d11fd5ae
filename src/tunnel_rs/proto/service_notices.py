"""What a service tells the manager that started it, and what the manager's environment asks for.

Source: sd_notify(3) and sd_watchdog_enabled(3) of systemd. A notice is one datagram of lines
`NAME=value`; `NOTIFY_SOCKET` says where it goes.
"""

from collections.abc import Mapping

MAX_STATUS = 200
"""Characters of a status; `systemctl status` shows it on one line."""

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's name on Linux (unix(7)), without the final zero."""

STOPPING = b"STOPPING=1\n"
ALIVE = b"WATCHDOG=1\n"


def ready(status: str = "") -> bytes:
    """Start-up, or reloading, is done."""
    return b"READY=1\n" + (_status(status) if status else b"")


def reloading(now: int) -> bytes:
    """Settings are being read again; `now` is the monotonic clock in microseconds."""
    return f"RELOADING=1\nMONOTONIC_USEC={now}\n".encode()


def _status(text: str) -> bytes:
    shown = "".join(c if c.isprintable() else " " for c in text.partition("\n")[0])
    return f"STATUS={shown[:MAX_STATUS]}\n".encode(errors="replace")


def address(environ: Mapping[str, str]) -> str | None:
    """The Unix socket that notices go to, as `sendto` wants it; None when nobody listens.

    A leading @ stands for Linux's abstract name space. Other kinds of address (vsock) are for
    virtual machines, and nobody's here.
    """
    name = environ.get("NOTIFY_SOCKET", "")
    if len(name) < 2 or name[0] not in "/@" or "\0" in name:
        return None
    if len(name.encode(errors="surrogateescape")) > MAX_SOCKET_PATH:
        return None
    return "\0" + name[1:] if name[0] == "@" else name


def watchdog_period(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two `ALIVE`: half of what the manager allows. None when it does not watch
    this process."""
    wanted = environ.get("WATCHDOG_PID")
    if wanted is not None and wanted != str(pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) == 0:
        return None
    return int(text) / 2_000_000
