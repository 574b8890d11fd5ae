"""Tests of `tunnel_rs.forward.sessions`."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.support.sockets import until

from tunnel_rs.forward.sessions import Session, Sessions
from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.reports import Report, SessionClosed, SessionOpened, SessionStatus
from tunnel_rs.values import SocketAddr, SourceUrl

SOURCE = SourceUrl.parse("tcp://127.0.0.1:22")


def taken(sessions: Sessions) -> Session:
    session = sessions.take(SOURCE)
    assert session is not None
    return session


def test_a_session_is_numbered_reported_and_frees_its_slot_once() -> None:
    reports: list[Report] = []
    sessions = Sessions(reports.append, limit=1, now=lambda: 0.0)
    with taken(sessions) as session:
        session.opened()
    session.ended(SpliceEnd(1, 2, ""))
    session.ended(SpliceEnd(1, 2, ""))
    assert reports == [SessionOpened(1, SOURCE), SessionClosed(1, SOURCE, 1, 2, "")]
    assert taken(sessions).number == 2


def test_at_the_limit_there_is_no_slot() -> None:
    sessions = Sessions(lambda _: None, limit=2)
    assert sessions.take(SOURCE) and sessions.take(SOURCE)
    assert sessions.take(SOURCE) is None
    assert len(sessions) == 2


def test_setting_up_that_fails_frees_the_slot_without_a_report() -> None:
    reports: list[Report] = []
    sessions = Sessions(reports.append, limit=1, now=lambda: 0.0)
    with pytest.raises(OSError), taken(sessions):
        raise OSError("no")
    assert len(sessions) == 0
    assert reports == []


def test_failing_after_the_opening_was_reported_is_reported_too() -> None:
    reports: list[Report] = []
    sessions = Sessions(reports.append, limit=1, now=lambda: 0.0)
    with pytest.raises(OSError), taken(sessions) as session:
        session.opened()
        raise OSError("no")
    assert reports[1:] == [SessionClosed(1, SOURCE, 0, 0, "no")]


async def test_waiting_ends_when_the_last_session_has_ended() -> None:
    sessions = Sessions(lambda _: None, limit=9)
    await sessions.wait_empty()
    first, second = taken(sessions), taken(sessions)
    waiting = asyncio.create_task(sessions.wait_empty())
    first.ended(SpliceEnd(0, 0, ""))
    await asyncio.sleep(0)
    assert not waiting.done()
    second.ended(SpliceEnd(0, 0, ""))
    await until(waiting.done)


@dataclass
class FakeCarrier:
    sent: int = 0
    received: int = 0
    reason: str | None = None

    def abort(self, reason: str) -> None:
        self.reason = reason


def test_aborting_all_reaches_every_session_and_those_still_set_up_later() -> None:
    sessions = Sessions(lambda _: None, limit=9)
    early, late = FakeCarrier(), FakeCarrier()
    taken(sessions).carried_by(early)
    setting_up = taken(sessions)
    sessions.abort_all("bye")
    assert early.reason == "bye"
    setting_up.carried_by(late)
    assert late.reason == "bye"


def test_one_session_is_aborted_by_its_number() -> None:
    sessions = Sessions(lambda _: None, limit=9)
    carriers = [FakeCarrier(), FakeCarrier()]
    for carrier in carriers:
        taken(sessions).carried_by(carrier)
    assert sessions.abort(2, "killed")
    assert not sessions.abort(3, "killed")
    assert [carrier.reason for carrier in carriers] == [None, "killed"]


def test_the_status_of_a_session_and_the_totals_of_all() -> None:
    clock = [5.0]
    sessions = Sessions(lambda _: None, limit=9, now=lambda: clock[0])
    gone, open_ = taken(sessions), taken(sessions)
    gone.ended(SpliceEnd(100, 200, ""))
    assert open_.status.sent == 0
    open_.carried_by(FakeCarrier(sent=1, received=2))
    open_.target = SocketAddr("127.0.0.1", 22)
    clock[0] = 7.5
    assert open_.status == SessionStatus(2, SOURCE, "127.0.0.1:22", 1, 2, 2.5)
    assert sessions.totals == (101, 202)
    assert sessions.begun == 2 and [s.number for s in sessions] == [2]
