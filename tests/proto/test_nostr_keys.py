import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.nostr_keys import NostrPublicKey, NostrSecretKey, verify
from tunnel_rs.values import Secret

NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
SECRET_HEX = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa"
NPUB = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
PUBLIC_HEX = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
"""Examples of NIP-19 and NIP-06."""


def test_the_examples_of_nip_19() -> None:
    assert NostrSecretKey.parse(NSEC).nsec == NSEC
    assert NostrSecretKey.parse(SECRET_HEX).nsec == NSEC
    assert NostrPublicKey.parse(NPUB).hex == PUBLIC_HEX
    assert NostrPublicKey.parse(PUBLIC_HEX.upper()).npub == NPUB


def test_a_new_key_is_asked_of_the_randomness_until_it_is_in_range() -> None:
    given_bytes = iter([bytes(32), b"\xff" * 32, b"\1" * 32])
    key = NostrSecretKey.generate(lambda n: next(given_bytes))
    assert key.public_key == NostrSecretKey(Secret(b"\1" * 32)).public_key


def test_a_signature_holds_for_one_key_and_one_digest() -> None:
    key, other = NostrSecretKey(Secret(b"\1" * 32)), NostrSecretKey(Secret(b"\2" * 32))
    digest = hashlib.sha256(b"x").digest()
    signature = key.sign(digest, bytes(32))
    assert verify(key.public_key, signature, digest)
    assert not verify(other.public_key, signature, digest)
    assert not verify(key.public_key, signature, bytes(32))
    assert not verify(key.public_key, signature[:-1], digest)
    assert not verify(NostrPublicKey(bytes(32)), signature, digest)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "neither nsec1"),
        (NSEC[:-1] + "q", "neither nsec1"),
        (NSEC[:20], "neither nsec1"),
        (NPUB, "public key"),
        ("0" * 64, "range"),
        ("f" * 64, "range"),
    ],
)
def test_a_wrong_secret_key_is_refused_without_being_shown(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        NostrSecretKey.parse(text)
    assert not text or text[8:] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (NSEC, "secret key"),
        (NPUB[:-1] + "q", "neither npub1"),
        ("f" * 64, "no point"),
        ("x", "nei"),
    ],
)
def test_a_wrong_public_key_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        NostrPublicKey.parse(text)
    assert NSEC not in str(caught.value)


def test_a_secret_key_is_never_shown() -> None:
    key = NostrSecretKey.parse(NSEC)
    assert NSEC not in repr(key) and SECRET_HEX not in repr(key)


@given(st.text(max_size=80))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    for parse in (NostrSecretKey.parse, NostrPublicKey.parse):
        with pytest.raises(ValueError):
            parse(text)
