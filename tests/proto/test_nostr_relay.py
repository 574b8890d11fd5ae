import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.nostr_events import KIND, Conversation, sign_event
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.proto.nostr_relay import (
    MAX_MESSAGE,
    MAX_PUBLISHED,
    SUBSCRIPTION,
    Arrived,
    Published,
    RelayEvent,
    RelayNotice,
    RelaySession,
    Subscribed,
    SubscriptionClosed,
)
from tunnel_rs.values import Secret

KEY = NostrSecretKey(Secret(bytes([1]) * 32))
EVENT = sign_event(KEY, KIND, (("t", "x"),), "hello", 1, bytes(32))
OURS = Conversation(KEY, KEY.public_key, bytes)
FILTER: dict[str, object] = {"kinds": [KIND]}


def session() -> RelaySession:
    return RelaySession(FILTER, lambda challenge: OURS.auth_event("wss://r/", challenge, 1))


def subscribed() -> RelaySession:
    one = session()
    one.opened()
    hear(one, "EOSE", SUBSCRIPTION)
    assert events(one) == [Subscribed()]
    sent(one)
    return one


def hear(one: RelaySession, *message: Any, now: float = 0.0) -> None:
    one.received(json.dumps(message), now)


def events(one: RelaySession) -> list[RelayEvent]:
    found = []
    while (event := one.next_event()) is not None:
        found.append(event)
    return found


def sent(one: RelaySession) -> list[Any]:
    return [json.loads(text) for text in one.outgoing()]


def test_a_session_begins_with_its_subscription() -> None:
    one = session()
    one.opened()
    assert sent(one) == [["REQ", SUBSCRIPTION, FILTER]]
    assert sent(one) == []


def test_events_of_our_subscription_arrive() -> None:
    one = subscribed()
    hear(one, "EVENT", SUBSCRIPTION, EVENT.as_json())
    hear(one, "EVENT", "other", EVENT.as_json())
    hear(one, "EVENT", SUBSCRIPTION, {"id": 1})
    assert events(one) == [Arrived(EVENT)]


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ([True, ""], True),
        ([False, "blocked: no"], False),
        ([False, "duplicate: had it"], True),
        ([True], True),
    ],
)
def test_the_relay_s_verdict_on_our_event_is_told_once(answer: list[Any], accepted: bool) -> None:
    one = subscribed()
    one.publish(EVENT)
    assert sent(one) == [["EVENT", EVENT.as_json()]]
    hear(one, "OK", EVENT.id, *answer)
    hear(one, "OK", EVENT.id, *answer)
    reason = answer[1] if len(answer) > 1 else ""
    assert events(one) == [Published(EVENT.id, accepted, reason)]


def test_a_closed_subscription_is_asked_for_again_later_and_later() -> None:
    one = subscribed()
    now = 100.0
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        hear(one, "CLOSED", SUBSCRIPTION, "error: tired", now=now)
        assert events(one) == [SubscriptionClosed("error: tired")]
        assert one.get_timer() == now + pause
        one.handle_timer(now + pause - 0.1)
        assert sent(one) == []
        now += pause
        one.handle_timer(now)
        assert sent(one) == [["REQ", SUBSCRIPTION, FILTER]]
        assert one.get_timer() is None
    hear(one, "EOSE", SUBSCRIPTION)
    hear(one, "CLOSED", SUBSCRIPTION, "", now=now)
    assert one.get_timer() == now + 1


def test_a_relay_that_asks_who_we_are_is_told_and_gets_everything_again() -> None:
    one = session()
    one.opened()
    one.publish(EVENT)
    sent(one)
    hear(one, "CLOSED", SUBSCRIPTION, "auth-required: who?")
    hear(one, "OK", EVENT.id, False, "auth-required: who?")
    hear(one, "AUTH", "dare")
    [[word, answer]] = sent(one)
    assert word == "AUTH" and ["challenge", "dare"] in answer["tags"]
    hear(one, "OK", answer["id"], True, "")
    assert sent(one) == [["REQ", SUBSCRIPTION, FILTER], ["EVENT", EVENT.as_json()]]
    hear(one, "OK", EVENT.id, True, "")
    assert events(one)[-1] == Published(EVENT.id, True, "")


def test_a_relay_that_does_not_accept_our_key_refuses_our_events() -> None:
    one = subscribed()
    one.publish(EVENT)
    hear(one, "OK", EVENT.id, False, "restricted: members only")
    hear(one, "AUTH", "dare")
    answer = sent(one)[-1][1]
    hear(one, "OK", answer["id"], False, "no member")
    assert events(one) == [
        RelayNotice("it does not accept our key: no member"),
        Published(EVENT.id, False, "no member"),
    ]


def test_words_of_the_relay_are_one_short_printable_line() -> None:
    one = subscribed()
    hear(one, "NOTICE", "a\n\x1b[2J" + "b" * 1000)
    [notice] = events(one)
    assert isinstance(notice, RelayNotice)
    assert notice.text.startswith("a  [2Jbbb") and len(notice.text) <= 200


def test_what_awaits_a_verdict_is_bounded() -> None:
    one = subscribed()
    many = [sign_event(KEY, KIND, (), str(n), n, bytes(32)) for n in range(MAX_PUBLISHED + 1)]
    for event in many:
        one.publish(event)
    hear(one, "OK", many[0].id, True, "")
    hear(one, "OK", many[1].id, True, "")
    assert events(one) == [Published(many[1].id, True, "")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "[1]",
        '["EVENT"]',
        '["OK",1,true]',
        '["AUTH",{}]',
        "[" * 100_000,
        '["NOTICE","' + "x" * MAX_MESSAGE + '"]',
        '["AUTH","' + "x" * 2000 + '"]',
        '["NEWS","x"]',
    ],
)
def test_what_makes_no_sense_is_ignored(text: str) -> None:
    one = subscribed()
    one.received(text, 0.0)
    assert events(one) == [] and sent(one) == []


words = st.sampled_from(["EVENT", "OK", "EOSE", "CLOSED", "AUTH", "NOTICE", SUBSCRIPTION, EVENT.id])
values = words | st.booleans() | st.none() | st.integers() | st.just(EVENT.as_json())


@given(st.lists(st.lists(values, max_size=4), max_size=20))
def test_no_messages_make_it_fail(messages: list[list[Any]]) -> None:
    one = subscribed()
    for message in messages:
        hear(one, *message)
        one.handle_timer(1e9)
