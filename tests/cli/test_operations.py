import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.observed import PEER, FakeObserved
from tests.support.sockets import until

from tunnel_rs import reports
from tunnel_rs.cli.operations import Operations
from tunnel_rs.config.operations import OperationSettings
from tunnel_rs.errors import LocalError
from tunnel_rs.net.control_socket import Request, ask, find
from tunnel_rs.net.threads import in_thread
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import SocketAddr

ANYWHERE = SocketAddr("127.0.0.1", 0)


@pytest.fixture
def said() -> list[Report]:
    return []


def operations(settings: OperationSettings, said: list[Report], folder: Path) -> Operations:
    environ = {"XDG_RUNTIME_DIR": str(folder)}
    return Operations(settings, "server", said.append, environ)


async def test_the_control_socket_answers_what_there_is_to_see_and_to_do(
    tmp_path: Path, said: list[Report]
) -> None:
    async def reload(request: Request) -> Mapping[str, object]:
        return {"settings": "two tokens"}

    async with operations(OperationSettings(), said, tmp_path) as running:
        (path,) = find(tmp_path / "tunnel-rs", "tunnel-rs-*")
        assert path.name == f"tunnel-rs-server-{os.getpid()}.sock"
        answer = await in_thread(lambda: ask(path, {"command": "status"}))
        assert (answer["state"], answer["peers"]) == ("starting", [])
        with pytest.raises(LocalError, match=r"^a server cannot do that; it knows status$"):
            await in_thread(lambda: ask(path, {"command": "reload"}))
        running.observe(PEER, FakeObserved(), {"reload": reload})
        answer = await in_thread(lambda: ask(path, {"command": "status"}))
        assert answer["peers"][0]["name"] == "alice"
        answer = await in_thread(lambda: ask(path, {"command": "reload"}))
        assert answer == {"settings": "two tokens"}
        for wrong in ({}, {"command": 7}, {"command": "x"}):
            with pytest.raises(LocalError, match="cannot do that"):
                await in_thread(lambda request=wrong: ask(path, request))
    assert said == []


async def test_rates_are_measured_while_it_runs(
    tmp_path: Path, said: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel_rs.cli.overview.SAMPLE_EVERY", 0.01)
    async with operations(OperationSettings(control=False), said, tmp_path) as running:
        running.observe(PEER, FakeObserved(), {})
        await until(lambda: running.overview.status().send_rate is not None)
    assert list(tmp_path.iterdir()) == []


async def test_every_report_is_shown_counted_and_audited(
    tmp_path: Path, said: list[Report]
) -> None:
    settings = OperationSettings(control=False, audit_log=tmp_path / "audit")
    async with operations(settings, said, tmp_path) as running:
        report = reports.ClientRefused(PEER, "192.0.2.1:5", "no")
        running.report(report)
        (tmp_path / "audit").rename(tmp_path / "old")
        running.reopen()
        running.report(report)
        assert said == [report, report]
        assert running.overview.counts["clients_refused"] == 2
    for name in ("old", "audit"):
        assert json.loads((tmp_path / name).read_text())["event"] == "client_denied"


async def test_metrics_are_served_where_asked_for(tmp_path: Path, said: list[Report]) -> None:
    settings = OperationSettings(control=False, metrics_bind=ANYWHERE)
    async with operations(settings, said, tmp_path):
        (notice,) = said
        assert isinstance(notice, Notice)
        port = int(notice.text.rpartition(":")[2].removesuffix("/metrics"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        await writer.wait_closed()


async def test_without_the_usual_place_for_its_socket_all_the_rest_works(
    tmp_path: Path, said: list[Report]
) -> None:
    (tmp_path / "tunnel-rs").write_text("a file in the way")
    async with operations(OperationSettings(), said, tmp_path):
        assert "`status` will not find this program" in str(said)


@pytest.mark.parametrize("wanted", ["control_socket", "audit_log"])
async def test_what_was_asked_for_and_cannot_be_is_an_error(
    tmp_path: Path, said: list[Report], wanted: str
) -> None:
    (tmp_path / "file").write_text("")
    settings = OperationSettings(**{wanted: tmp_path / "file" / "x.sock"})
    with pytest.raises(LocalError, match=r"file/x\.sock"):
        async with operations(settings, said, tmp_path):
            pass
