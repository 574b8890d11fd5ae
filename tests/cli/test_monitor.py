from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.support.observed import PEER, FakeObserved

from tunnel_rs import reports
from tunnel_rs.cli.monitor import Monitor
from tunnel_rs.cli.overview import Overview
from tunnel_rs.errors import LocalError
from tunnel_rs.values import SocketAddr

ANYWHERE = SocketAddr("127.0.0.1", 0)


class Served:
    def __init__(self) -> None:
        self.overview = Overview("tunnel-rs", "client")
        self.overview.observe(PEER, FakeObserved())
        self.monitor = Monitor(ANYWHERE, self.overview.status)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        async with aiohttp.ClientSession() as session:
            async with session.request(method, f"http://{self.monitor.address}{path}") as answer:
                return answer.status, await answer.text(), answer.headers["Content-Type"]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    await served.monitor.start()
    yield served
    await served.monitor.close()


async def test_metrics_are_prometheus_text(served: Served) -> None:
    status, text, kind = await served.ask("/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "tunnel_rs_peers 1\n" in text


async def test_it_is_alive_from_the_start_and_ready_when_it_does_its_work(served: Served) -> None:
    assert (await served.ask("/healthz"))[:2] == (200, "alive\n")
    assert (await served.ask("/readyz"))[:2] == (503, "starting\n")
    served.overview.report(reports.TunnelUp(PEER, "LAN", 0.1))
    assert (await served.ask("/readyz"))[:2] == (200, "ready\n")
    served.overview.report(reports.TunnelLost("no answer", 1.0))
    assert (await served.ask("/readyz"))[:2] == (503, "connecting: no answer\n")


async def test_anything_else_is_not_there(served: Served) -> None:
    assert (await served.ask("/"))[0] == 404
    assert (await served.ask("/metrics", "POST"))[0] == 405


async def test_an_address_in_use_is_told(served: Served) -> None:
    other = Monitor(served.monitor.address, served.overview.status)
    with pytest.raises(LocalError, match="cannot listen on"):
        await other.start()
