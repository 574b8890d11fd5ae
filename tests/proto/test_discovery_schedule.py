import pytest

from tunnel_rs.proto.discovery_schedule import PublishSchedule, StaggeredLookup
from tunnel_rs.proto.pkarr import EndpointRecord

NOTHING = EndpointRecord()
HOME = EndpointRecord(("https://one.example/",))
OTHER = EndpointRecord(("https://two.example/",))


def published(schedule: PublishSchedule, record: EndpointRecord, now: float) -> None:
    schedule.update(record, now)
    assert schedule.begin() == record
    schedule.succeeded(now)


def test_nothing_is_published_before_there_is_a_way_to_reach_us() -> None:
    schedule = PublishSchedule()
    assert schedule.next_attempt() is None
    schedule.update(EndpointRecord(user_data="still nothing to dial"), 1.0)
    assert schedule.next_attempt() is None


def test_a_change_is_published_at_once() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 5.0)
    assert schedule.next_attempt() == 5.0
    assert schedule.begin() == HOME
    assert schedule.next_attempt() is None
    schedule.succeeded(6.0)
    assert schedule.published == HOME


def test_a_record_is_repeated_every_300_seconds() -> None:
    schedule = PublishSchedule()
    published(schedule, HOME, 10.0)
    assert schedule.next_attempt() == 310.0
    schedule.begin()
    schedule.succeeded(310.5)
    assert schedule.next_attempt() == 610.5


def test_after_n_failures_it_is_tried_again_in_n_seconds() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 0.0)
    now, starts = 0.0, []
    for _ in range(5):
        schedule.begin()
        schedule.failed(now)
        due = schedule.next_attempt()
        assert due is not None
        starts.append(now := due)
    assert starts == [1.0, 3.0, 6.0, 10.0, 15.0]
    assert schedule.failures == 5
    schedule.begin()
    schedule.succeeded(now)
    assert schedule.failures == 0
    assert schedule.next_attempt() == now + 300.0


def test_a_retry_never_waits_longer_than_the_interval() -> None:
    schedule = PublishSchedule(interval=3.0)
    schedule.update(HOME, 0.0)
    for _ in range(10):
        schedule.begin()
        schedule.failed(0.0)
    assert schedule.next_attempt() == 3.0


def test_a_change_during_the_wait_after_a_failure_is_published_at_once() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 0.0)
    schedule.begin()
    schedule.failed(0.0)
    schedule.update(OTHER, 0.5)
    assert schedule.next_attempt() == 0.5


def test_a_change_while_publishing_follows_right_after() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 0.0)
    schedule.begin()
    schedule.update(OTHER, 0.1)
    assert schedule.next_attempt() is None
    schedule.succeeded(0.2)
    assert schedule.next_attempt() == 0.2
    assert schedule.begin() == OTHER


def test_a_change_while_an_attempt_fails_follows_right_after() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 0.0)
    schedule.begin()
    schedule.update(OTHER, 0.1)
    schedule.failed(0.2)
    assert schedule.next_attempt() == 0.2


def test_a_lost_relay_is_never_published_again_and_withdrawn_after_a_while() -> None:
    schedule = PublishSchedule()
    published(schedule, HOME, 0.0)
    schedule.update(NOTHING, 100.0)
    assert schedule.next_attempt() == 110.0
    assert schedule.begin() == NOTHING
    schedule.succeeded(110.0)
    assert schedule.next_attempt() is None


def test_a_relay_that_comes_back_soon_costs_no_publication() -> None:
    schedule = PublishSchedule()
    published(schedule, HOME, 0.0)
    schedule.update(NOTHING, 100.0)
    schedule.update(HOME, 101.0)
    assert schedule.next_attempt() == 300.0


def test_a_relay_that_comes_back_after_the_withdrawal_is_published_again() -> None:
    schedule = PublishSchedule()
    published(schedule, HOME, 0.0)
    published(schedule, NOTHING, 100.0)
    schedule.update(HOME, 101.0)
    assert schedule.next_attempt() == 101.0


def test_an_attempt_that_may_have_arrived_is_withdrawn_too() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 0.0)
    schedule.begin()
    schedule.failed(1.0)
    assert schedule.published is None
    schedule.update(NOTHING, 1.5)
    assert schedule.next_attempt() == 11.5


def test_an_attempt_that_failed_is_not_taken_for_published() -> None:
    schedule = PublishSchedule()
    schedule.update(HOME, 0.0)
    schedule.begin()
    schedule.failed(1.0)
    schedule.update(OTHER, 1.2)
    schedule.update(HOME, 1.3)
    assert schedule.next_attempt() == 1.3


def test_the_same_record_again_changes_nothing() -> None:
    schedule = PublishSchedule()
    published(schedule, HOME, 0.0)
    schedule.update(EndpointRecord(HOME.relay_urls), 50.0)
    assert schedule.next_attempt() == 300.0


def test_an_outcome_without_an_attempt_is_a_mistake() -> None:
    with pytest.raises(RuntimeError):
        PublishSchedule().succeeded(0.0)


def test_a_lookup_is_repeated_at_the_documented_times() -> None:
    lookup = StaggeredLookup(100.0)
    starts = []
    while (now := lookup.next_event()) is not None:
        for number in lookup.start_due(now):
            starts.append(round(now - 100.0, 3))
            lookup.failed(number)
    assert starts == [0.0, 0.2, 0.3, 0.6, 1.0, 2.0, 3.0]
    assert lookup.over


def test_every_question_times_out_after_3_seconds() -> None:
    lookup = StaggeredLookup(0.0)
    now, expired = 0.0, []
    while (event := lookup.next_event()) is not None:
        now = event
        expired += [(number, round(now, 3)) for number in lookup.expire(now)]
        lookup.start_due(now)
    assert expired == [(0, 3.0), (1, 3.2), (2, 3.3), (3, 3.6), (4, 4.0), (5, 5.0), (6, 6.0)]
    assert lookup.over
    assert lookup.sent == 7


def test_repeats_that_were_slept_through_start_together() -> None:
    lookup = StaggeredLookup(0.0)
    assert lookup.start_due(0.65) == [0, 1, 2, 3]
    assert lookup.start_due(0.65) == []
    assert not lookup.over
    assert lookup.next_event() == 1.0


def test_the_failure_of_an_expired_question_is_harmless() -> None:
    lookup = StaggeredLookup(0.0, delays=[0.0], timeout=1.0)
    lookup.start_due(0.0)
    assert lookup.expire(1.0) == [0]
    lookup.failed(0)
    assert lookup.over
