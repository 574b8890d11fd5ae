"""Tell the service manager that started us how we are: `proto/service_notices.py`, sent."""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tunnel_rs.proto import service_notices

_log = logging.getLogger(__name__)


class ServiceNotices:
    """Sends notices; without a manager that listens, or without one that reads, does nothing."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "ServiceNotices":
        return cls(None if sys.platform == "win32" else service_notices.address(environ))

    def ready(self, status: str = "") -> None:
        self.send(service_notices.ready(status))

    def reloading(self) -> None:
        self.send(service_notices.reloading(time.monotonic_ns() // 1000))

    def stopping(self) -> None:
        self.send(service_notices.STOPPING)

    def alive(self) -> None:
        self.send(service_notices.ALIVE)

    def send(self, notice: bytes) -> None:
        if self._address is None or sys.platform == "win32":
            return
        # A socket for each notice, as sd_notify does: there are few, and none is left to leak.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(notice, self._address)
            except OSError as error:
                _log.debug("the service manager does not take notices: %s", error.strerror)


class Watchdog:
    """While entered, tells the manager in time that the event loop turns."""

    def __init__(self, notices: ServiceNotices, period: float | None) -> None:
        """`period` is in seconds; None: nobody watches."""
        self._notices = notices
        self._period = period
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Watchdog":
        period = service_notices.watchdog_period(environ, os.getpid())
        return cls(ServiceNotices.of(environ), period)

    def __enter__(self) -> Self:
        if self._period is not None:
            self._wait(self._period)
        return self

    def _wait(self, period: float) -> None:
        # Not told at once: the first sign of life starts the manager's clock, and a program that
        # has yet to load its modules may be busy for long. The clock starts with READY at last.
        self._timer = asyncio.get_running_loop().call_later(period, self._tell, period)

    def _tell(self, period: float) -> None:
        self._notices.alive()
        self._wait(period)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
