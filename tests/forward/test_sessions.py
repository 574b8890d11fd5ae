"""Tests of `tunnel_rs.forward.sessions`."""

import asyncio

import pytest
from tests.support.sockets import until

from tunnel_rs.forward.sessions import Session, Sessions
from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.reports import Report, SessionClosed, SessionOpened
from tunnel_rs.values import SourceUrl

SOURCE = SourceUrl.parse("tcp://127.0.0.1:22")


def taken(sessions: Sessions) -> Session:
    session = sessions.take(SOURCE)
    assert session is not None
    return session


def test_a_session_is_numbered_reported_and_frees_its_slot_once() -> None:
    reports: list[Report] = []
    sessions = Sessions(reports.append, limit=1)
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
    sessions = Sessions(reports.append, limit=1)
    with pytest.raises(OSError), taken(sessions):
        raise OSError("no")
    assert len(sessions) == 0
    assert reports == []


def test_failing_after_the_opening_was_reported_is_reported_too() -> None:
    reports: list[Report] = []
    sessions = Sessions(reports.append, limit=1)
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


def test_aborting_all_reaches_every_session_that_can_be_aborted() -> None:
    sessions = Sessions(lambda _: None, limit=9)
    reasons: list[str] = []
    taken(sessions)  # still setting up: nothing to abort
    taken(sessions).abort = reasons.append
    taken(sessions).abort = reasons.append
    sessions.abort_all("bye")
    assert reasons == ["bye", "bye"]
