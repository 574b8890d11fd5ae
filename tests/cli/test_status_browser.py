"""The status page in a real browser."""

import asyncio
import html
from pathlib import Path
from typing import Any

import pytest
from tests.support import servers
from tests.support.observed import PEER, FakeObserved

from tunnel_rs import reports
from tunnel_rs.cli.overview import Overview
from tunnel_rs.cli.plain import plain
from tunnel_rs.cli.status_page import StatusPage
from tunnel_rs.values import SocketAddr

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def told() -> list[Any]:
    now = [0.0]
    overview = Overview("tunnel-rs", "server", wall=lambda: 0.0, now=lambda: now[0])
    observed = FakeObserved()
    overview.observe(PEER, observed)
    overview.report(reports.ServerReady(PEER, (), ()))
    overview.report(reports.SessionRefused("tcp://10.0.0.1:22", HOSTILE))
    for second in range(30):
        now[0] = float(second)
        observed.sessions.totals = (1000 * second * second, 0)
        overview.sample()
    return [plain(overview.status())]


@pytest.mark.slow
async def test_a_browser_shows_everything_live_and_nothing_as_markup(tmp_path: Path) -> None:
    chromium = servers.find("chromium")
    asked: list[None] = []

    def ask() -> list[Any]:
        asked.append(None)
        return told()

    page = StatusPage(SocketAddr("127.0.0.1", 0), ask)
    await page.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=4000", "--dump-dom", page.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(tmp_path), "PATH": servers.PATH},
        )
        out, err = await process.communicate()
    finally:
        await page.close()
    shown, log = out.decode(), err.decode()
    assert process.returncode == 0
    assert len(asked) >= 2, "it asks again and again"
    for part in (
        "tunnel-rs server",
        "alice",
        "192.0.2.1:4433",
        "tcp://127.0.0.1:22",
        "12.5 ms",
        "192.0.2.7",
    ):
        assert part in shown
    assert "1 running" in shown
    assert '<path d="M' in shown, "the throughput is drawn"
    assert html.escape(HOSTILE, quote=False) in shown and "<title>owned" not in shown
    # The browser's own pages may say something, too: of a slow network, on a busy machine.
    said = [line for line in log.splitlines() if "CONSOLE" in line and "chrome://" not in line]
    assert not said, "no error of the script, nothing that the policy refused"
