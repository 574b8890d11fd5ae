"""NIP-44 version 2: encryption between two Nostr keys, authenticated by HMAC-SHA256.

Source: nips/44.md. The cipher is ChaCha20 (RFC 8439) without its authenticator; keys come from an
ECDH point by HKDF (RFC 5869).
"""

import base64
import binascii
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.nostr_keys import NostrPublicKey, NostrSecretKey
from tunnel_rs.values import Secret

MAX_PLAIN = 65_535
"""Most bytes of plain text; the least is 1."""

NONCE_LENGTH = 32

_VERSION = 2
_SALT = b"nip44-v2"
_MAC_LENGTH = 32
_SMALLEST = 1 + NONCE_LENGTH + 2 + 32 + _MAC_LENGTH
_LARGEST_TEXT = 87_472
"""Most base64 characters of a payload (nips/44.md, "Decryption")."""


def conversation_key(secret: NostrSecretKey, peer: NostrPublicKey) -> Secret[bytes]:
    """The key both ends derive, 32 bytes; it never changes for a pair of keys."""
    return Secret(hmac.digest(_SALT, secret.shared_x(peer), "sha256"))


def padded_length(length: int) -> int:
    """What a plain text of `length` bytes (1 and more) is padded to, so that sizes tell little."""
    if length <= 32:
        return 32
    power = 1 << (length - 1).bit_length()
    chunk = 32 if power <= 256 else power // 8
    return chunk * ((length - 1) // chunk + 1)


def encrypt(key: Secret[bytes], plain: bytes, nonce: bytes) -> str:
    """A payload in base64. `nonce` is 32 fresh random bytes. ValueError for an empty or too long
    plain text."""
    if not 1 <= len(plain) <= MAX_PLAIN:
        raise ValueError(f"{len(plain)} bytes cannot be encrypted, 1 to {MAX_PLAIN} can")
    if len(nonce) != NONCE_LENGTH:
        raise ValueError(f"a nonce has {NONCE_LENGTH} bytes")
    padding = bytes(padded_length(len(plain)) - len(plain))
    cipher_key, cipher_nonce, mac_key = _message_keys(key, nonce)
    sealed = _chacha20(cipher_key, cipher_nonce, len(plain).to_bytes(2, "big") + plain + padding)
    mac = hmac.digest(mac_key, nonce + sealed, "sha256")
    return base64.b64encode(bytes([_VERSION]) + nonce + sealed + mac).decode()


def decrypt(key: Secret[bytes], payload: str) -> bytes:
    """The plain text. Raises ProtocolError, which tells nothing of it."""
    data = _decode(payload)
    nonce = data[1 : 1 + NONCE_LENGTH]
    sealed, mac = data[1 + NONCE_LENGTH : -_MAC_LENGTH], data[-_MAC_LENGTH:]
    cipher_key, cipher_nonce, mac_key = _message_keys(key, nonce)
    if not hmac.compare_digest(mac, hmac.digest(mac_key, nonce + sealed, "sha256")):
        raise ProtocolError("the encrypted message is not by its author, or was changed")
    padded = _chacha20(cipher_key, cipher_nonce, sealed)
    length = int.from_bytes(padded[:2], "big")
    plain, padding = padded[2 : 2 + length], padded[2 + length :]
    good = length > 0 and len(padded) == 2 + padded_length(length) and not any(padding)
    if not good:
        raise ProtocolError("the encrypted message is padded wrongly")
    return plain


def _decode(payload: str) -> bytes:
    if payload.startswith("#"):
        raise ProtocolError("the message is encrypted in a way this program does not know")
    if len(payload) > _LARGEST_TEXT:
        raise ProtocolError("the encrypted message is too long")
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) < _SMALLEST:
        raise ProtocolError("the encrypted message is damaged")
    if data[0] != _VERSION:
        raise ProtocolError("the message is encrypted in a way this program does not know")
    return data


def _message_keys(key: Secret[bytes], nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """ChaCha20 key, its nonce, HMAC key."""
    expanded = HKDFExpand(hashes.SHA256(), 76, nonce).derive(key.reveal())
    return expanded[:32], expanded[32:44], expanded[44:]


def _chacha20(key: bytes, nonce: bytes, data: bytes) -> bytes:
    # The library takes counter and nonce in one; NIP-44 begins to count at 0.
    return Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), None).encryptor().update(data)
