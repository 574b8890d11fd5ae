import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.nip44 import conversation_key, decrypt, encrypt, padded_length
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.values import Secret

ONE = NostrSecretKey(Secret(bytes(31) + b"\1"))
TWO = NostrSecretKey(Secret(bytes(31) + b"\2"))
KEY = conversation_key(ONE, TWO.public_key)
NONCE = bytes(31) + b"\1"
PAYLOAD = (
    "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABee0G5VSK0/9YypIObAtDKfYEAjD35uVkHyB0F4DwrcNa"
    "CXlCWZKaArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb"
)
"""First vector of "encrypt_decrypt" of NIP-44: this key, this nonce, the text "a"."""


def test_the_vector_of_the_specification() -> None:
    expected = "c41c775356fd92eadc63ff5a0dc1da211b268cbea22316767095b2871ea1412d"
    assert KEY.reveal().hex() == expected
    assert conversation_key(TWO, ONE.public_key) == KEY
    assert encrypt(KEY, b"a", NONCE) == PAYLOAD
    assert decrypt(KEY, PAYLOAD) == b"a"


@pytest.mark.parametrize(
    ("length", "padded"),
    [(1, 32), (32, 32), (33, 64), (65, 96), (100, 128), (257, 320), (1025, 1280), (65_535, 65_536)],
)
def test_lengths_are_padded_as_the_specification_says(length: int, padded: int) -> None:
    assert padded_length(length) == padded


@given(st.binary(min_size=1, max_size=3000), st.binary(min_size=32, max_size=32))
def test_any_text_survives_the_way(plain: bytes, nonce: bytes) -> None:
    assert decrypt(KEY, encrypt(KEY, plain, nonce)) == plain


@pytest.mark.parametrize("plain", [b"", b"x" * 65_536])
def test_empty_and_too_long_texts_cannot_be_encrypted(plain: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be encrypted"):
        encrypt(KEY, plain, NONCE)


@pytest.mark.parametrize("position", [0, 1, 40, 70, 98])
def test_a_changed_byte_is_noticed(position: int) -> None:
    data = bytearray(base64.b64decode(PAYLOAD))
    data[position] ^= 1
    with pytest.raises(ProtocolError):
        decrypt(KEY, base64.b64encode(data).decode())


def test_another_key_does_not_open_it() -> None:
    other = NostrSecretKey(Secret(bytes(31) + b"\3"))
    with pytest.raises(ProtocolError, match="not by its author"):
        decrypt(conversation_key(other, ONE.public_key), PAYLOAD)


@pytest.mark.parametrize("payload", ["", "#future", "AgAA", "!" * 140, "A" * 90_000])
def test_what_is_no_payload_is_refused(payload: str) -> None:
    with pytest.raises(ProtocolError):
        decrypt(KEY, payload)


@given(st.text(max_size=300))
def test_no_text_raises_anything_else(payload: str) -> None:
    with pytest.raises(ProtocolError):
        decrypt(KEY, payload)
