import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.nostr_events import (
    AUTH_KIND,
    KIND,
    Conversation,
    Event,
    EventType,
    Signal,
    is_authentic,
    parse_event,
    sign_event,
    transfer_id,
)
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.values import Secret

ONE, TWO, EVE = (NostrSecretKey(Secret(bytes([n]) * 32)) for n in (1, 2, 3))
NOW = 1_700_000_000
BODY = b'{"version":1}'


def conversation(key: NostrSecretKey, peer: NostrSecretKey) -> Conversation:
    return Conversation(key, peer.public_key, lambda n: bytes(n))


CLIENT, SERVER = conversation(ONE, TWO), conversation(TWO, ONE)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("kind", list(EventType))
def test_the_peer_understands_what_we_say(kind: EventType, encrypted: bool) -> None:
    event = CLIENT.event(kind, BODY, NOW, encrypted=encrypted)
    assert SERVER.understand(event) == Signal(kind, BODY, encrypted)


def test_an_event_has_the_original_s_kind_tags_and_content() -> None:
    event = CLIENT.event(EventType.REQUEST, BODY, NOW, encrypted=False)
    found = transfer_id(TWO.public_key, ONE.public_key)
    assert (event.kind, event.created_at, event.content) == (24_242, NOW, "eyJ2ZXJzaW9uIjoxfQ")
    assert event.tags == (("t", found), ("p", TWO.public_key.hex), ("type", "tunnel-request"))
    assert len(found) == 32 and found == transfer_id(ONE.public_key, TWO.public_key)


def test_an_encrypted_event_says_nothing_to_others() -> None:
    event = CLIENT.event(EventType.OFFER, BODY, NOW, encrypted=True)
    assert event.tag("type") == "tunnel-offer-e" and "version" not in json.dumps(event.as_json())


def test_we_subscribe_to_events_for_us_only() -> None:
    assert SERVER.filter == {
        "kinds": [KIND],
        "#t": [transfer_id(ONE.public_key, TWO.public_key)],
        "#p": [TWO.public_key.hex],
    }


def resigned(event: Event, key: NostrSecretKey = ONE, **changes: Any) -> Event:
    event = dataclasses.replace(event, **changes)
    return sign_event(key, event.kind, event.tags, event.content, event.created_at, bytes(32))


GOOD = CLIENT.event(EventType.REQUEST, BODY, NOW, encrypted=False)
SECRET = CLIENT.event(EventType.REQUEST, BODY, NOW, encrypted=True)


@pytest.mark.parametrize(
    "event",
    [
        resigned(GOOD, EVE),
        resigned(GOOD, kind=1),
        resigned(GOOD, tags=(("t", "0" * 32), *GOOD.tags[1:])),
        resigned(GOOD, tags=(GOOD.tags[0], ("p", ONE.public_key.hex), GOOD.tags[2])),
        resigned(GOOD, tags=GOOD.tags[:2]),
        resigned(GOOD, tags=(*GOOD.tags[:2], ("type", "tunnel-party"))),
        resigned(GOOD, content="!!"),
        resigned(GOOD, content="eyJ2Z"),
        resigned(SECRET, content=SECRET.content[:-8] + "AAAAAAA="),
        dataclasses.replace(GOOD, content="eyJ2ZXJzaW9uIjoyfQ"),
        dataclasses.replace(GOOD, sig="00" * 64),
        dataclasses.replace(GOOD, created_at=NOW + 1),
    ],
)
def test_what_is_forged_or_not_for_us_is_not_understood(event: Event) -> None:
    assert SERVER.understand(event) is None


def test_our_own_events_are_not_taken_for_the_peer_s() -> None:
    assert CLIENT.understand(GOOD) is None


def test_an_event_survives_the_relay() -> None:
    assert parse_event(json.loads(json.dumps(GOOD.as_json()))) == GOOD
    assert is_authentic(GOOD)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "x"},
        {"id": GOOD.id.upper()},
        {"pubkey": 1},
        {"sig": "00"},
        {"created_at": -1},
        {"created_at": 1.0},
        {"kind": 1 << 16},
        {"kind": True},
        {"tags": "x"},
        {"tags": [["t"]] * 65},
        {"tags": [["t"] * 17]},
        {"tags": [[1]]},
        {"content": None},
        {"content": "x" * 100_000},
    ],
)
def test_a_malformed_event_is_no_event(changes: dict[str, Any]) -> None:
    assert parse_event({**GOOD.as_json(), **changes}) is None


def test_an_auth_event_names_relay_and_challenge() -> None:
    event = CLIENT.auth_event("wss://relay/", "dare", NOW)
    assert event.kind == AUTH_KIND and is_authentic(event)
    assert (event.tag("relay"), event.tag("challenge")) == ("wss://relay/", "dare")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD.as_json())), json_values))
def test_no_fields_make_the_reader_fail(changes: dict[str, Any]) -> None:
    event = parse_event({**GOOD.as_json(), **changes})
    if event is not None:
        SERVER.understand(event)
