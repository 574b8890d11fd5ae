"""rust-nostr (the original's Nostr library) as the other end of keys, encryption and events."""

import json
import os
from typing import Any

import pytest
from tests.support.ice_scene import CLIENT_KEY, SERVER_KEY

from tunnel_rs.proto import nip44
from tunnel_rs.proto.nostr_events import (
    Conversation,
    EventType,
    is_authentic,
    parse_event,
    transfer_id,
)
from tunnel_rs.proto.nostr_keys import NostrPublicKey

nostr = pytest.importorskip("nostr_sdk")

pytestmark = pytest.mark.interop

OURS = Conversation(CLIENT_KEY, SERVER_KEY.public_key, os.urandom)
NOW = 1_700_000_000


def rust_key(nsec: str) -> Any:
    return nostr.Keys.parse(nsec)


def test_both_write_the_same_keys() -> None:
    keys = rust_key(CLIENT_KEY.nsec)
    assert keys.public_key().to_bech32() == CLIENT_KEY.public_key.npub
    assert NostrPublicKey.parse(keys.public_key().to_hex()) == CLIENT_KEY.public_key


@pytest.mark.parametrize("text", ["x", "hello " * 10, "z" * 1500, "é" * 700])
def test_each_opens_what_the_other_encrypts(text: str) -> None:
    keys = rust_key(SERVER_KEY.nsec)
    client = nostr.PublicKey.parse(CLIENT_KEY.public_key.npub)
    key = nip44.conversation_key(CLIENT_KEY, SERVER_KEY.public_key)
    ours = nip44.encrypt(key, text.encode(), os.urandom(32))
    assert keys.nip44_decrypt(client, ours) == text
    assert nip44.decrypt(key, keys.nip44_encrypt(client, text)) == text.encode()


def test_it_verifies_our_events() -> None:
    event = OURS.event(EventType.REQUEST, b"{}", NOW, encrypted=False)
    theirs = nostr.Event.from_json(json.dumps(event.as_json()))
    assert theirs.verify()


def test_we_understand_its_events() -> None:
    keys = rust_key(SERVER_KEY.nsec)
    tags = [
        ["t", transfer_id(CLIENT_KEY.public_key, SERVER_KEY.public_key)],
        ["p", CLIENT_KEY.public_key.hex],
        ["type", "tunnel-offer"],
    ]
    builder = nostr.EventBuilder(nostr.Kind(24242), "e30").tags(
        [nostr.Tag.parse(tag) for tag in tags]
    )
    event = parse_event(json.loads(builder.finalize(keys).as_json()))
    assert event is not None and is_authentic(event)
    signal = OURS.understand(event)
    assert signal is not None and signal.body == b"{}"
