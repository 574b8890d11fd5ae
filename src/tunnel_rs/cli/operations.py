"""What runs beside a server or client so that it can be watched and steered."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Self

from tunnel_rs.cli.audit import AuditLog
from tunnel_rs.cli.overview import Observed, Overview
from tunnel_rs.cli.plain import plain
from tunnel_rs.config.operations import OperationSettings
from tunnel_rs.errors import LocalError
from tunnel_rs.net.control_socket import ControlSocket, Request, runtime_directory
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Notice, Report, Reporter
from tunnel_rs.values import EndpointId

Command = Callable[[Request], Awaitable[Mapping[str, object]]]
"""Carries out one command of a request. Raises TunnelError."""


class Operations:
    """Use as an async context manager around all the program does; give its `report` to all
    parts. `observe` tells what there is to see and to steer, once it is there."""

    def __init__(
        self,
        settings: OperationSettings,
        role: str,
        report: Reporter,
        environ: Mapping[str, str],
        *,
        program: str = "tunnel-rs",
    ) -> None:
        self.overview = Overview(program, role)
        self._settings = settings
        self._tell = report
        self._environ = environ
        self._audit: AuditLog | None = None
        self._commands: dict[str, Command] = {"status": self._status}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises LocalError when the audit log or the address for metrics cannot be used."""
        try:
            self._open_audit()
            await self._serve_metrics()
            await self._listen()
            sampling = await self._open.enter_async_context(TaskScope("operations"))
            sampling.spawn(self._sample(), "sample")
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def report(self, report: Report) -> None:
        """A `Reporter`: shows, counts, and keeps for the audit."""
        self._tell(report)
        self.overview.report(report)
        if self._audit is not None:
            self._audit.report(report)

    def observe(
        self, endpoint_id: EndpointId | None, observed: Observed, commands: Mapping[str, Command]
    ) -> None:
        """What there is to see, and what can be done beside `status`."""
        self.overview.observe(endpoint_id, observed)
        self._commands.update(commands)

    def reopen(self) -> None:
        """Files that are written to may have been moved away: open them anew."""
        if self._audit is not None:
            self._audit.reopen()

    def _open_audit(self) -> None:
        if self._settings.audit_log is not None:
            self._audit = AuditLog(self._settings.audit_log, self.report)
            self._open.callback(self._close_audit, self._audit)

    def _close_audit(self, audit: AuditLog) -> None:
        self._audit = None
        audit.close()

    async def _serve_metrics(self) -> None:
        if self._settings.metrics_bind is None:
            return
        # Imported here: it brings an HTTP server along, which few need.
        from tunnel_rs.cli.monitor import Monitor

        monitor = Monitor(self._settings.metrics_bind, self.overview.status)
        await monitor.start()
        self._open.push_async_callback(monitor.close)
        self.report(Notice("info", f"metrics: http://{monitor.address}/metrics"))

    async def _listen(self) -> None:
        if not self._settings.control:
            return
        path = self._settings.control_socket
        if path is None:
            name = f"{self.overview.program}-{self.overview.role}-{os.getpid()}.sock"
            path = runtime_directory(self._environ) / name
        try:
            await self._open.enter_async_context(ControlSocket(path, self._handle))
        except LocalError as error:
            if self._settings.control_socket is not None:
                raise
            self.report(Notice("info", f"{error}; `status` will not find this program"))

    async def _handle(self, request: Request) -> Mapping[str, object]:
        name = request.get("command")
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            known = ", ".join(self._commands)
            raise LocalError(f"a {self.overview.role} cannot do that; it knows {known}")
        return await command(request)

    async def _status(self, _: Request) -> Mapping[str, object]:
        status = plain(self.overview.status())
        assert isinstance(status, dict)
        return status

    async def _sample(self) -> None:
        while True:
            gap = self.overview.sample()
            await asyncio.sleep(gap)
