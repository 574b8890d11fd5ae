import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.support.samples import ENDPOINT_ID

from tunnel_rs import reports
from tunnel_rs.cli.audit import AuditLog
from tunnel_rs.errors import LocalError
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import EndpointId, SourceUrl

PEER = EndpointId.parse(ENDPOINT_ID)
SOURCE = SourceUrl.parse("tcp://db.example:5432")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def warnings() -> list[Report]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_who_reached_what_when_and_how_much_is_written(path: Path, warnings: list[Report]) -> None:
    log = AuditLog(path, warnings.append, wall=lambda: 1.5)
    log.report(reports.ClientAuthenticated(PEER, "192.0.2.1:5", "alice", "token"))
    log.report(reports.SessionOpened(3, SOURCE, PEER, "alice", "10.0.0.5:5432"))
    log.report(reports.SessionClosed(3, SOURCE, 10, 20, "", PEER, "alice", "10.0.0.5:5432", 1.25))
    log.report(reports.SessionRefused("tcp://10.0.0.1:22", "not allowed", PEER, "alice"))
    log.report(reports.ClientGone(PEER, "done", "alice", 10, 20, 2.5))
    log.report(reports.ClientRefused(PEER, "192.0.2.1:5", "the token is not accepted"))
    log.close()
    assert lines(path) == [
        {"time": "1970-01-01T00:00:01.500Z", **event}
        for event in (
            {
                "event": "client_admitted",
                "peer": ENDPOINT_ID,
                "address": "192.0.2.1:5",
                "name": "alice",
                "by": "token",
            },
            {
                "event": "opened",
                "session": 3,
                "source": str(SOURCE),
                "peer": ENDPOINT_ID,
                "name": "alice",
                "target": "10.0.0.5:5432",
            },
            {
                "event": "closed",
                "session": 3,
                "source": str(SOURCE),
                "sent": 10,
                "received": 20,
                "reason": "",
                "peer": ENDPOINT_ID,
                "name": "alice",
                "target": "10.0.0.5:5432",
                "seconds": 1.25,
            },
            {
                "event": "denied",
                "source": "tcp://10.0.0.1:22",
                "reason": "not allowed",
                "peer": ENDPOINT_ID,
                "name": "alice",
            },
            {
                "event": "client_gone",
                "peer": ENDPOINT_ID,
                "reason": "done",
                "name": "alice",
                "sent": 10,
                "received": 20,
                "seconds": 2.5,
            },
            {
                "event": "client_denied",
                "peer": ENDPOINT_ID,
                "address": "192.0.2.1:5",
                "reason": "the token is not accepted",
            },
        )
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert warnings == []


def test_what_else_is_reported_is_not_written(path: Path, warnings: list[Report]) -> None:
    log = AuditLog(path, warnings.append)
    log.report(Notice("warning", "x"))
    log.report(reports.ServerReady(PEER, (), ()))
    log.close()
    assert path.read_bytes() == b""


def test_nothing_that_a_peer_wrote_breaks_a_line(path: Path, warnings: list[Report]) -> None:
    log = AuditLog(path, warnings.append)
    log.report(reports.SessionRefused('a\n{"event":"opened"}\u2028\ud800', "no"))
    log.close()
    (line,) = path.read_text().split("\n")[:-1]
    assert json.loads(line)["event"] == "denied"


def test_an_existing_log_is_continued_and_after_a_rotation_the_new_file_used(
    path: Path, warnings: list[Report]
) -> None:
    path.write_text('{"event":"old"}\n')
    log = AuditLog(path, warnings.append)
    log.report(reports.ClientGone(PEER, "one"))
    path.rename(path.with_suffix(".1"))
    log.report(reports.ClientGone(PEER, "two"))
    log.reopen()
    log.report(reports.ClientGone(PEER, "three"))
    log.close()
    assert [line.get("reason") for line in lines(path.with_suffix(".1"))] == [None, "one", "two"]
    assert [line["reason"] for line in lines(path)] == ["three"]


def test_a_file_that_cannot_be_opened_is_told_at_once_and_later_keeps_the_old(
    path: Path, tmp_path: Path, warnings: list[Report]
) -> None:
    with pytest.raises(LocalError, match=r"cannot open the audit log .*: Is a directory"):
        AuditLog(tmp_path, warnings.append)
    log = AuditLog(path, warnings.append)
    kept = path.with_suffix(".1")
    path.rename(kept)
    path.mkdir()
    log.reopen()
    log.report(reports.ClientGone(PEER, "still"))
    log.close()
    assert [line["reason"] for line in lines(kept)] == ["still"]
    assert "goes on in the old file" in str(warnings[0])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_once_and_ends_nothing(warnings: list[Report]) -> None:
    log = AuditLog(Path("/dev/full"), warnings.append)
    for _ in range(3):
        log.report(reports.ClientGone(PEER, "done"))
    log.close()
    (warning,) = warnings
    assert "No space left on device; lines are missing there" in str(warning)


def test_who_got_which_address_in_a_vpn_is_written(path: Path, warnings: list[Report]) -> None:
    log = AuditLog(path, warnings.append, wall=lambda: 1.5)
    log.report(reports.VpnClientJoined(PEER, "192.0.2.1:5", ("10.0.0.2",), "alice", "token"))
    log.report(reports.ClientGone(PEER, "left", "alice", 10, 20, 2.5, ("10.0.0.2",)))
    log.close()
    came, went = lines(path)
    assert (came["event"], went["event"]) == ("client_admitted", "client_gone")
    assert came["addresses"] == went["addresses"] == ["10.0.0.2"]
    assert (came["name"], came["by"], came["peer"]) == ("alice", "token", ENDPOINT_ID)
    assert (went["sent"], went["received"], went["seconds"]) == (10, 20, 2.5)
