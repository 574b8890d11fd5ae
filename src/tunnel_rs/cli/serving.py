"""Run a self-hosted server from its start to an orderly end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from tunnel_rs.cli.signals import StopSignals, run_until_signal
from tunnel_rs.errors import ExitStatus, TunnelError
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Notice, Report, Reporter

STOP_TIME = 2.0
"""Seconds to stop in after the first signal."""


class SelfHosted(Protocol):
    """A relay or discovery server."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


async def serve(
    server: SelfHosted,
    report: Reporter,
    ready: Callable[[], Report],
    reload: Callable[[], Awaitable[tuple[str, ...]]],
) -> ExitStatus:
    """Start, say so, and run until a signal. `reload` is for SIGHUP: it returns what needs a
    restart; what it raises leaves the settings in use in place."""
    async with TaskScope("reload", limit=8) as reloads:

        def reread() -> None:
            reloads.spawn(_reload(report, reload), "settings")

        with StopSignals(reload=reread) as signals:
            return await run_until_signal(
                _run(server, report, ready), server.close, signals, report, stop_time=STOP_TIME
            )


async def _run(server: SelfHosted, report: Reporter, ready: Callable[[], Report]) -> None:
    await server.start()
    report(ready())
    await asyncio.Event().wait()


async def _reload(report: Reporter, reload: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
    try:
        needs_restart = await reload()
    except TunnelError as error:
        report(Notice("warning", f"{error}; the settings in use stay as they are"))
        return
    report(Notice("info", "settings read again"))
    if needs_restart:
        report(Notice("warning", f"changed, but used after a restart: {', '.join(needs_restart)}"))
