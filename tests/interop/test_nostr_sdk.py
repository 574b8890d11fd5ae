"""rust-nostr (the original's Nostr library) as the other end of keys, encryption, events and
relays: with the emulated original's ICE behind it, it is the whole other side of a session."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ice_scene import (
    CLIENT_KEY,
    SERVER_KEY,
    client_settings,
    nostr_client,
    nostr_server,
)
from tests.support.original import Original, echoes_tcp, serve_as_the_original
from tests.support.sockets import connect, echo_server, read_exactly, send, until

from tunnel_rs.ice.nostr_client import wall_clock
from tunnel_rs.net import nostr as net_nostr
from tunnel_rs.proto import nip44
from tunnel_rs.proto.ice_messages import Offer, Request, decode_offer, decode_request, encode
from tunnel_rs.proto.nostr_events import (
    Conversation,
    Event,
    EventType,
    is_authentic,
    parse_event,
    sign_event,
    transfer_id,
)
from tunnel_rs.proto.nostr_keys import NostrPublicKey, NostrSecretKey, verify
from tunnel_rs.values import Secret

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


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.booleans())
def test_each_takes_what_the_other_signs_and_nothing_changed(
    secret: bytes, digest: bytes, damaged: bool
) -> None:
    """Its arithmetic is libsecp256k1, ours OpenSSL and Python."""
    try:
        key = NostrSecretKey(Secret(secret))
    except ValueError:
        with pytest.raises(nostr.NostrSdkError):
            nostr.SecretKey.from_bytes(secret)
        return
    theirs = rust_key(key.nsec)
    assert theirs.public_key().to_hex() == key.public_key.hex
    assert theirs.secret_key().to_bech32() == key.nsec
    assert verify(key.public_key, bytes.fromhex(theirs.sign_schnorr(digest)), digest)
    event = sign_event(key, 1, (("d", digest.hex()),), "", NOW, digest)
    signature = bytearray.fromhex(event.sig)
    signature[digest[0] % 64] ^= damaged
    event = replace(event, sig=signature.hex())
    told = nostr.Event.from_json(json.dumps(event.as_json()))
    assert told.verify() == is_authentic(event) == (not damaged)


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


EVENT_KIND = 24_243
"""rust-nostr's relay blocks the original's kind."""


@asynccontextmanager
async def rust_relay(*, wants_auth: bool = False) -> AsyncIterator[str]:
    builder = nostr.LocalRelayBuilder()
    if wants_auth:
        mode = nostr.LocalRelayBuilderNip42Mode.BOTH
        builder = builder.nip42(nostr.LocalRelayBuilderNip42(mode=mode))
    relay = builder.build()
    await relay.run()
    try:
        yield str(await relay.url())
    finally:
        relay.shutdown()


class RustSpeaker:
    """rust-nostr's client, saying and hearing in plain text what the original does."""

    def __init__(self, key: NostrSecretKey, peer: NostrPublicKey) -> None:
        self._keys = rust_key(key.nsec)
        self._peer = peer
        self._transfer_id = transfer_id(key.public_key, peer)
        self._client = nostr.ClientBuilder().build()
        self._heard = self._client.notifications()

    async def listen(self, url: str) -> None:
        await self._client.add_relay(nostr.RelayUrl.parse(url))
        await self._client.connect()
        wanted = {
            "kinds": [EVENT_KIND],
            "#t": [self._transfer_id],
            "#p": [self._keys.public_key().to_hex()],
        }
        events = nostr.Filter.from_json(json.dumps(wanted))
        await self._client.subscribe(nostr.ReqTarget.auto([events]))

    async def next(self, type: EventType) -> bytes:
        """The body of the next message of that type that is not encrypted."""
        while True:
            notification = await self._heard.next()
            assert notification is not None
            if notification.is_new_event():
                event = parse_event(json.loads(notification.event.as_json()))
                assert event is not None
                if event.tag("type") == type.value:
                    return plain(event)

    async def say(self, type: EventType, body: bytes) -> None:
        tags = [["t", self._transfer_id], ["p", self._peer.hex], ["type", type.value]]
        content = base64.urlsafe_b64encode(body).decode().rstrip("=")
        builder = nostr.EventBuilder(nostr.Kind(EVENT_KIND), content)
        event = builder.tags([nostr.Tag.parse(tag) for tag in tags]).finalize(self._keys)
        sent = await self._client.send_event(event)
        assert not sent.failed, sent.failed

    async def leave(self) -> None:
        await self._client.shutdown()


def plain(event: Event) -> bytes:
    return base64.urlsafe_b64decode(event.content + "=" * (-len(event.content) % 4))


async def test_its_client_as_the_other_end_is_served() -> None:
    speaker = RustSpeaker(CLIENT_KEY, SERVER_KEY.public_key)
    original = Original(controlling=False, is_server=False)
    async with echo_server() as target, rust_relay() as url, nostr_server(url, kind=EVENT_KIND):
        await speaker.listen(url)
        await original.ice.gather()
        request = Request(original.ice.parameters, "0" * 16, wall_clock(), target.url)
        await speaker.say(EventType.REQUEST, encode(request))
        offer = decode_offer(await speaker.next(EventType.OFFER))
        assert offer.fingerprint is not None and offer.session_id == "0" * 16
        await echoes_tcp(await original.dial(offer.ice, offer.fingerprint))
        await speaker.leave()
    await original.close()


async def test_its_client_as_the_other_end_serves_us() -> None:
    speaker = RustSpeaker(SERVER_KEY, CLIENT_KEY.public_key)
    original = Original(controlling=True, is_server=True)

    async def serve() -> None:
        request = decode_request(await speaker.next(EventType.REQUEST))
        await original.ice.gather()
        fingerprint = original.certificate.fingerprint
        offer = Offer(original.ice.parameters, fingerprint, request.session_id)
        await speaker.say(EventType.OFFER, encode(offer))
        await serve_as_the_original(await original.accept(request.ice), udp=False)

    async with rust_relay() as url:
        await speaker.listen(url)
        serving = asyncio.create_task(serve())
        settings = client_settings("tcp://127.0.0.1:7")
        async with nostr_client(settings, url, kind=EVENT_KIND) as (running, _, _):
            sock = await connect(("127.0.0.1", running.port()))
            await send(sock, b"hello")
            assert await read_exactly(sock, 5) == b"hello"
            sock.close()
        await speaker.leave()
    await original.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_its_relay_may_ask_both_who_they_are() -> None:
    async with (
        echo_server() as target,
        rust_relay(wants_auth=True) as url,
        nostr_server(url, kind=EVENT_KIND),
        nostr_client(client_settings(target.url), url, kind=EVENT_KIND) as (running, _, _),
    ):
        sock = await connect(("127.0.0.1", running.port()))
        await send(sock, b"hello")
        assert await read_exactly(sock, 5) == b"hello"
        sock.close()


async def test_its_relay_blocks_the_original_s_kind_and_users_are_told_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(net_nostr, "VERDICT_PATIENCE", 0.5)
    async with rust_relay() as url:
        settings = client_settings("tcp://127.0.0.1:7")
        async with nostr_client(settings, url) as (_, _, reports):
            await until(lambda: "event_kind" in reports.texts("warning"))
        told = reports.texts("warning")
        assert "refuses our event: blocked: kind" in told
        assert "name other relays (--relay), or set the same event_kind on both sides" in told
